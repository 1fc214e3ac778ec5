from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from hypothesis import assume, given
from hypothesis import strategies as st

from svc_infra_django.apikeys import change_key, issue_key, verify_key
from svc_infra_django.apikeys.errors import QuotaExceeded, RateExceeded
from svc_infra_django.apikeys.limits import Quota, Rate, parsed_quota, parsed_rate
from svc_infra_django.apikeys.models import Allowance

NOW = datetime(2026, 2, 27, 23, 59, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def allowed(secret: str, *moments: datetime) -> int:
    """How many of these uses are let through."""
    return sum(is_allowed(secret, moment) for moment in moments)


def is_allowed(secret: str, moment: datetime) -> bool:
    try:
        verify_key(secret, now=moment)
    except (RateExceeded, QuotaExceeded):
        return False
    return True


def key_with(user: Any, **limits: str) -> str:
    return issue_key(owner=user, name="robot", now=NOW - SECOND, **limits)[1]  # type: ignore[arg-type]


def test_so_many_at_once_and_then_one_by_one(user: Any) -> None:
    secret = key_with(user, rate="6/minute")

    assert allowed(secret, *[NOW] * 10) == 6
    assert allowed(secret, NOW + 9 * SECOND) == 0
    assert allowed(secret, *[NOW + 10 * SECOND] * 2) == 1
    assert allowed(secret, *[NOW + 600 * SECOND] * 10) == 6


def test_a_refusal_says_when_to_come_again_and_is_right(user: Any) -> None:
    secret = key_with(user, rate="6/minute")
    allowed(secret, *[NOW] * 6)

    with pytest.raises(RateExceeded) as refused:
        verify_key(secret, now=NOW)

    wait = int(refused.value.headers["Retry-After"])
    assert (wait, refused.value.extra["limit"], refused.value.status) == (10, "6/minute", 429)
    assert allowed(secret, NOW + wait * SECOND) == 1


def test_a_quota_begins_anew_with_its_period(user: Any) -> None:
    secret = key_with(user, quota="3/day")

    assert allowed(secret, *[NOW] * 5) == 3
    with pytest.raises(QuotaExceeded) as refused:
        verify_key(secret, now=NOW)
    assert refused.value.headers["Retry-After"] == "30"
    assert allowed(secret, *[NOW + 30 * SECOND] * 5) == 3


def test_a_clock_that_is_behind_begins_no_period_again(user: Any) -> None:
    secret = key_with(user, quota="3/day")

    assert allowed(secret, *[NOW + 31 * SECOND, NOW] * 5) == 3
    with pytest.raises(QuotaExceeded):
        verify_key(secret, now=NOW)


def test_what_the_quota_refuses_spends_nothing_of_the_rate(user: Any) -> None:
    secret = key_with(user, rate="4/minute", quota="2/day")

    assert allowed(secret, *[NOW] * 10) == 2
    assert allowed(secret, *[NOW + 30 * SECOND] * 3) == 2
    assert Allowance.objects.get().quota_used == 2


def test_what_the_rate_refuses_spends_nothing_of_the_quota(user: Any) -> None:
    secret = key_with(user, rate="2/minute", quota="9/month")

    with pytest.raises(RateExceeded):
        for _ in range(3):
            verify_key(secret, now=NOW)

    assert Allowance.objects.get().quota_used == 2


def test_a_key_without_limits_of_its_own_has_the_projects(user: Any, svc_settings: Any) -> None:
    svc_settings(apikeys={"default_rate": "2/hour", "default_quota": "3/day"})

    assert allowed(key_with(user), *[NOW] * 5) == 2
    assert allowed(key_with(user, rate="4/hour"), *[NOW] * 5) == 3


def test_a_key_without_any_limit_writes_nothing(user: Any, django_assert_num_queries: Any) -> None:
    secret = key_with(user)

    with django_assert_num_queries(1):
        verify_key(secret, now=NOW)
    assert not Allowance.objects.exists()


def test_a_changed_limit_counts_what_was_used_before(user: Any) -> None:
    key, secret = issue_key(owner=user, name="robot", quota="2/day")
    allowed(secret, *[NOW] * 3)

    change_key(key, quota="3/day")

    assert allowed(secret, *[NOW] * 3) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("limits", [{"rate": "7/day"}, {"quota": "7/month"}])
def test_rule_57_twenty_four_threads_get_exactly_what_there_is(user: Any, limits: dict[str, str]) -> None:
    secret = key_with(user, **limits)
    barrier = threading.Barrier(24)
    found: list[bool] = []

    def use() -> None:
        try:
            barrier.wait(20)
            found.append(is_allowed(secret, NOW))
        finally:
            connection.close()

    threads = [threading.Thread(target=use) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert (len(found), sum(found)) == (24, 7)


@given(st.integers(1, 999_999), st.sampled_from(["second", "minute", "hour", "day"]))
def test_a_rate_never_lets_more_through_than_it_says(count: int, period: str) -> None:
    rate = parsed_rate(f"{count}/{period}")

    assert rate == Rate(count, period)
    seconds = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}[period]
    assert rate.interval * count >= seconds * 10**6
    assert (rate.interval - 1) * count < seconds * 10**6
    assert rate.burst // rate.interval + 1 == count


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    st.sampled_from(["hour", "day", "month"]),
)
def test_a_period_holds_the_moment_and_ends_where_the_next_begins(now: datetime, period: str) -> None:
    quota = Quota(1, period)

    assert quota.begins(now) <= now < quota.ends(now)
    assert quota.begins(quota.ends(now)) == quota.ends(now)
    assert quota.begins(quota.ends(now) - timedelta(microseconds=1)) == quota.begins(now)


@pytest.mark.parametrize(
    "text", ["0/minute", "1", "/minute", "1/week", "1/minute ", "-1/day", "1e3/day", "9999999/day"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="600/minute"):
        parsed_rate(text)


@pytest.mark.parametrize("text", ["0/month", "1/second", "1/minute", "1/year", " 1/day"])
def test_what_is_no_quota_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="10000/month"):
        parsed_quota(text)


RATES = st.builds(Rate, st.integers(1, 200), st.sampled_from(["second", "minute"]))
QUOTAS = st.builds(Quota, st.integers(1, 2000), st.sampled_from(["hour", "day", "month"]))


@given(RATES, RATES, st.lists(st.integers(0, 2_000_000), max_size=300))
def test_what_a_rate_within_another_lets_through_the_other_does_too(
    rate: Rate, bound: Rate, pauses: list[int]
) -> None:
    assume(rate.is_within(bound))
    now, spent, bound_spent = 0, 0, 0
    for pause in pauses:
        now += pause
        if spent <= now + rate.burst:
            spent = max(spent, now) + rate.interval
            assert bound_spent <= now + bound.burst
            bound_spent = max(bound_spent, now) + bound.interval


@given(QUOTAS, QUOTAS, st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_a_quota_within_another_never_sums_up_to_more(quota: Quota, bound: Quota, now: datetime) -> None:
    assume(quota.is_within(bound))
    begins, ends = bound.begins(now), bound.ends(now)
    uses, moment = 0, quota.begins(begins)
    while moment < ends:
        uses, moment = uses + quota.count, quota.ends(moment)

    assert uses <= bound.count


def test_no_text_is_no_limit() -> None:
    assert parsed_rate("") is None
    assert parsed_quota("") is None
