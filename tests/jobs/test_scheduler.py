from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread

import pytest
from django.db import connections

from svc_infra_django.jobs.models import Job, Schedule
from svc_infra_django.jobs.scheduler import FIRED_AT_ONCE, fire_due, sync_schedules

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
HOURLY, NIGHTLY = "tests.jobs.work.hourly", "tests.jobs.work.nightly"


@pytest.fixture(autouse=True)
def only_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The declarations of the apps under test are not those of the suite."""
    from svc_infra_django.jobs import scheduler

    ours = {key: period for key, period in scheduler.periods.items() if key in (HOURLY, NIGHTLY)}
    monkeypatch.setattr(scheduler, "periods", ours)
    yield


def test_what_the_code_declares_is_in_the_table_after_a_sync() -> None:
    sync_schedules(now=NOON)
    sync_schedules(now=NOON + timedelta(minutes=5))

    hourly, nightly = Schedule.objects.order_by("key")
    assert (hourly.key, hourly.every_seconds, hourly.next_fire_at) == (
        HOURLY,
        3600,
        NOON + timedelta(hours=1),
    )
    assert nightly.next_fire_at == datetime(2026, 6, 2, 6, 30, tzinfo=UTC)


def test_a_declaration_that_changed_is_taken_over_and_one_that_is_gone_is_deleted() -> None:
    sync_schedules(now=NOON)
    Schedule.objects.filter(key=HOURLY).update(every_seconds=5, enabled=False)
    Schedule.objects.create(key="gone", task=HOURLY, every_seconds=5, source="code", next_fire_at=NOON)

    sync_schedules(now=NOON)

    assert not Schedule.objects.filter(key="gone").exists()
    row = Schedule.objects.get(key=HOURLY)
    assert (row.every_seconds, row.enabled) == (3600, False)


def test_what_the_admin_wrote_stays() -> None:
    sync_schedules(now=NOON)
    Schedule.objects.filter(key=HOURLY).update(every_seconds=5, source="admin")
    Schedule.objects.create(key="mine", task=HOURLY, every_seconds=5, next_fire_at=NOON)

    sync_schedules(now=NOON)

    assert Schedule.objects.get(key=HOURLY).every_seconds == 5
    assert Schedule.objects.filter(key="mine").exists()


def test_a_schedule_fires_when_it_is_due_and_moves_on() -> None:
    sync_schedules(now=NOON)

    assert fire_due(now=NOON + timedelta(minutes=59)) == 0
    assert fire_due(now=NOON + timedelta(minutes=60)) == 1
    assert fire_due(now=NOON + timedelta(minutes=61)) == 0

    job = Job.objects.get()
    assert job.task == HOURLY
    assert job.headers["fire_at"] == (NOON + timedelta(hours=1)).isoformat()
    assert Schedule.objects.get(key=HOURLY).next_fire_at == NOON + timedelta(hours=2)


def test_what_was_missed_is_made_up_for_once_and_the_phase_is_kept() -> None:
    sync_schedules(now=NOON)

    assert fire_due(now=NOON + timedelta(hours=5, minutes=10)) == 1

    assert Schedule.objects.get(key=HOURLY).next_fire_at == NOON + timedelta(hours=6)


def test_a_disabled_schedule_does_not_fire() -> None:
    sync_schedules(now=NOON)
    Schedule.objects.update(enabled=False)

    assert fire_due(now=NOON + timedelta(days=2)) == 0


def test_a_schedule_whose_job_cannot_be_made_stays_due_and_holds_up_nobody() -> None:
    sync_schedules(now=NOON)
    Schedule.objects.create(key="broken", task="no.such", every_seconds=60, next_fire_at=NOON)

    assert fire_due(now=NOON + timedelta(hours=1)) == 1

    assert Schedule.objects.get(key="broken").next_fire_at == NOON
    assert Job.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_schedulers_that_race_fire_each_time_once() -> None:
    sync_schedules(now=NOON)
    barrier, total = Barrier(4), 24

    def race() -> None:
        try:
            for hour in range(1, total + 1):
                barrier.wait(10)
                fire_due(now=NOON + timedelta(hours=hour))
        finally:
            connections.close_all()

    threads = [Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    fired = [job.headers["fire_at"] for job in Job.objects.filter(task=HOURLY)]
    assert len(fired) == len(set(fired)) == total
    assert Job.objects.filter(task=NIGHTLY).count() == 1


def test_many_that_cannot_fire_do_not_hold_up_the_one_behind_them() -> None:
    sync_schedules(now=NOON)
    Schedule.objects.bulk_create(
        Schedule(key=f"broken {number}", task="no.such", every_seconds=60, next_fire_at=NOON)
        for number in range(FIRED_AT_ONCE + 1)
    )

    assert fire_due(now=NOON + timedelta(hours=1)) == 1
