"""Filling the demo, so that there is something to look at. Whatever is there already stays."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import make_password
from django.db import transaction

from svc_infra_django.rbac import grant
from svc_infra_django.webhooks.models import Endpoint
from svc_infra_django.webhooks.services.subscribing import create_endpoint, update_endpoint

from ..credentials import CLERK, EVERYBODY, PASSWORD, Resident
from ..models import Receiver


@transaction.atomic
def seed(*, url: str) -> None:
    """Make the residents, their roles, and two receivers at `url` with an endpoint for each.

    The inbox belongs to the project and hears of every order. The failing one belongs to the clerk, who
    is told when a delivery is given up. A demo that moved to another port takes its endpoints along.
    """
    users = {resident: settle(resident) for resident in EVERYBODY}
    connect("inbox", is_failing=False, owner=None, url=url)
    connect("failing", is_failing=True, owner=users[CLERK], url=url)


def settle(resident: Resident) -> Any:
    user, _ = get_user_model()._default_manager.get_or_create(
        username=resident.name,
        defaults={
            "email": resident.email,
            "password": hashed_password,
            "is_staff": resident.is_superuser,
            "is_superuser": resident.is_superuser,
        },
    )
    for role in resident.roles:
        grant(user, role, reason="demo")
    return user


@cache
def hashed_password() -> str:
    """Hashing is meant to be slow, so it is done once for all of them."""
    return make_password(PASSWORD)


def connect(slug: str, *, is_failing: bool, owner: Any, url: str) -> None:
    """A receiver of that name, and an endpoint that tells it of orders."""
    receiver, _ = Receiver.objects.get_or_create(slug=slug, defaults={"is_failing": is_failing})
    description, address = f"Demo: {slug}", f"{url}/demo/webhooks/{slug}"
    endpoint = Endpoint.objects.filter(description=description).first()
    if endpoint is None:
        _, receiver.secret = create_endpoint(
            url=address, owner=owner, event_types=["order.*"], description=description
        )
        receiver.save()
    elif endpoint.url != address:
        update_endpoint(endpoint, url=address)
