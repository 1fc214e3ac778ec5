"""Make the demo's users, roles, webhook endpoints and receivers, unless they are there already."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...services.seeding import seed


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--url", default="http://127.0.0.1:8000", help="Where the demo is served.")

    def handle(self, *args: Any, url: str, **options: Any) -> None:
        if not settings.IS_LOCAL:
            raise CommandError(
                "The demo's password is public: this works only where SVC_ENVIRONMENT is local."
            )
        seed(url=url)
