"""Say whether the logs of what matters to security are as they were written, and where each ends."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ....chains import faults, heads


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--contains", help="A digest that was printed before and must still be there.")

    def handle(self, *args: Any, contains: str | None, **options: Any) -> None:
        broken = [self._look_at(head_model) for head_model in heads()]
        if any(broken):
            raise CommandError(f"{sum(broken)} faults: somebody changed what was written.")
        if contains and not any(
            head_model.chain_of._default_manager.filter(digest=contains).exists() for head_model in heads()
        ):
            raise CommandError("No row has this digest: a log was put back, or the row was pruned.")

    def _look_at(self, head_model: Any) -> int:
        """Print what is found of one log; how many faults it has."""
        rows = head_model.chain_of
        found = list(faults(head_model))
        for fault in found:
            self.stderr.write(f"{rows._meta.label}: {fault}")
        loose = rows._default_manager.loose().count()
        last = rows._default_manager.chained().last()
        end = "no row is chained" if last is None else f"ends with row {last.number}, {last.digest}"
        self.stdout.write(f"{rows._meta.label}: {end}; {loose} not chained yet.")
        return len(found)
