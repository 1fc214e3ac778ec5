from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from svc_infra_django.jobs.retries import Verdict, decide, exponential

attempts = st.integers(1, 10_000)
seconds = st.floats(0, 1e6)


@given(attempts, seconds, st.floats(1, 10), seconds)
def test_a_wait_lies_between_nothing_and_the_cap(
    attempt: int, base: float, factor: float, cap: float
) -> None:
    backoff = exponential(base=base, factor=factor, cap=cap)

    assert 0 <= backoff(attempt) <= backoff.ceiling(attempt) <= cap


@given(attempts, st.floats(0.001, 100), st.floats(1, 10))
def test_the_ceiling_never_falls(attempt: int, base: float, factor: float) -> None:
    backoff = exponential(base=base, factor=factor)

    assert backoff.ceiling(attempt) <= backoff.ceiling(attempt + 1)


def test_the_ceiling_doubles_and_does_not_add_up() -> None:
    backoff = exponential(base=60, factor=2, cap=1e9)

    assert [backoff.ceiling(attempt) for attempt in (1, 2, 3, 4)] == [60, 120, 240, 480]


def test_the_jitter_fills_the_whole_span() -> None:
    backoff = exponential(base=100, factor=1)

    waits = sorted(backoff(1) for _ in range(2000))

    assert waits[0] < 5 and waits[-1] > 95
    assert 42 < sum(waits) / len(waits) < 58


def verdict(error: BaseException, *, attempt: int = 1, **policy: object) -> Verdict:
    return decide(error, attempt=attempt, max_attempts=3, **{"backoff": lambda _: 1.0, **policy}).verdict  # type: ignore[arg-type]


def test_every_error_is_retried_until_the_attempts_are_used_up() -> None:
    assert verdict(ValueError()) is Verdict.RETRY
    assert verdict(ValueError(), attempt=3) is Verdict.FAIL


def test_only_named_errors_are_retried_if_any_are_named() -> None:
    assert verdict(KeyError(), retry_on=(LookupError,)) is Verdict.RETRY
    assert verdict(ValueError(), retry_on=(LookupError,)) is Verdict.FAIL


def test_a_mapping_decides_the_wait_for_each_error() -> None:
    class Limited(Exception):
        retry_after = 42

    policy = {Limited: lambda error, attempt: error.retry_after, KeyError: lambda error, attempt: None}

    decision = decide(Limited(), attempt=1, max_attempts=3, backoff=lambda _: 1.0, retry_on=policy)  # type: ignore[arg-type]

    assert (decision.verdict, decision.delay) == (Verdict.RETRY, 42)
    assert verdict(KeyError(), retry_on=policy) is Verdict.FAIL
    assert verdict(ValueError(), retry_on=policy) is Verdict.FAIL


def test_discarding_wins_over_retrying() -> None:
    assert verdict(KeyError(), retry_on=(KeyError,), discard_on=(LookupError,)) is Verdict.DISCARD


def test_a_backoff_of_none_gives_up() -> None:
    assert verdict(ValueError(), backoff=lambda attempt: None) is Verdict.FAIL
