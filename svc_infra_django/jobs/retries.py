"""Whether a job that failed runs again, and when. Plain mathematics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from math import isfinite
from random import uniform
from typing import TypeAlias

Backoff: TypeAlias = Callable[[int], float | None]
"""From the number of the attempt that failed (the first is 1) to seconds to wait, or None to give up."""

RetryOn: TypeAlias = (
    tuple[type[BaseException], ...]
    | Mapping[type[BaseException], Callable[[BaseException, int], float | None]]
    | None
)
"""Exceptions worth another attempt: None for all, a tuple, or a mapping to
`(error, attempt) -> seconds | None`."""


@dataclass(frozen=True, slots=True)
class exponential:
    """Wait a random time between 0 and `base * factor ** (attempt - 1)` seconds, never above `cap`.

    The whole span is random ("full jitter"), so that jobs which failed together do not come back
    together. `floor` is the least wait.
    """

    base: float = 4.0
    factor: float = 2.0
    cap: float = 3600.0
    floor: float = 0.0

    def ceiling(self, attempt: int) -> float:
        """The longest wait after `attempt`."""
        try:
            return min(self.cap, self.base * self.factor ** (attempt - 1))
        except OverflowError:
            return self.cap

    def __call__(self, attempt: int) -> float:
        ceiling = self.ceiling(attempt)
        return uniform(min(self.floor, ceiling), ceiling)  # noqa: S311 - spreads load, hides nothing


LONGEST_DELAY = 10 * 365 * 86_400.0
"""Seconds: what waits longer than ten years is not waiting."""


class Verdict(Enum):
    """What becomes of a job whose attempt failed."""

    RETRY = "retry"
    FAIL = "fail"
    DISCARD = "discard"


@dataclass(frozen=True, slots=True)
class Decision:
    verdict: Verdict
    delay: float = 0.0
    """Seconds to wait before the next attempt; meaningful for RETRY only."""


def decide(
    error: BaseException,
    *,
    attempt: int,
    max_attempts: int,
    backoff: Backoff,
    retry_on: RetryOn = None,
    discard_on: tuple[type[BaseException], ...] = (),
) -> Decision:
    """Judge the failure of attempt number `attempt`.

    `discard_on` wins over `retry_on`, and both over `max_attempts`' remaining tries; a backoff of
    None ends the tries early. Raises ValueError for a backoff that is no number of seconds, and what the
    rules themselves raise.
    """
    if isinstance(error, discard_on):
        return Decision(Verdict.DISCARD)
    if attempt >= max_attempts:
        return Decision(Verdict.FAIL)
    if isinstance(retry_on, Mapping):
        rule = next((rule for kind, rule in retry_on.items() if isinstance(error, kind)), None)
        delay = None if rule is None else rule(error, attempt)
    elif retry_on is None or isinstance(error, retry_on):
        delay = backoff(attempt)
    else:
        delay = None
    if delay is None:
        return Decision(Verdict.FAIL)
    if not isfinite(delay):
        raise ValueError(f"a backoff of {delay} seconds")
    return Decision(Verdict.RETRY, min(max(0.0, float(delay)), LONGEST_DELAY))
