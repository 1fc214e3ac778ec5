"""The generated pages of the reference say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs import generate
from svc_infra_django.events import catalog

PAGES = generate.pages()
OURS = sorted(
    name for name, event in catalog.items() if event.payload.__module__.startswith("svc_infra_django.")
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_is_up_to_date(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == PAGES[page], "Run: python -m docs.generate"


def test_every_check_id_is_documented_once() -> None:
    page = PAGES[generate.HERE / "reference" / "checks.md"]
    in_code = {
        found
        for source in generate.PACKAGE.rglob("*.py")
        for found in re.findall(r"\"(svc_\w+\.[EWICD]\d{3})\"", source.read_text(encoding="utf-8"))
    }

    assert in_code
    assert {name: page.count(f"`{name}`") for name in in_code} == dict.fromkeys(in_code, 1)


def test_every_fault_is_told_with_tests_that_exist() -> None:
    page = generate.HERE / "explanation" / "what-the-tests-break.md"
    named = set(re.findall(r"`(test_\w+)`", page.read_text(encoding="utf-8")))
    sources = (generate.HERE.parent / "tests").rglob("test_*.py")
    defined = {
        name
        for source in sources
        for name in re.findall(r"^def (test_\w+)", source.read_text(encoding="utf-8"), re.MULTILINE)
    }

    assert named
    assert sorted(named - defined) == []


def test_every_check_says_what_to_do() -> None:
    assert [check.id for check in generate.declared_checks() if not check.hint or check.message == "…"] == []


def test_every_setting_is_documented() -> None:
    page = PAGES[generate.HERE / "reference" / "settings.md"]

    assert [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")] == []


@pytest.mark.parametrize("name", OURS)
def test_an_event_is_named_for_what_has_happened(name: str) -> None:
    noun, _, happened = name.rpartition(".")

    assert re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", noun)
    assert re.fullmatch(r"[a-z_]+", happened)
    assert catalog[name].summary
