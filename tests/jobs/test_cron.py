from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from svc_infra_django.jobs.cron import last_crons, last_intervals, next_cron, next_interval
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


def test_where_midnight_is_missing_a_daily_time_fires_at_the_first_instant_of_the_day() -> None:
    assert fires("0 0 * * *", "America/Sao_Paulo", "2018-11-02T12:00", 3) == [
        "2018-11-03T00:00-03:00",
        "2018-11-04T01:00-02:00",
        "2018-11-05T00:00-02:00",
    ]


def test_where_midnight_comes_twice_a_daily_time_fires_the_first_time() -> None:
    assert fires("30 23 * * *", "America/Sao_Paulo", "2018-02-16T12:00", 3) == [
        "2018-02-16T23:30-02:00",
        "2018-02-17T23:30-02:00",
        "2018-02-18T23:30-03:00",
    ]


def test_half_an_hour_of_change_moves_a_fixed_time_no_further_than_it_must() -> None:
    assert fires("15 2 * * *", LORD_HOWE, "2026-10-03T12:00", 2) == [
        "2026-10-04T02:30+11:00",
        "2026-10-05T02:15+11:00",
    ]
    assert fires("45 1 * * *", LORD_HOWE, "2026-04-04T12:00", 2) == [
        "2026-04-05T01:45+11:00",
        "2026-04-06T01:45+10:30",
    ]


def test_a_zone_without_changes_and_off_the_hour() -> None:
    assert fires("30 2 * * *", "Asia/Kolkata", "2026-03-07T12:00", 1) == ["2026-03-08T02:30+05:30"]


@pytest.mark.parametrize(
    ("zone", "start"),
    [(NEW_YORK, "2026-03-08T00:30"), (NEW_YORK, "2026-11-01T00:30"), (LONDON, "2026-10-25T00:30")],
)
def test_every_hour_is_every_hour_that_passes(zone: str, start: str) -> None:
    at = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    at = next_cron("0 * * * *", zone=zone, after=at)

    for _ in range(6):
        following = next_cron("0 * * * *", zone=zone, after=at)
        assert following - at == timedelta(hours=1)
        at = following


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("0 0 L * *", "2026-01-31"),
        ("0 0 29 2 *", "2028-02-29"),
        ("0 0 * FEB SUN", "2026-02-01"),
        ("0 0 * 2 0", "2026-02-01"),
        ("0 0 * 2 7", "2026-02-01"),
        ("0 0 1-5/2 2 *", "2026-02-01"),
        ("0 0 13 * FRI", "2026-01-02"),
        ("@monthly", "2026-02-01"),
    ],
)
def test_what_crontabs_say(expression: str, found: str) -> None:
    after = datetime(2026, 1, 1, 0, 30, tzinfo=UTC)

    assert f"{next_cron(expression, zone='UTC', after=after):%Y-%m-%d}" == found


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

    assert caught.value.errors[0].pointer == "/body/cron"


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


@given_settings(max_examples=60, deadline=None)
@given(
    instants,
    st.sampled_from([NEW_YORK, LONDON, LORD_HOWE, "UTC"]),
    minutes,
    hours,
    st.integers(1, 400),
    st.integers(1, 8),
)
def test_the_last_times_are_what_a_walk_from_the_first_finds(
    after: datetime, zone: str, minute: str, hour: str, span: int, limit: int
) -> None:
    expression, until = f"{minute} {hour} * * *", after + timedelta(hours=span)
    first = next_cron(expression, zone=zone, after=after)

    walked, at = [], first
    while at <= until:
        walked.append(at)
        at = next_cron(expression, zone=zone, after=at)

    if walked:
        assert last_crons(expression, zone=zone, first=first, until=until, limit=limit) == walked[-limit:]


@given(instants, st.floats(0.1, 1e5), st.floats(0, 1e6), st.integers(1, 50))
def test_the_last_intervals_end_before_the_next_one(
    first: datetime, every: float, span: float, limit: int
) -> None:
    step, until = timedelta(seconds=every), first + timedelta(seconds=span)

    found = last_intervals(step, first=first, until=until, limit=limit)

    assert 1 <= len(found) <= limit
    assert found[-1] <= until < found[-1] + step
    assert found[0] == first or len(found) == limit
