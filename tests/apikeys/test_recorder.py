from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from svc_infra_django.apikeys import issue_key, revoke_key, verify_key
from svc_infra_django.apikeys import recorder as module
from svc_infra_django.apikeys.errors import InvalidKey
from svc_infra_django.apikeys.models import ApiKey, AuditEntry, UsageHour
from svc_infra_django.apikeys.recorder import Notes, Recorder, Refusals, recorder
from svc_infra_django.apikeys.tasks import prune_usage

NOW = datetime(2026, 3, 1, 12, 59, 50, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def issued(user: Any) -> tuple[ApiKey, str]:
    return issue_key(owner=user, name="robot", now=NOW - MINUTE)


@pytest.fixture(autouse=True)
def nothing_written(db: None) -> None:
    """What a thread of an earlier test wrote in its own transaction stays in the table."""
    UsageHour.objects.all().delete()


def numbers() -> list[tuple[datetime, int, int]]:
    return list(UsageHour.objects.order_by("hour").values_list("hour", "used", "refused"))


def test_a_use_writes_nothing_until_it_is_time(issued: Any) -> None:
    with CaptureQueriesContext(connection) as queries:
        for _ in range(5):
            verify_key(issued[1], now=NOW)

    assert not [query for query in queries if not query["sql"].startswith("SELECT")]
    recorder.flush()
    issued[0].refresh_from_db()
    assert issued[0].last_used_at == NOW.replace(second=0)
    assert numbers() == [(NOW.replace(minute=0, second=0), 5, 0)]


def test_a_hundred_keys_share_their_statements(user: Any) -> None:
    secrets = [issue_key(owner=user, name=str(number), now=NOW - MINUTE)[1] for number in range(100)]
    for secret in secrets:
        verify_key(secret, now=NOW)

    with CaptureQueriesContext(connection) as queries:
        recorder.flush()

    assert len([query for query in queries if query["sql"].split()[0] in ("UPDATE", "INSERT")]) == 2
    assert ApiKey.objects.exclude(last_used_at=None).count() == UsageHour.objects.count() == 100


def test_rule_58_a_key_is_written_once_in_a_minute_at_most(issued: Any) -> None:
    verify_key(issued[1], now=NOW)
    recorder.flush()
    verify_key(issued[1], now=NOW + timedelta(seconds=5))

    with CaptureQueriesContext(connection) as queries:
        recorder.flush()

    (update,) = [query["sql"] for query in queries if query["sql"].startswith("UPDATE")]
    assert "last_used_at" in update.partition("WHERE")[2]
    issued[0].refresh_from_db()
    assert issued[0].last_used_at == NOW.replace(second=0)


def test_last_use_never_moves_back(issued: Any) -> None:
    for moment in (NOW + 5 * MINUTE, NOW):
        verify_key(issued[1], now=moment)
        recorder.flush()

    issued[0].refresh_from_db()
    assert issued[0].last_used_at == (NOW + 5 * MINUTE).replace(second=0)


def test_hours_are_added_up_over_all_processes(issued: Any) -> None:
    for one in (recorder, Recorder()):
        one.note_use(str(issued[0].pk), NOW.timestamp())
        one.note_use(str(issued[0].pk), (NOW + MINUTE).timestamp())
        one.note_refusal(str(issued[0].pk), (NOW + MINUTE).timestamp(), reason="address")
        one.flush()
        one.stop()

    hour = NOW.replace(minute=0, second=0)
    assert numbers() == [(hour, 2, 0), (hour + timedelta(hours=1), 2, 2)]


def test_what_could_not_be_written_is_written_the_next_time(
    issued: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify_key(issued[1], now=NOW)

    def broken(notes: Notes) -> None:
        module._write_last_used(notes)
        raise DatabaseError

    with monkeypatch.context() as patch:
        patch.setattr(module, "write", broken)
        with pytest.raises(DatabaseError):
            recorder.flush()
    issued[0].refresh_from_db()
    assert issued[0].last_used_at is None
    verify_key(issued[1], now=NOW)
    recorder.flush()

    assert numbers() == [(NOW.replace(minute=0, second=0), 2, 0)]


def test_a_key_that_is_gone_by_then_harms_nobody(user: Any, issued: Any) -> None:
    gone, secret = issue_key(owner=user, name="gone", now=NOW - MINUTE)
    verify_key(secret, now=NOW)
    verify_key(issued[1], now=NOW)
    recorder.note_refusal(str(gone.pk), NOW.timestamp(), reason="address")
    ApiKey.objects.filter(pk=gone.pk).delete()

    recorder.flush()

    assert UsageHour.objects.get(key_id=issued[0].pk).used == 1


def test_refusals_become_one_entry_for_each_cause(issued: Any) -> None:
    revoke_key(issued[0])
    for second in range(30):
        with pytest.raises(InvalidKey):
            verify_key(issued[1], address=f"192.0.2.{second}", now=NOW + timedelta(seconds=second))

    recorder.flush()

    entry = AuditEntry.objects.get(action="refused")
    assert (entry.key_id, entry.created_at) == (issued[0].pk, NOW + timedelta(seconds=29))
    assert entry.details == {
        "reason": "revoked",
        "times": 30,
        "first_at": NOW.isoformat(),
        "last_address": "192.0.2.29",
    }


def test_notes_of_two_add_up() -> None:
    one, other = Notes(), Notes()
    key = "k"
    one.refusals[key, "r"] = Refusals(1, 5, 5, "a")
    other.refusals[key, "r"] = Refusals(2, 3, 9, "b")

    one.add(other)

    assert one.refusals == {(key, "r"): Refusals(3, 3, 9, "b")}


@pytest.mark.django_db(transaction=True)
def test_rule_58_the_last_use_is_seen_without_another_call(user: Any, svc_settings: Any) -> None:
    svc_settings(apikeys={"usage_flush_seconds": 1})
    key, secret = issue_key(owner=user, name="robot")
    verify_key(secret)

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and key.last_used_at is None:
        time.sleep(0.05)
        key.refresh_from_db()

    assert key.last_used_at is not None
    assert timezone.now() - key.last_used_at < timedelta(seconds=90)
    recorder.stop()


def test_the_thread_outlives_a_database_that_is_away(
    issued: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    verify_key(issued[1], now=NOW)

    def away(notes: Notes) -> None:
        raise DatabaseError

    monkeypatch.setattr(module, "write", away)
    monkeypatch.setattr(module.connection, "close", lambda: None)
    recorder._flush_safely()

    assert "usage of api keys not written" in caplog.text
    assert recorder._notes


def test_old_hours_are_forgotten(issued: Any, run_jobs: Any) -> None:
    now = timezone.now()
    for days in (1, 89, 91):
        UsageHour.objects.create(key=issued[0], hour=now - timedelta(days=days), used=days)

    prune_usage.enqueue()
    run_jobs()

    assert sorted(UsageHour.objects.values_list("used", flat=True)) == [1, 89]


def test_what_was_noted_of_a_test_database_goes_into_no_other(
    issued: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    verify_key(issued[1])
    monkeypatch.setattr("svc_infra_django.apikeys.recorder._database", lambda: "the project's own")

    recorder.flush()
    recorder.finish()

    assert not UsageHour.objects.exists()
    assert capsys.readouterr() == ("", "")
