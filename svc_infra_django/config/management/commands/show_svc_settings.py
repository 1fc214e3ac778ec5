"""Show the settings that are in force, which of them are defaults, and no secret."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from ....app_config import declared
from ...sections import load


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("section", nargs="?", help="Only this section.")
        parser.add_argument("--changed", action="store_true", help="Only what differs from the default.")

    def handle(self, *args: Any, section: str | None, changed: bool, **options: Any) -> None:
        for _, cls in declared("settings_section"):
            if section not in (None, cls.section):
                continue
            values = load(cls)
            self.stdout.write(self.style.MIGRATE_HEADING(cls.section))
            for name in cls.model_fields:
                is_set = name in values.model_fields_set
                if is_set or not changed:
                    mark = self.style.SUCCESS("set") if is_set else "default"
                    self.stdout.write(f"  {name} = {getattr(values, name)!r}  ({mark})")
