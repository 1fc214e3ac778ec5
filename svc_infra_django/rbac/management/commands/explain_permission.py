"""Say why a user has a permission, or what is missing."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...services.checking import find_object
from ...services.explaining import explain


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("user", help="The user's name, as they sign in.")
        parser.add_argument("permission", help="For example orders.add_order.")
        parser.add_argument("--tenant", default="", help="Ask within this tenant.")
        parser.add_argument("--object", default="", help="Ask about this row, for example orders.order:7.")

    def handle(self, *args: Any, user: str, permission: str, tenant: str, **options: Any) -> None:
        users = get_user_model()
        try:
            found = users._default_manager.get(**{users.USERNAME_FIELD: user})
        except users.DoesNotExist:
            raise CommandError(f"There is no user {user!r}.") from None
        about = None
        if options["object"]:
            about = find_object(*options["object"].partition(":")[::2])
            if about is None:
                raise CommandError(f"There is no {options['object']!r}; write it as orders.order:7.")
        self.stdout.write(str(explain(found, permission, obj=about, tenant=tenant)))
