"""django-allauth, and all that we ask of it.

`EmailAddress` says who owns which address; the account adapter says which addresses and passwords are
taken and what a new user looks like, so a project's own adapter is honoured. Nothing private is used.
"""

from __future__ import annotations

from typing import Any

from allauth.account.models import EmailAddress
from django.contrib.auth import get_user_model

from .hashing import folded


def user_with_address(address: str) -> Any:
    """The one user who logs in by this (folded) address, or None.

    A proven address decides. Otherwise it is whoever has the address on the user itself, or waits to
    prove it, unless there are several.
    """
    # Both are asked in any case, so that the time does not tell which of them knew the address.
    owned = list(EmailAddress.objects.select_related("user").filter(email=address))
    field = get_user_model().get_email_field_name()
    named = get_user_model()._default_manager.filter(**{f"{field}__iexact": address})
    # How a database folds Unicode is its own affair; here only ASCII is folded.
    users = {user.pk: user for user in named if folded(getattr(user, field) or "") == address}

    for row in owned:
        if row.verified:
            return row.user
    users |= {row.user_id: row.user for row in owned}
    return next(iter(users.values())) if len(users) == 1 else None


def address_is_proven(user: Any, address: str) -> bool:
    """Whether nobody doubts that the (folded) address is the user's.

    Addresses that staff wrote into the user are not doubted; those of people who signed up themselves
    are, until the key from the mail came back.
    """
    return not EmailAddress.objects.filter(user_id=user.pk, email=address, verified=False).exists()
