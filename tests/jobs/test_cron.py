from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from svc_infra_django.jobs.cron import next_cron, next_interval
from svc_infra_django.jobs.errors import BadSchedule

NEW_YORK, LONDON, LORD_HOWE = "America/New_York", "Europe/London", "Australia/Lord_Howe"


def fires(expression: str, zone: str, start: str, count: int) -> list[str]:
    """The next fire times after a local time, as local times with offset."""
    at = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    found = []
    for _ in range(count):
        at = next_cron(expression, zone=zone, after=at)
        found.append(at.astimezone(ZoneInfo(zone)).isoformat(timespec="minutes"))
    return found


def test_a_fixed_time_in_the_gap_fires_at_the_first_instant_after_it() -> None:
    assert fires("30 2 * * *", NEW_YORK, "2026-03-07T12:00", 2) == [
        "2026-03-08T03:00-04:00",
        "2026-03-09T02:30-04:00",
    ]


def test_two_fixed_times_in_the_gap_make_one_fire() -> None:
    assert fires("15,45 2 * * *", NEW_YORK, "2026-03-07T12:00", 2) == [
        "2026-03-08T03:00-04:00",
        "2026-03-09T02:15-04:00",
    ]


def test_a_fixed_time_that_comes_twice_fires_the_first_time() -> None:
    assert fires("30 1 * * *", NEW_YORK, "2026-10-31T12:00", 2) == [
        "2026-11-01T01:30-04:00",
        "2026-11-02T01:30-05:00",
    ]


def test_asked_between_the_two_passes_a_fixed_time_waits_for_the_next_day() -> None:
    second_pass = datetime(2026, 11, 1, 6, 10, tzinfo=UTC)  # 01:10-05:00

    assert next_cron("30 1 * * *", zone=NEW_YORK, after=second_pass) == datetime(
        2026, 11, 2, 6, 30, tzinfo=UTC
    )


@pytest.mark.parametrize(
    ("zone", "start"),
    [
        (NEW_YORK, "2026-03-08T00:50"),
        (NEW_YORK, "2026-11-01T00:50"),
        (LONDON, "2026-03-29T00:20"),
        (LONDON, "2026-10-25T00:20"),
        (LORD_HOWE, "2026-04-05T00:50"),
        (LORD_HOWE, "2026-10-04T00:50"),
    ],
)
def test_steps_run_by_elapsed_time_over_both_changes(zone: str, start: str) -> None:
    at = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    at = next_cron("*/15 * * * *", zone=zone, after=at)

    for _ in range(16):
        following = next_cron("*/15 * * * *", zone=zone, after=at)
        assert following - at == timedelta(minutes=15)
        at = following


@pytest.mark.parametrize(
    "expression",
    [
        "31 2 31 2 *",
        "0 0 30 2 *",
        "61 * * * *",
        "* * * *",
        "* * * * * *",
        "nonsense",
        "",
        "*/0 * * * *",
        "@reboot",
    ],
)
def test_what_never_comes_is_refused(expression: str) -> None:
    with pytest.raises(BadSchedule) as caught:
        next_cron(expression, zone="UTC", after=datetime(2026, 1, 1, tzinfo=UTC))

    assert caught.value.errors[0].pointer == "/cron"


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "\x00"])
def test_an_unknown_zone_is_refused(zone: str) -> None:
    with pytest.raises(BadSchedule):
        next_cron("* * * * *", zone=zone, after=datetime(2026, 1, 1, tzinfo=UTC))


minutes = st.lists(st.integers(0, 59), min_size=1, max_size=3).map(lambda found: ",".join(map(str, found)))
hours = st.one_of(
    st.just("*"), st.lists(st.integers(0, 23), min_size=1, max_size=3).map(lambda f: ",".join(map(str, f)))
)
days = st.one_of(st.just("*"), st.integers(1, 28).map(str))
weekdays = st.one_of(st.just("*"), st.integers(0, 7).map(str))
instants = st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


@given_settings(max_examples=60, deadline=None)
@given(minutes, hours, days, weekdays, instants)
def test_in_utc_the_next_time_is_what_a_scan_of_the_minutes_finds(
    minute: str, hour: str, day: str, weekday: str, after: datetime
) -> None:
    found = next_cron(f"{minute} {hour} {day} * {weekday}", zone="UTC", after=after)

    def matches(at: datetime) -> bool:
        of_month = day == "*" or at.day == int(day)
        of_week = weekday == "*" or at.isoweekday() % 7 == int(weekday) % 7
        on_day = of_month and of_week if "*" in (day, weekday) else of_month or of_week
        return (
            on_day
            and at.minute in map(int, minute.split(","))
            and (hour == "*" or at.hour in map(int, hour.split(",")))
        )

    at = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    while at < found:
        day_can_match = day == "*" or weekday != "*" or at.day == int(day)
        assert not matches(at)
        at += (
            timedelta(minutes=1)
            if day_can_match
            else timedelta(days=1) - timedelta(hours=at.hour, minutes=at.minute)
        )
    assert matches(found)


@given_settings(max_examples=100, deadline=None)
@given(instants, st.sampled_from([NEW_YORK, LONDON, LORD_HOWE, "Asia/Kolkata"]), minutes, hours)
def test_the_next_time_is_later(after: datetime, zone: str, minute: str, hour: str) -> None:
    first = next_cron(f"{minute} {hour} * * *", zone=zone, after=after)

    assert first > after
    assert next_cron(f"{minute} {hour} * * *", zone=zone, after=first) > first


@given(instants, st.floats(0.1, 1e6), st.floats(0, 1e7))
def test_an_interval_keeps_its_phase_and_lands_after_now(last: datetime, every: float, missed: float) -> None:
    step, now = timedelta(seconds=every), last + timedelta(seconds=missed)

    found = next_interval(step, last=last, now=now)

    assert now < found <= now + step
    assert (found - last) % step == timedelta(0)


def test_an_interval_of_nothing_is_refused() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    with pytest.raises(BadSchedule):
        next_interval(timedelta(0), last=now, now=now)
