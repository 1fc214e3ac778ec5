"""When a schedule fires next. Plain mathematics on instants.

Cron expressions have five fields and are read as Debian's cron reads them, also on the two days a
year when clocks change: a fixed time that the clock skips fires at the first instant after the gap,
a fixed time that comes twice fires the first time only, and `*` or step fields run by elapsed time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from .errors import BadSchedule

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}

SHORTEST_SECONDS = 0.1
LONGEST_SECONDS = 10 * 366 * 86_400.0


def next_cron(expression: str, *, zone: str, after: datetime) -> datetime:
    """The first instant later than `after` at which the expression fires in `zone`, in UTC.

    Raises BadSchedule for an expression that is malformed or names a date that never comes.
    """
    local = after.astimezone(timezone_named(zone))
    # In the hour that comes twice the library may answer with the first pass, which lies before `after`.
    for instant in islice(_instants(expression, local), 1000):
        if instant > after:
            return instant
    raise BadSchedule.at("/body/cron", f"{expression!r} never fires.", code="never")


def last_crons(expression: str, *, zone: str, first: datetime, until: datetime, limit: int) -> list[datetime]:
    """The last `limit` instants of `first` to `until` at which the expression fires, the oldest first."""
    span = timedelta(hours=1)
    while True:
        # From the end in growing steps: who was away for a year does not walk through all its minutes.
        start = max(first, until - span)
        found: deque[datetime] = deque(maxlen=limit)
        at = start - timedelta.resolution
        while (at := next_cron(expression, zone=zone, after=at)) <= until:
            found.append(at)
        if len(found) == limit or start == first:
            return list(found)
        span *= 8


def last_intervals(every: timedelta, *, first: datetime, until: datetime, limit: int) -> list[datetime]:
    """The last `limit` of `first`, `first + every`, … that are not later than `until`, the oldest first."""
    last = (until - first) // every
    return [first + every * number for number in range(max(0, last - limit + 1), last + 1)]


def interval_of(seconds: float) -> timedelta:
    """`seconds` as an interval of a schedule. Raises BadSchedule outside a tenth of a second to ten years."""
    if not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise BadSchedule.at("/body/every_seconds", "Between 0.1 seconds and ten years.", code="out_of_range")
    return timedelta(seconds=seconds)


def next_interval(every: timedelta, *, last: datetime, now: datetime) -> datetime:
    """The first of `last + every`, `last + 2 * every`, … that is later than `now`."""
    if every <= timedelta(0):
        raise BadSchedule.at(
            "/body/every_seconds", "The interval must be longer than nothing.", code="too_short"
        )
    return last + every * max(1, (now - last) // every + 1)


def timezone_named(name: str) -> ZoneInfo:
    """The zone of the IANA database. Raises BadSchedule if there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadSchedule.at("/body/tz", f"There is no time zone {name!r}.", code="unknown") from None


def _instants(expression: str, local: datetime) -> Iterator[datetime]:
    text = ALIASES.get(expression.strip().lower(), expression)
    if len(text.split()) != 5:
        raise BadSchedule.at("/body/cron", f"{expression!r} does not have five fields.", code="malformed")
    try:
        for instant in CronSim(text, local):
            yield instant.astimezone(UTC)
    except CronSimError as error:
        raise BadSchedule.at("/body/cron", f"{expression!r}: {error}.", code="malformed") from None
