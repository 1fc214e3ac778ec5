"""Write audit rows as JSON lines, oldest first."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from ...models import AuditEvent
from ...services.auditing import exported_lines


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--since", help="From this time on, such as 2026-11-01T00:00:00Z.")
        parser.add_argument("--name", help="Of one kind only, such as login.failed.")
        parser.add_argument("--subject", help="About the user with this id only.")

    def handle(
        self, *args: Any, since: str | None, name: str | None, subject: str | None, **options: Any
    ) -> None:
        rows = AuditEvent.objects.order_by("created_at", "id")
        if since is not None:
            rows = rows.filter(created_at__gte=_moment(since))
        if name is not None:
            rows = rows.filter(name=name)
        if subject is not None:
            rows = rows.filter(subject=subject)
        for line in exported_lines(rows.iterator(chunk_size=500)):
            self.stdout.write(line, ending="")


def _moment(text: str) -> Any:
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None:
        raise CommandError(f"{text!r} is no time; write something like 2026-11-01T00:00:00Z.")
    return found if timezone.is_aware(found) else timezone.make_aware(found)
