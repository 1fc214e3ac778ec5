"""Write the logs of what matters to security as JSON lines, oldest first."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from ....chains import exported_lines, heads


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        labels = [head_model.chain_of._meta.label for head_model in heads()]
        parser.add_argument("logs", nargs="*", choices=[[], *labels], help="Which; all if none is named.")
        parser.add_argument("--since", help="From this time on, such as 2026-11-01T00:00:00Z.")
        parser.add_argument(
            "--only",
            action="append",
            default=[],
            metavar="COLUMN=VALUE",
            help="Rows with this value only, such as name=login.failed. Logs without the column have none.",
        )

    def handle(self, *args: Any, logs: list[str], since: str | None, only: list[str], **options: Any) -> None:
        wanted = dict(_parted(each) for each in only)
        for rows in (head_model.chain_of for head_model in heads()):
            if (logs and rows._meta.label not in logs) or not all(_has(rows, name) for name in wanted):
                continue
            found = rows._default_manager.filter(**wanted).order_by("created_at", "id")
            if since is not None:
                found = found.filter(created_at__gte=_moment(since))
            for line in exported_lines(found.iterator(chunk_size=500)):
                self.stdout.write(line, ending="")


def _parted(text: str) -> tuple[str, str]:
    name, is_there, value = text.partition("=")
    if not is_there:
        raise CommandError(f"{text!r} is no column and value; write something like name=login.failed.")
    return name, value


def _has(rows: Any, name: str) -> bool:
    try:
        return bool(rows._meta.get_field(name).concrete)
    except FieldDoesNotExist:
        return False


def _moment(text: str) -> Any:
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None:
        raise CommandError(f"{text!r} is no time; write something like 2026-11-01T00:00:00Z.")
    return found if timezone.is_aware(found) else timezone.make_aware(found)
