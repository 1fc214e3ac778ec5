from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction

from svc_infra_django.apikeys import change_key, issue_key, revoke_key, rotate_key
from svc_infra_django.apikeys.models import AuditEntry
from svc_infra_django.apikeys.services.issuing import delete_key
from svc_infra_django.observability.context import bound
from svc_infra_django.principals import Principal


@pytest.fixture
def life(user: Any) -> str:
    """A whole life of a key is written down; the text of the key."""
    actor = Principal(user, "jwt")
    with bound(request_id="request-1234"):
        key, secret = issue_key(owner=user, name="robot", rate="5/minute", actor=actor)
        change_key(key, name="android", allowed_networks=["192.0.2.0/24"], actor=actor)
        successor, _ = rotate_key(key, grace=timedelta(hours=1), actor=actor)
        revoke_key(key, actor=actor)
        delete_key(successor, actor=actor)
    return secret


def test_rule_63_every_step_says_who_what_and_in_which_request(user: Any, life: str) -> None:
    entries = list(AuditEntry.objects.order_by("id"))

    assert [entry.action for entry in entries] == [
        "issued",
        "changed",
        "rotated",
        "revoked",
        "revoked",
        "deleted",
    ]
    assert {entry.request_id for entry in entries} == {"request-1234"}
    assert {(entry.owner, entry.actor, entry.actor_method) for entry in entries} == {
        (str(user.pk), str(user.pk), "jwt")
    }
    assert entries[1].details == {
        "before": {"name": "robot", "allowed_networks": []},
        "after": {"name": "android", "allowed_networks": ["192.0.2.0/24"]},
    }
    assert life[12:-4] not in repr(list(AuditEntry.objects.values()))


def test_what_was_undone_was_never_written_down(user: Any) -> None:
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        issue_key(owner=user, name="robot")
        raise ZeroDivisionError

    assert not AuditEntry.objects.exists()
