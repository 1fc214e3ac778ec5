"""Filling the demo, so that there is something to look at. Whatever is there already stays."""

from __future__ import annotations

from typing import Any

from django.contrib.auth import get_user_model
from django.db import transaction

from svc_infra_django.rbac import grant

from ..credentials import EVERYBODY, PASSWORD, Resident


@transaction.atomic
def seed(*, url: str) -> None:
    """Make the residents, their roles and the two receivers at `url`, where they are missing."""
    for resident in EVERYBODY:
        settle(resident)


def settle(resident: Resident) -> Any:
    users = get_user_model()._default_manager
    user = users.filter(username=resident.name).first()
    if user is None:
        make = users.create_superuser if resident.is_superuser else users.create_user
        user = make(username=resident.name, email=resident.email, password=PASSWORD)
    for role in resident.roles:
        grant(user, role, reason="demo")
    return user
