from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from svc_infra_django.webhooks.conf import WebhooksSettings
from svc_infra_django.webhooks.retries import (
    allowance,
    breaker_rest,
    delay,
    paid_until,
    retry_after_seconds,
)

DEFAULT = WebhooksSettings().retry_schedule
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@given(failures=st.integers(1, len(DEFAULT)), jitter=st.floats(0, 0.5))
def test_the_wait_stays_within_the_jitter(failures: int, jitter: float) -> None:
    wait = delay(DEFAULT, failures, jitter=jitter)

    assert wait is not None
    assert DEFAULT[failures - 1] * (1 - jitter) <= wait <= DEFAULT[failures - 1] * (1 + jitter)


def test_the_default_grows_and_ends_after_three_days() -> None:
    waits = [delay(DEFAULT, n) or 0 for n in range(1, len(DEFAULT) + 1)]

    assert waits == sorted(set(waits))
    assert all(later >= 4 * sooner for sooner, later in pairwise(waits[:4]))
    assert timedelta(hours=75) <= timedelta(seconds=sum(waits)) <= timedelta(hours=76)
    assert delay(DEFAULT, len(DEFAULT) + 1) is None
    assert delay([], 1) is None


def test_jitter_spreads() -> None:
    assert len({delay(DEFAULT, 3, jitter=0.2) for _ in range(50)}) > 40


@given(value=st.text(), limit=st.floats(0, 10**6))
def test_retry_after_is_always_between_nothing_and_the_limit(value: str, limit: float) -> None:
    assert 0 <= retry_after_seconds(value, now=NOW, limit=limit) <= limit


def test_retry_after_may_be_seconds_or_a_date() -> None:
    assert retry_after_seconds("120", now=NOW, limit=3600) == 120
    assert retry_after_seconds("9" * 500, now=NOW, limit=3600) == 3600
    assert retry_after_seconds(format_datetime(NOW + timedelta(seconds=90)), now=NOW, limit=3600) == 90
    assert retry_after_seconds(format_datetime(NOW - timedelta(days=1)), now=NOW, limit=3600) == 0


@given(
    rate=st.floats(0.05, 1000),
    waits=st.lists(st.floats(0, 30), min_size=1, max_size=40),
    wishes=st.lists(st.integers(0, 2000), min_size=40, max_size=40),
)
def test_no_stretch_of_time_sees_more_than_the_rate_and_one_burst(
    rate: float, waits: list[float], wishes: list[int]
) -> None:
    paid, now, sent = None, NOW, []
    for wait, wish in zip(waits, wishes, strict=False):
        now += timedelta(seconds=wait)
        count = min(allowance(rate, paid_until=paid, now=now), wish)
        paid = paid_until(rate, count, paid_until=paid, now=now)
        sent.append((now, count))

    for first, (begin, _) in enumerate(sent):
        total = sum(count for _, count in sent[first:])
        seconds = (sent[-1][0] - begin).total_seconds()
        assert total <= max(1.0, rate) + rate * seconds + 0.01 * (1 + seconds)


@given(rate=st.floats(0.05, 1000), count=st.integers(1, 1000))
def test_whoever_waits_long_enough_has_the_whole_burst_again(rate: float, count: int) -> None:
    paid = paid_until(rate, count, paid_until=None, now=NOW)

    assert allowance(rate, paid_until=paid, now=paid) == int(max(1.0, rate) + 1e-6)


@given(trips=st.integers(1, 10_000), first=st.floats(0.1, 100), limit=st.floats(0.1, 10_000))
def test_a_breaker_rests_longer_and_longer_up_to_its_limit(trips: int, first: float, limit: float) -> None:
    rest = breaker_rest(trips, first=first, limit=limit)

    assert min(first, limit) <= rest <= limit
    assert rest <= breaker_rest(trips + 1, first=first, limit=limit)
