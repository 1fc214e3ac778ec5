"""When to try again: plain mathematics, no clock and no Django."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


def delay(schedule: Sequence[float], failures: int, *, jitter: float = 0.0) -> float | None:
    """Seconds to wait after the `failures`-th failure (counted from 1), or None when no attempt is left.

    The wait is the schedule's, times a random factor between 1 - `jitter` and 1 + `jitter`.
    """
    if failures > len(schedule):
        return None
    spread = random.uniform(1 - jitter, 1 + jitter)  # noqa: S311 -- spreads load, guards nothing
    return schedule[failures - 1] * spread


def retry_after_seconds(value: str, *, now: datetime, limit: float) -> float:
    """What a Retry-After header asks for (RFC 9110, section 10.2.3), between 0 and `limit`; nonsense is 0."""
    text = value.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:10]), limit)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return min(max((moment - now).total_seconds(), 0.0), limit)
    except (TypeError, ValueError, OverflowError, IndexError):
        return 0.0


def breaker_rest(trips: int, *, first: float, limit: float) -> float:
    """Seconds that an open breaker rests: `first`, doubled with every trip after the first, up to `limit`."""
    return float(min(first * 2.0 ** min(trips - 1, 60), limit))


def allowance(rate: float, *, paid_until: datetime | None, now: datetime) -> int:
    """How many requests may go now at `rate` a second, in bursts of at most one second's worth.

    A generic cell rate algorithm: each request is paid for by the time it takes at that rate, and
    `paid_until` is when all that went is paid for.
    """
    burst = max(1.0, rate)
    debt = 0.0 if paid_until is None else max((paid_until - now).total_seconds(), 0.0)
    return max(math.floor(burst - debt * rate + 1e-6), 0)


def paid_until(rate: float | None, count: int, *, paid_until: datetime | None, now: datetime) -> datetime:
    """When `count` requests that go now will be paid for; at once if there is no rate."""
    begin = max(paid_until or now, now)
    return begin if rate is None else begin + timedelta(seconds=count / rate)
