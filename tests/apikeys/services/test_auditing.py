from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from svc_infra_django.apikeys import change_key, issue_key, revoke_key, rotate_key
from svc_infra_django.apikeys.models import AuditEntry, AuditHead
from svc_infra_django.apikeys.services.auditing import verify_audit
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
    entries = list(AuditEntry.objects.order_by("sequence"))

    assert [entry.action for entry in entries] == [
        "issued",
        "changed",
        "rotated",
        "revoked",
        "revoked",
        "deleted",
    ]
    assert [entry.sequence for entry in entries] == [1, 2, 3, 4, 5, 6]
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
    issue_key(owner=user, name="robot")
    assert verify_audit().is_intact


def test_an_untouched_log_is_intact(life: str) -> None:
    report = verify_audit()

    assert (report.entries, report.broken_at) == (6, None)
    assert report.head == bytes(AuditEntry.objects.latest("sequence").digest).hex()


def test_an_empty_log_is_intact(db: None) -> None:
    assert (verify_audit().entries, verify_audit().is_intact) == (0, True)


def tampered(**fields: Any) -> Callable[[], Any]:
    return lambda: AuditEntry.objects.filter(sequence=3).update(**fields)


def put_in() -> None:
    last = AuditEntry.objects.latest("sequence")
    last.sequence += 1
    last.save(force_insert=True)


def cut_off() -> None:
    AuditEntry.objects.filter(sequence__gte=5).delete()
    AuditHead.objects.update(sequence=4, digest=AuditEntry.objects.get(sequence=4).digest)
    issue = AuditEntry.objects.get(sequence=4)
    AuditEntry.objects.filter(sequence=4).update(digest=bytes(issue.digest)[::-1])


@pytest.mark.parametrize(
    ("tamper", "broken_at"),
    [
        (tampered(action="issued"), 3),
        (tampered(owner="7"), 3),
        (tampered(actor=""), 3),
        (tampered(details={}), 3),
        (tampered(key_name="other"), 3),
        (tampered(tenant="acme"), 3),
        (tampered(request_id="x"), 3),
        (tampered(digest=bytes(32)), 3),
        (lambda: AuditEntry.objects.filter(sequence=3).delete(), 3),
        (lambda: AuditEntry.objects.filter(sequence=6).delete(), 6),
        (lambda: AuditEntry.objects.all().delete(), 1),
        (lambda: AuditHead.objects.all().delete(), 1),
        (put_in, 7),
        (cut_off, 4),
    ],
)
def test_rule_63_what_is_changed_removed_or_put_in_is_found(
    life: str, tamper: Callable[[], Any], broken_at: int
) -> None:
    tamper()

    assert verify_audit().broken_at == broken_at


def test_without_the_secret_nobody_can_write_the_log_anew(life: str, settings: Any) -> None:
    settings.SECRET_KEY = "whoever-has-the-database-alone-does-not-know-the-other-one-0123456789"
    assert verify_audit().broken_at == 1

    settings.SECRET_KEY_FALLBACKS = ["tests-only-and-long-enough-for-every-check-that-looks-at-it-0123456789"]
    assert verify_audit().is_intact


@pytest.mark.django_db(transaction=True)
def test_eight_who_write_at_once_make_one_chain(user: Any) -> None:
    barrier = threading.Barrier(8)
    errors: list[Exception] = []

    def issue() -> None:
        try:
            barrier.wait(10)
            issue_key(owner=user, name="robot")
        except Exception as error:
            errors.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=issue) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert errors == []
    report = verify_audit()
    assert (report.entries, report.is_intact) == (8, True)
