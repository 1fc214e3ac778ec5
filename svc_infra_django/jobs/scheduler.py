"""The periodic schedules: which are due, and the jobs they make.

Any number of schedulers may run. Whoever moves `next_fire_at` inserts the jobs, in one transaction.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.db import InterfaceError, OperationalError
from django.db.models import Q

from ..observability.logging import get_logger
from ..observability.metrics import metrics
from .conf import settings
from .decorators import JobTask, Period, periods, task_at
from .models import Schedule
from .payloads import storable
from .turn import database, immediate

logger = get_logger("svc_infra_django.jobs")

FIRED_AT_ONCE = 100


def sync_schedules(*, now: datetime) -> None:
    """Bring the table to what the code declares with `@periodic`.

    A schedule that was edited in the admin belongs to the admin from then on.
    """
    schedules = Schedule.objects.using(database())
    with immediate(database()):
        known = {row.key: row for row in schedules.select_for_update()}
        for key, period in periods.items():
            _sync(known.get(key), key, period, now=now)
    keep_schedules(now=now)


def keep_schedules(*, now: datetime) -> None:
    """Say which schedules this code declares, and delete those that no code has declared for long.

    Not at once: while releases change, processes of both write the table.
    """
    of_code = Schedule.objects.using(database()).filter(source=Schedule.Source.CODE)
    of_code.filter(key__in=list(periods)).update(declared_at=now)
    too_old = now - timedelta(hours=settings.undeclared_schedule_hours)
    of_code.exclude(key__in=list(periods)).filter(Q(declared_at=None) | Q(declared_at__lt=too_old)).delete()


def _sync(row: Schedule | None, key: str, period: Period, *, now: datetime) -> None:
    declared = {
        "task": period.task.module_path,
        "cron": period.cron,
        "every_seconds": period.every.total_seconds() if period.every else None,
        "tz": period.tz,
        "catch_up": period.catch_up,
        "window_seconds": period.window.total_seconds() if period.window else None,
        "max_catch_up": period.max_catch_up,
    }
    if row is None:
        fresh = Schedule(
            key=key, source=Schedule.Source.CODE, enabled=period.enabled, declared_at=now, **declared
        )
        fresh.next_fire_at = fresh.following(last=now, now=now)
        # Another worker may be at the same.
        Schedule.objects.using(database()).bulk_create([fresh], ignore_conflicts=True)
        return
    changed = [name for name, value in declared.items() if getattr(row, name) != value]
    if row.source != Schedule.Source.CODE or not changed:
        return
    for name, value in declared.items():
        setattr(row, name, value)
    if {"cron", "every_seconds", "tz"} & set(changed):
        row.next_fire_at = row.following(last=now, now=now)
    row.save(update_fields=[*declared, "next_fire_at"], using=database())


def fire_due(*, now: datetime) -> int:
    """Make the jobs of the schedules that are due at `now`. Returns how many schedules fired here.

    A schedule of the code fires only where the code declares it: an old release that still runs does not
    guess at the tasks of the new one, nor the new one at what it has dropped.
    """
    due = Schedule.objects.using(database()).due(now=now)
    due = due.exclude(Q(source=Schedule.Source.CODE) & ~Q(key__in=list(periods)))
    fired, rest = 0, due
    while batch := list(rest[:FIRED_AT_ONCE]):
        fired += sum(_fire(schedule, now=now) for schedule in batch)
        # Behind these: one that cannot fire stays due, and must not hold up the others.
        last = batch[-1]
        behind = Q(next_fire_at=last.next_fire_at, pk__gt=last.pk)
        rest = due.filter(Q(next_fire_at__gt=last.next_fire_at) | behind)
    return fired


def fire_times(schedule: Schedule, *, now: datetime) -> list[datetime]:
    """The times up to `now` for which a job is due, by the schedule's policy for what it missed."""
    limit = schedule.max_catch_up if schedule.catch_up == Schedule.CatchUp.ALL else 1
    grace = settings.schedule_grace_seconds
    if schedule.catch_up == Schedule.CatchUp.SKIP:
        window: float | None = grace
    else:
        window = schedule.window_seconds and max(schedule.window_seconds, grace)
    times = schedule.past(until=now, limit=limit)
    return [at for at in times if window is None or (now - at).total_seconds() <= window]


def _fire(schedule: Schedule, *, now: datetime) -> bool:
    try:
        with immediate(database()):
            # Read again, as it is now: somebody else may have moved or changed it, or be at it.
            waiting = Schedule.objects.using(database()).select_for_update(skip_locked=True)
            row = waiting.filter(pk=schedule.pk, enabled=True, next_fire_at=schedule.next_fire_at).first()
            if row is None:
                return False
            times = fire_times(row, now=now)
            for fire_at in times:
                make_job(row, fire_at=fire_at)
            row.next_fire_at = row.following(last=row.next_fire_at, now=now)
            row.last_fire_at = now if times else row.last_fire_at
            row.error = ""
            row.save(update_fields=["next_fire_at", "last_fire_at", "error"], using=database())
    except (OperationalError, InterfaceError):
        raise
    except Exception as error:  # frontier: one broken schedule must not hold up the others
        _note_failure(schedule, error)
        return False
    if times:
        lag = (now - times[-1]).total_seconds()
        metrics.observe("jobs.schedule_lag", max(0.0, lag), schedule=schedule.key)
        metrics.increment("jobs.schedule_fired", len(times), schedule=schedule.key)
    else:
        logger.info(
            "missed times of a schedule were dropped",
            schedule=schedule.key,
            since=schedule.next_fire_at.isoformat(),
        )
    return bool(times)


def _note_failure(schedule: Schedule, error: Exception) -> None:
    """Keep the reason where people see it; tell the log once, not at every look."""
    metrics.increment("jobs.schedule_errors", schedule=schedule.key)
    text = storable(f"{type(error).__name__}: {error}")[:255]
    rows = Schedule.objects.using(database()).filter(pk=schedule.pk)
    if rows.exclude(error=text).update(error=text):
        logger.error("schedule did not fire", schedule=schedule.key, error=text)


def make_job(schedule: Schedule, *, fire_at: datetime) -> Any:
    """Enqueue a firing's job; returns the TaskResult. Raises UnknownTask, and what `.enqueue` raises."""
    args, kwargs = schedule.arguments()
    task = task_at(schedule.task)
    if schedule.queue:
        task = task.using(queue_name=schedule.queue)
    if isinstance(task, JobTask):
        task = task.using(headers={"schedule": schedule.key, "fire_at": fire_at.isoformat()})
    return task.enqueue(*args, **kwargs)
