"""The periodic schedules: which are due, and the jobs they make.

Any number of schedulers may run. Whoever moves `next_fire_at` inserts the job, in one transaction.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import InterfaceError, OperationalError
from django.db.models import Q
from django.utils import timezone

from ..observability.logging import get_logger
from ..observability.metrics import metrics
from .decorators import JobTask, Period, periods, task_at
from .models import Schedule
from .turn import database, immediate

logger = get_logger("svc_infra_django.jobs")

FIRED_AT_ONCE = 100


def sync_schedules(*, now: datetime) -> None:
    """Bring the table to what the code declares with `@periodic`.

    A schedule that was edited in the admin belongs to the admin from then on; one whose declaration
    is gone is deleted.
    """
    schedules = Schedule.objects.using(database())
    with immediate(database()):
        known = {row.key: row for row in schedules.select_for_update()}
        for key, period in periods.items():
            _sync(known.get(key), key, period, now=now)
        schedules.filter(source=Schedule.Source.CODE).exclude(key__in=list(periods)).delete()


def _sync(row: Schedule | None, key: str, period: Period, *, now: datetime) -> None:
    declared = {
        "task": key,
        "cron": period.cron,
        "every_seconds": period.every.total_seconds() if period.every else None,
        "tz": period.tz,
    }
    if row is None:
        fresh = Schedule(key=key, source=Schedule.Source.CODE, enabled=period.enabled, **declared)
        fresh.next_fire_at = fresh.following(last=now, now=now)
        # Another worker may be at the same.
        Schedule.objects.using(database()).bulk_create([fresh], ignore_conflicts=True)
    elif row.source == Schedule.Source.CODE and any(
        getattr(row, name) != value for name, value in declared.items()
    ):
        for name, value in declared.items():
            setattr(row, name, value)
        row.next_fire_at = row.following(last=now, now=now)
        row.save(update_fields=[*declared, "next_fire_at"], using=database())


def fire_due(*, now: datetime) -> int:
    """Make a job for each schedule that is due at `now`. Returns how many fired here.

    However long a schedule was due, it fires once and moves on to its next time after `now`.
    """
    due = Schedule.objects.using(database()).due(now=now)
    fired, rest = 0, due
    while batch := list(rest[:FIRED_AT_ONCE]):
        fired += sum(_fire(schedule, now=now) for schedule in batch)
        # Behind these: one that cannot fire stays due, and must not hold up the others.
        last = batch[-1]
        behind = Q(next_fire_at=last.next_fire_at, pk__gt=last.pk)
        rest = due.filter(Q(next_fire_at__gt=last.next_fire_at) | behind)
    return fired


def fire_now(schedule: Schedule) -> Any:
    """Make the schedule's job at once, beside its times. Returns the TaskResult."""
    return _enqueue(schedule, fire_at=timezone.now())


def _fire(schedule: Schedule, *, now: datetime) -> bool:
    fire_at = schedule.next_fire_at
    try:
        with immediate(database()):
            moved = (
                Schedule.objects.using(database())
                .filter(pk=schedule.pk, enabled=True, next_fire_at=fire_at)
                .update(next_fire_at=schedule.following(last=fire_at, now=now), last_fire_at=now)
            )
            if moved:
                _enqueue(schedule, fire_at=fire_at)
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:  # frontier: one broken schedule must not hold up the others
        logger.error("schedule did not fire", schedule=schedule.key, error=repr(error))
        metrics.increment("jobs.schedule_errors", schedule=schedule.key)
        return False
    if moved:
        metrics.observe("jobs.schedule_lag", max(0.0, (now - fire_at).total_seconds()), schedule=schedule.key)
    return bool(moved)


def _enqueue(schedule: Schedule, *, fire_at: datetime) -> Any:
    args, kwargs = schedule.arguments()
    task = task_at(schedule.task)
    if schedule.queue:
        task = task.using(queue_name=schedule.queue)
    if isinstance(task, JobTask):
        task = task.using(headers={"schedule": schedule.key, "fire_at": fire_at.isoformat()})
    return task.enqueue(*args, **kwargs)
