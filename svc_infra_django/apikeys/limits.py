"""How much a key may be used: `600/minute` as a rate, `10000/month` as a quota."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

RATE = re.compile(r"(?P<count>[1-9][0-9]{0,5})/(?P<period>second|minute|hour|day)")
QUOTA = re.compile(r"(?P<count>[1-9][0-9]{0,11})/(?P<period>hour|day|month)")

HOURS = {"hour": 1, "day": 24, "month": 24 * 31}
SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
MICROSECONDS = 1_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """So many uses at once, and then as many in each period, evenly (the generic cell rate algorithm)."""

    count: int
    period: str

    @property
    def interval(self) -> int:
        """Microseconds after which one more use is allowed."""
        return -(-SECONDS[self.period] * MICROSECONDS // self.count)

    @property
    def burst(self) -> int:
        """How far ahead of the clock, in microseconds, the allowance may have been spent."""
        return self.interval * (self.count - 1)

    def is_within(self, bound: Rate) -> bool:
        """Whether it never lets through what `bound` would not."""
        return self.count <= bound.count and self.interval >= bound.interval

    def __str__(self) -> str:
        return f"{self.count}/{self.period}"


@dataclass(frozen=True, slots=True)
class Quota:
    """So many uses in each hour, day or month of the calendar in UTC."""

    count: int
    period: str

    def is_within(self, bound: Quota) -> bool:
        """Whether it never lets through what `bound` would not, in a month of any length."""
        return self.count * max(1, HOURS[bound.period] // HOURS[self.period]) <= bound.count

    def __str__(self) -> str:
        return f"{self.count}/{self.period}"

    def begins(self, now: datetime) -> datetime:
        """When the period that `now` belongs to began."""
        hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        match self.period:
            case "hour":
                return hour
            case "day":
                return hour.replace(hour=0)
        return hour.replace(day=1, hour=0)

    def ends(self, now: datetime) -> datetime:
        """When the next period begins."""
        longest = {"hour": timedelta(hours=1), "day": timedelta(days=1), "month": timedelta(days=31)}
        return self.begins(self.begins(now) + longest[self.period])


def parsed_rate(text: str) -> Rate | None:
    """The rate that `text` names, None for an empty one. Raises ValueError."""
    return Rate(*_parts(RATE, text, "600/minute")) if text else None


def parsed_quota(text: str) -> Quota | None:
    """The quota that `text` names, None for an empty one. Raises ValueError."""
    return Quota(*_parts(QUOTA, text, "10000/month")) if text else None


def _parts(pattern: re.Pattern[str], text: str, example: str) -> tuple[int, str]:
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError(f"must look like {example}")
    return int(match["count"]), match["period"]
