from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Barrier, Thread
from time import process_time

import pytest
from django.db import connections

from svc_infra_django.jobs import periodic
from svc_infra_django.jobs.decorators import periods
from svc_infra_django.jobs.errors import BadTask
from svc_infra_django.jobs.models import Job, Schedule
from svc_infra_django.jobs.scheduler import FIRED_AT_ONCE, fire_due, keep_schedules, sync_schedules
from svc_infra_django.jobs.services.scheduling import set_enabled, write_schedule
from svc_infra_django.jobs.worker import drain
from tests.jobs import work

pytestmark = pytest.mark.django_db

NOON = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
HOURLY, NIGHTLY = "tests.jobs.work.hourly", "tests.jobs.work.nightly"


@pytest.fixture(autouse=True)
def only_ours(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The declarations of the apps under test are not those of the suite."""
    from svc_infra_django.jobs import scheduler

    ours = {key: period for key, period in scheduler.periods.items() if key in (HOURLY, NIGHTLY)}
    assert len(ours) == 2
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


def test_a_declaration_that_changed_is_taken_over() -> None:
    sync_schedules(now=NOON)
    Schedule.objects.filter(key=HOURLY).update(every_seconds=5, enabled=False)

    sync_schedules(now=NOON)

    row = Schedule.objects.get(key=HOURLY)
    assert (row.every_seconds, row.enabled) == (3600, False)


def test_a_declaration_that_is_gone_does_not_fire_here_and_is_deleted_after_a_day() -> None:
    sync_schedules(now=NOON)
    Schedule.objects.create(
        key="other release", task=HOURLY, every_seconds=5, source="code", next_fire_at=NOON, declared_at=NOON
    )

    assert fire_due(now=NOON) == 0
    sync_schedules(now=NOON + timedelta(hours=23))
    assert Schedule.objects.count() == 3
    keep_schedules(now=NOON + timedelta(hours=25))
    assert set(Schedule.objects.values_list("key", flat=True)) == {HOURLY, NIGHTLY}


def test_a_declaration_is_known_as_one_from_its_first_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    from svc_infra_django.jobs import scheduler

    with monkeypatch.context() as interrupted:
        interrupted.setattr(scheduler, "keep_schedules", lambda *, now: None)
        sync_schedules(now=NOON)
    monkeypatch.setattr(scheduler, "periods", {})
    keep_schedules(now=NOON)

    assert Schedule.objects.count() == 2


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
                barrier.wait(60)
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


def schedule(**fields: object) -> Schedule:
    timing = {} if "cron" in fields else {"every_seconds": 3600}
    return Schedule.objects.create(
        **{"key": "mine", "task": "tests.jobs.work.hourly", "next_fire_at": NOON, **timing, **fields}
    )


def fire_times() -> list[str]:
    made = Job.objects.order_by("pk").values_list("headers", flat=True)
    return [datetime.fromisoformat(headers["fire_at"]).strftime("%H:%M") for headers in made]


QUARTERS = [f"{hour}:{minute:02}" for hour in (12, 13, 14, 15) for minute in (0, 15, 30, 45)]


@pytest.mark.parametrize(
    ("timing", "policy", "fired"),
    [
        ({"cron": "*/15 * * * *"}, {"catch_up": "skip"}, []),
        ({"cron": "*/15 * * * *"}, {"catch_up": "once"}, ["15:00"]),
        ({"cron": "*/15 * * * *"}, {"catch_up": "all", "window_seconds": 7200}, QUARTERS[5:13]),
        ({"cron": "*/15 * * * *"}, {"catch_up": "all"}, QUARTERS[1:13]),
        ({"cron": "*/15 * * * *"}, {"catch_up": "all", "max_catch_up": 3}, QUARTERS[10:13]),
        ({"cron": "*/15 * * * *"}, {"catch_up": "once", "window_seconds": 120}, []),
        ({"cron": "0 * * * *"}, {"catch_up": "all", "window_seconds": 7200}, ["14:00", "15:00"]),
        ({"cron": "0 * * * *"}, {"catch_up": "once", "window_seconds": 7200}, ["15:00"]),
        ({"cron": "0 13 * * *"}, {"catch_up": "all", "window_seconds": 7200}, []),
        ({"cron": "0 13 * * *"}, {"catch_up": "all"}, ["13:00"]),
        ({"every_seconds": 900}, {"catch_up": "skip"}, []),
        ({"every_seconds": 900}, {"catch_up": "once"}, ["15:00"]),
        ({"every_seconds": 900}, {"catch_up": "all", "window_seconds": 7200}, QUARTERS[5:13]),
        ({"every_seconds": 900}, {"catch_up": "all", "max_catch_up": 3}, QUARTERS[10:13]),
        ({"cron": "4 15 * * *"}, {"catch_up": "skip"}, ["15:04"]),
    ],
)
def test_what_is_missed_in_three_hours_and_five_minutes_follows_the_policy(
    timing: dict[str, object], policy: dict[str, object], fired: list[str]
) -> None:
    row = schedule(**timing, **policy)
    row.next_fire_at = row.following(last=NOON, now=NOON)
    row.save()
    now = NOON + timedelta(hours=3, minutes=5)

    fire_due(now=now)

    assert fire_times() == fired
    row.refresh_from_db()
    assert row.next_fire_at > now
    assert fire_due(now=now) == 0


def test_a_year_of_missed_minutes_is_made_up_for_without_walking_through_them() -> None:
    schedule(cron="* * * * *", catch_up="all", max_catch_up=5)
    started = process_time()

    fire_due(now=NOON + timedelta(days=365))

    assert fire_times() == ["11:56", "11:57", "11:58", "11:59", "12:00"]
    assert process_time() - started < 1


def test_a_scheduler_that_read_the_row_before_another_moved_it_fires_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stale = schedule()
    assert fire_due(now=NOON) == 1

    monkeypatch.setattr(type(Schedule.objects.all()), "due", lambda self, *, now: FakeDue([stale]))

    assert fire_due(now=NOON) == 0
    assert Job.objects.count() == 1


class FakeDue(list[Schedule]):
    def exclude(self, *args: object) -> FakeDue:
        return self

    def filter(self, *args: object) -> FakeDue:
        return FakeDue()


def test_whoever_saves_what_was_read_before_it_fired_does_not_make_it_fire_again() -> None:
    stale = schedule()
    assert fire_due(now=NOON) == 1

    stale.args = {"args": []}
    write_schedule(stale, now=NOON)
    set_enabled(stale, True, now=NOON)

    assert fire_due(now=NOON) == 0
    assert Schedule.objects.get().next_fire_at == NOON + timedelta(hours=1)


def test_a_change_of_the_times_is_reckoned_from_the_change_on() -> None:
    row = schedule(cron="0 * * * *", catch_up="all")
    late = NOON + timedelta(hours=5, minutes=1)

    row.cron, row.tz = "30 * * * *", "Asia/Kolkata"
    write_schedule(row, now=late)

    assert fire_due(now=late) == 0
    assert Schedule.objects.get().next_fire_at == NOON + timedelta(hours=6)


def test_why_a_schedule_does_not_fire_is_kept_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    row = schedule(task="no.such")

    for _ in range(3):
        assert fire_due(now=NOON) == 0

    row.refresh_from_db()
    assert "no.such" in row.error
    assert caplog.text.count("did not fire") == 1

    Schedule.objects.update(
        task="tests.jobs.work.hourly", cron="0 0 * * *", tz="Mars/Base", every_seconds=None
    )
    fire_due(now=NOON)
    assert Schedule.objects.get().error.endswith("There is no time zone 'Mars/Base'.")

    Schedule.objects.update(tz="UTC")
    fire_due(now=NOON)
    assert Schedule.objects.get().error == ""


def test_the_next_five_runs_over_a_change_of_clocks() -> None:
    first = datetime(2026, 3, 7, 7, 30, tzinfo=UTC)
    row = schedule(cron="30 2 * * *", tz="America/New_York", next_fire_at=first)

    assert [f"{at:%d %H:%M}" for at in row.upcoming()] == [
        "07 07:30", "08 07:00", "09 06:30", "10 06:30", "11 06:30"
    ]  # fmt: skip
    row.enabled = False
    assert row.upcoming() == []


def test_a_job_knows_the_time_it_was_made_for(ledger: str) -> None:
    schedule(task="tests.jobs.work.note_fire_at", args={"args": [ledger]}, catch_up="all")

    fire_due(now=NOON + timedelta(hours=1, minutes=30))
    drain()
    work.note_fire_at.enqueue(ledger)
    drain()

    assert work.read(ledger) == ["2026-06-01T12:00:00+00:00", "2026-06-01T13:00:00+00:00", "None"]


@pytest.mark.django_db(transaction=True)
def test_fifty_schedules_under_five_schedulers_fire_each_time_once() -> None:
    Schedule.objects.bulk_create(
        Schedule(key=f"s{number}", task=HOURLY, every_seconds=60 + number, catch_up="all", next_fire_at=NOON)
        for number in range(50)
    )
    expected = {
        (f"s{number}", (NOON + timedelta(seconds=step * (60 + number))).isoformat())
        for number in range(50)
        for step in range(1 + 180 // (60 + number))
    }

    def run() -> None:
        try:
            for seconds in (0, 59, 60, 61, 90, 150, 180):
                fire_due(now=NOON + timedelta(seconds=seconds))
        finally:
            connections.close_all()

    threads = [Thread(target=run) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    made = [(job.headers["schedule"], job.headers["fire_at"]) for job in Job.objects.all()]
    assert len(made) == len(set(made))
    assert set(made) == expected


def test_one_task_may_have_several_schedules() -> None:
    periodic(every=60, key="often")(work.hourly)
    try:
        with pytest.raises(BadTask, match="Two schedules"):
            periodic(every=60, key="often")(work.nightly)
        assert periods["often"].task is periods[HOURLY].task
    finally:
        del periods["often"]
