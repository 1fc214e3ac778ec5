"""Writes the pages of docs/reference that the code itself knows best: `python -m docs.generate`."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import get_annotations
from pathlib import Path

import django

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "svc_infra_django"

LEVELS = {"E": "error", "W": "warning", "I": "information", "C": "critical", "D": "debug"}


def pages() -> dict[Path, str]:
    """Every generated page and what it should hold now. Django must be set up."""
    return {
        HERE / "reference" / "settings.md": settings_page(),
        HERE / "reference" / "checks.md": checks_page(),
        HERE / "reference" / "events.md": events_page(),
    }


def settings_page() -> str:
    from svc_infra_django.app_config import declared

    lines = [
        "# Settings",
        "",
        "One dict, `SVC_INFRA`, with a section for each installed app. A section that is left out has its",
        "defaults; `manage.py check` reports every mistake at once, `manage.py show_svc_settings` shows what",
        "is in force.",
    ]
    for _, section in declared("settings_section"):
        lines += ["", f"## {section.section}", ""]
        lines += ["| field | type | default | |", "|---|---|---|---|"]
        for name, field in section.model_fields.items():
            default = (
                "required"
                if field.is_required()
                else _code(repr(field.get_default(call_default_factory=True)))
            )
            about = _one_line(field.description)
            lines.append(f"| `{name}` | {_code(_annotation(section, name))} | {default} | {about} |")
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    return f"`{_one_line(text)}`"


def _one_line(text: str | None) -> str:
    """Text as a cell of a table."""
    return " ".join((text or "").split()).replace("|", "\\|")


def _annotation(section: type, name: str) -> str:
    """The type as it is written in the code."""
    for cls in section.__mro__:
        if name in (written := get_annotations(cls)):
            return str(written[name])
    return ""


def checks_page() -> str:
    lines = [
        "# System checks",
        "",
        "What `manage.py check` (and `check --deploy`) may tell you, and what to do about it. `…` stands for",
        "what is particular to your project. Silence one with `SILENCED_SYSTEM_CHECKS`.",
    ]
    app = ""
    for check in sorted(declared_checks(), key=lambda check: check.id):
        if check.app != app:
            app = check.app
            lines += ["", f"## {app}", "", "| id | level | says | what to do |", "|---|---|---|---|"]
        level = LEVELS[check.id.rpartition(".")[2][0]]
        lines.append(f"| `{check.id}` | {level} | {_one_line(check.message)} | {_one_line(check.hint)} |")
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class DeclaredCheck:
    id: str
    message: str
    hint: str

    @property
    def app(self) -> str:
        return self.id.partition(".")[0]


def declared_checks() -> list[DeclaredCheck]:
    """Each id once, with the first message that the code gives it."""
    found: dict[str, DeclaredCheck] = {}
    for source in sorted(PACKAGE.rglob("*.py")):
        for check in _checks_in(ast.parse(source.read_text(encoding="utf-8"))):
            found.setdefault(check.id, check)
    return list(found.values())


def _checks_in(module: ast.Module) -> Iterator[DeclaredCheck]:
    constants = {
        target.id: node.value
        for node in module.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(module):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        identifier = _text(given.get("id"), constants)
        if re.fullmatch(r"svc_\w+\.[EWICD]\d{3}", identifier):
            message = _text(node.args[0] if node.args else given.get("msg"), constants)
            if message == "…":
                message = _in_docstrings(module, identifier)
            yield DeclaredCheck(identifier, message, _text(given.get("hint"), constants))


def _in_docstrings(module: ast.Module, identifier: str) -> str:
    """What a docstring of the module says of the id: `E001 unknown section, E002 bad value.`"""
    short = identifier.rpartition(".")[2]
    for node in ast.walk(module):
        if isinstance(node, ast.FunctionDef) and (
            said := re.search(rf"{short} ([^,;.]+)", ast.get_docstring(node) or "")
        ):
            return f"{said[1].capitalize()}."
    return "…"


def _text(node: ast.expr | None, constants: dict[str, ast.expr]) -> str:
    """A string expression as a reader sees it, with `…` for what is only known at run time."""
    match node:
        case None | ast.Constant(value=None):
            return ""
        case ast.Constant(value=str(text)):
            return " ".join(text.split()) if text.strip() else text
        case ast.JoinedStr(values=parts):
            texts = [
                part.value if isinstance(part, ast.Constant) else _text(part, constants) for part in parts
            ]
            return "".join(str(text) for text in texts)
        case ast.FormattedValue(value=ast.Name(id=name)) if name in constants:
            return _text(constants[name], constants)
        case ast.Name(id=name) if name in constants:
            return _text(constants[name], constants)
        case _:
            return "…"


def events_page() -> str:
    from svc_infra_django.events import catalog

    lines = [
        "# Events",
        "",
        "What the suite says has happened. Receive one with Django's `receiver` on its `EventType`, or all",
        "of them on `svc_infra_django.events.any_event`. *Outward* events also go to the project's webhook",
        "endpoints, with the payload as `data`.",
    ]
    for name, event in sorted(catalog.items()):
        if not event.payload.__module__.startswith("svc_infra_django."):
            continue
        lines += ["", f"## `{name}`", "", event.summary + (" *Outward.*" if event.outward else ""), ""]
        lines += ["| field | type | |", "|---|---|---|"]
        for field, info in event.payload.model_fields.items():
            lines.append(
                f"| `{field}` | {_code(_annotation(event.payload, field))} | {_one_line(info.description)} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(HERE.parent))


if __name__ == "__main__":
    main()
