"""When to try again: plain mathematics, no clock and no Django."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
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
