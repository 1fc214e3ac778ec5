"""Check that nobody changed the audit log of API keys; print the digest of its end."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...models import AuditEntry
from ...services.auditing import verify_audit


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--contains", help="A digest that was printed before and must still be there.")

    def handle(self, *args: Any, contains: str | None, **options: Any) -> None:
        report = verify_audit()
        if not report.is_intact:
            raise CommandError(
                f"The audit log was changed: entry {report.broken_at} does not follow from those before."
            )
        if contains is not None and not _is_there(contains):
            raise CommandError("The audit log was put back: the digest is not in it.")
        self.stderr.write(f"{report.entries} entries, all in order. The digest of the last:")
        self.stdout.write(report.head)


def _is_there(text: str) -> bool:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        raise CommandError("--contains takes the 64 hexadecimal digits that this command prints.") from None
    return AuditEntry.objects.filter(digest=digest).exists()
