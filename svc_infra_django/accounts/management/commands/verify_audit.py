"""Say whether the chain of audit rows is whole, and where it ends."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...models import AuditEvent
from ...services.auditing import broken_links


class Command(BaseCommand):
    help = __doc__

    def handle(self, *args: Any, **options: Any) -> None:
        broken = list(broken_links())
        for line in broken:
            self.stderr.write(line)
        last = AuditEvent.objects.chained().last()
        if last is not None:
            self.stdout.write(f"The chain ends with row {last.number}, {last.digest}.")
        self.stdout.write(f"{AuditEvent.objects.loose().count()} rows are not chained yet.")
        if broken:
            raise CommandError("The chain is broken.")
