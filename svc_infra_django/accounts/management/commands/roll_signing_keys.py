"""Have the next key sign access tokens, and publish the one after it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from ....errors import SvcInfraError
from ...conf import settings
from ...services.keeping_keys import roll_keys, withdraw_keys


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--algorithm", choices=["EdDSA", "ES256", "RS256", "HS256"], help="Of new keys.")
        parser.add_argument("--force", action="store_true", help="Also if the next key is minutes old.")
        parser.add_argument(
            "--withdraw",
            action="store_true",
            help="A key leaked: every key of before is gone, and with it every access token.",
        )

    def handle(self, *args: Any, algorithm: str | None, force: bool, withdraw: bool, **options: Any) -> None:
        if settings.signing_keys != "stored":
            raise CommandError(
                'SVC_INFRA["accounts"]["signing_keys"] is "derived": change SECRET_KEY instead, and put the '
                "old one into SECRET_KEY_FALLBACKS."
            )
        now = timezone.now()
        try:
            if withdraw:
                key = withdraw_keys(now=now, algorithm=algorithm)
            else:
                key = roll_keys(now=now, algorithm=algorithm, force=force)
        except SvcInfraError as error:
            raise CommandError(error.message) from None
        self.stdout.write(f"{key.algorithm} key {key.kid} signs from now on.")
