"""Every mistake in SVC_INFRA, all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import wraps
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error
from django.core.checks import register as django_register
from pydantic import BaseModel, ValidationError

from ..app_config import declared
from ..errors import ConfigurationError
from .secrets import Secret
from .sections import BadSettings, Section, mistakes, raw_section

HINT = "docs/reference/config.md says how sections are written; `manage.py show_svc_settings` lists them."

Check = Callable[..., Iterable[CheckMessage]]


def register(*tags: str, deploy: bool = False) -> Callable[[Check], Check]:
    """Django's `register` for a check that reads sections of SVC_INFRA.

    Where a section is bad the check finds nothing: E002 tells what is wrong with it, and a check that
    raised would take the place of every other message.
    """

    def registering(check: Check) -> Check:
        @wraps(check)
        def unless_bad(**options: Any) -> list[CheckMessage]:
            try:
                return list(check(**options))
            except BadSettings:
                return []

        django_register(unless_bad, *tags, deploy=deploy)
        return check

    return registering


@register("svc_infra")
def check_sections(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E001 unknown section, E002 bad value, E003 secret that cannot be read, E004 not a dict."""
    written = getattr(django_settings, "SVC_INFRA", {})
    if not isinstance(written, Mapping):
        return [Error("SVC_INFRA must be a dict of sections.", hint=HINT, id="svc_config.E004")]

    sections: dict[str, type[Section]] = {cls.section: cls for _, cls in declared("settings_section")}
    found: list[CheckMessage] = []
    for name in written:
        if name not in sections:
            found.append(_unknown(str(name), sections))
    for name, cls in sections.items():
        try:
            section = cls.model_validate(raw_section(name))
        except ValidationError as error:
            found += [Error(line, hint=HINT, id="svc_config.E002") for line in mistakes(name, error)]
        else:
            found += _unreadable_secrets(section)
    return found


def _unknown(name: str, known: Iterable[str]) -> Error:
    close = get_close_matches(name, list(known), n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Installed sections: {', '.join(sorted(known))}."
    return Error(
        f"SVC_INFRA[{name!r}] belongs to no installed app.",
        hint=f"{hint} Or the app that reads it is missing from INSTALLED_APPS.",
        id="svc_config.E001",
    )


def _unreadable_secrets(section: Section) -> Iterable[Error]:
    for name in type(section).model_fields:
        for secret in _secrets_in(getattr(section, name)):
            try:
                secret.reveal()
            except ConfigurationError as error:
                yield Error(
                    f"SVC_INFRA[{section.section!r}][{name!r}]: {error.message}",
                    hint="Set the variable, or correct the path.",
                    id="svc_config.E003",
                )


def _secrets_in(value: object) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, BaseModel):
        for _, inner in value:
            yield from _secrets_in(inner)
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _secrets_in(inner)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from _secrets_in(inner)
