"""Show the settings that are in force, which of them are defaults, and no secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from pydantic import BaseModel

from ....app_config import declared
from ...sections import BadSettings, load

# A Secret shows as its reference. This is for what a section takes in clear, such as a provider's dict.
SECRET_NAME = re.compile(r"(?i)(password|passwd|secret|token|credential|key)s?$")
PASSWORD_IN_URL = re.compile(r"(://[^/\s:@]*:)[^/\s]+(?=@)")
MASK = "********"


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("section", nargs="?", help="Only this section.")
        parser.add_argument("--changed", action="store_true", help="Only what differs from the default.")

    def handle(self, *args: Any, section: str | None, changed: bool, **options: Any) -> None:
        sections = {cls.section: cls for _, cls in declared("settings_section")}
        if section is not None and section not in sections:
            raise CommandError(f"No section {section!r}; there are: {', '.join(sorted(sections))}.")
        for cls in [sections[section]] if section else sections.values():
            try:
                values = load(cls)
            except BadSettings as error:
                raise CommandError(error.message) from None
            self.stdout.write(self.style.MIGRATE_HEADING(cls.section))
            for name in cls.model_fields:
                is_set = name in values.model_fields_set
                if is_set or not changed:
                    mark = self.style.SUCCESS("set") if is_set else "default"
                    self.stdout.write(f"  {name} = {_masked(name, getattr(values, name))!r}  ({mark})")


def _masked(name: str, value: Any) -> Any:
    if isinstance(value, BaseModel):
        value = dict(value)
    is_secret = SECRET_NAME.search(name)
    if isinstance(value, Mapping):
        return {key: _masked(name if is_secret else str(key), inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_masked(name, inner) for inner in value]
    if isinstance(value, (str, bytes)) and is_secret:
        return MASK
    return PASSWORD_IN_URL.sub(rf"\1{MASK}", value) if isinstance(value, str) else value
