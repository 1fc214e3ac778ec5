"""How much ended in each minute, kept apart from the jobs: they are pruned, and counting them is a scan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from threading import Lock
from typing import Any

from django.db.models import F, Sum
from django.utils import timezone

from .charts import Bar
from .database import database, immediate
from .models import Job, Throughput

FIELDS = {
    Job.State.SUCCEEDED: "succeeded",
    Job.State.FAILED: "failed",
    Job.State.CANCELLED: "cancelled",
    Job.State.SCHEDULED: "retried",
}


class Tally:
    """Counts in memory until somebody writes them down."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._counts: Counter[tuple[datetime, str, str]] = Counter()

    def add(self, queue: str, state: Job.State, *, at: datetime, count: int = 1) -> None:
        """So many attempts ended in `state` at `at`; one that was handed back counts for nothing."""
        if state in FIELDS:
            with self._lock:
                self._counts[minute_of(at), queue, FIELDS[state]] += count

    def write(self) -> None:
        """Add what was counted to the table. Kept for the next time if the database does not take it."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
        try:
            _add(counts)
        except BaseException:
            with self._lock:
                self._counts.update(counts)
            raise


def minute_of(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _add(counts: Counter[tuple[datetime, str, str]]) -> None:
    if not counts:
        return
    rows: dict[tuple[datetime, str], dict[str, Any]] = {}
    for (minute, queue, field), count in counts.items():
        rows.setdefault((minute, queue), {})[field] = F(field) + count
    minutes = Throughput.objects.using(database())
    with immediate(database()):
        # Sorted, so that two workers with the same rows wait for each other and never in a circle.
        for (minute, queue), changes in sorted(rows.items(), key=lambda row: row[0]):
            minutes.bulk_create([Throughput(minute=minute, queue=queue)], ignore_conflicts=True)
            minutes.filter(minute=minute, queue=queue).update(**changes)


def per_minute(*, now: datetime, minutes: int = 60, queue: str = "") -> list[dict[str, Any]]:
    """What ended in each of the last minutes, the empty ones too, the oldest first."""
    last = minute_of(now)
    first = last - timedelta(minutes=minutes - 1)
    rows = Throughput.objects.using(database()).filter(minute__gte=first, minute__lte=last)
    if queue:
        rows = rows.filter(queue=queue)
    sums = rows.values("minute").order_by().annotate(**{f"sum_{name}": Sum(name) for name in FIELDS.values()})
    found: dict[datetime, dict[str, Any]] = {row["minute"]: dict(row) for row in sums}
    nothing: dict[str, Any] = {}
    return [
        {"minute": at, **{name: found.get(at, nothing).get(f"sum_{name}", 0) for name in FIELDS.values()}}
        for at in (first + timedelta(minutes=number) for number in range(minutes))
    ]


def bars(rows: Iterable[dict[str, Any]]) -> list[Bar]:
    """The minutes for a chart, by the clock of the one who looks."""
    return [Bar(timezone.localtime(row["minute"]), row["succeeded"], row["failed"]) for row in rows]


tally = Tally()
