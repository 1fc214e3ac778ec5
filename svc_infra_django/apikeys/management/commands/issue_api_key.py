"""Issue an API key and print it, this once."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from ....errors import SvcInfraError
from ...services.issuing import issue_key


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--user", required=True, help="The owner's name, as they sign in.")
        parser.add_argument("--name", required=True, help="What the key will be known by.")
        parser.add_argument(
            "--scope",
            action="append",
            dest="scopes",
            help="A permission or wildcard; repeat it. Without: all that the owner may.",
        )
        parser.add_argument("--tenant", default="")
        parser.add_argument(
            "--network",
            action="append",
            dest="networks",
            default=[],
            help="An address or network that it may be used from; repeat it. Without: from anywhere.",
        )
        parser.add_argument("--rate", default="", help="Such as 600/minute. Without: the default.")
        parser.add_argument("--quota", default="", help="Such as 10000/month. Without: the default.")
        parser.add_argument("--environment", default="", choices=["live", "test"])
        parser.add_argument("--expires", help="Days from now (90d), or a moment (2030-01-31T00:00:00+00:00).")

    def handle(
        self,
        *args: Any,
        user: str,
        name: str,
        scopes: list[str] | None,
        tenant: str,
        expires: str | None,
        networks: list[str],
        rate: str,
        quota: str,
        environment: str,
        **options: Any,
    ) -> None:
        users = get_user_model()
        try:
            owner = users._default_manager.get(**{users.USERNAME_FIELD: user})
            expires_at = None if expires is None else moment(expires)
            key, secret = issue_key(
                owner=owner,
                name=name,
                scopes=scopes,
                tenant=tenant,
                expires_at=expires_at,
                allowed_networks=networks,
                rate=rate,
                quota=quota,
                environment=environment,
            )
        except users.DoesNotExist:
            raise CommandError(f"There is no user {user!r}.") from None
        except SvcInfraError as error:
            raise CommandError(
                " ".join([error.message, *(problem.message for problem in error.errors)])
            ) from None
        self.stderr.write(f"Key {key.pk} of {owner}. It is shown this once:")
        self.stdout.write(secret)


def moment(text: str) -> datetime:
    """`90d` from now, or the moment itself. Raises CommandError if it is neither."""
    days = re.fullmatch(r"(\d{1,5})d", text)
    if days:
        return timezone.now() + timedelta(days=int(days[1]))
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise CommandError(
            f"{text!r} is neither days (90d) nor a moment with its zone (2030-01-31T00:00:00Z)."
        )
    return found
