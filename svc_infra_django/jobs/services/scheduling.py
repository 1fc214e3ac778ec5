"""Schedules that people write."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError

from ...errors import FieldProblem, SvcInfraError, ValidationError
from ...observability.logging import get_logger
from ..compat import InvalidTask
from ..cron import LONGEST_SECONDS, interval_of, next_cron, timezone_named
from ..decorators import MOST_CAUGHT_UP, discover, queue_names, task_at
from ..errors import (
    ArgumentsTooLarge,
    BadArguments,
    BadSchedule,
    ScheduleNotFireable,
    ScheduleNotFound,
    ScheduleOfTheCode,
    UnknownTask,
)
from ..models import Schedule
from ..scheduler import make_job
from ..turn import database, immediate
from .enqueueing import checked_arguments

__all__ = [
    "change_schedule",
    "check_schedule",
    "fire_now",
    "remove_schedule",
    "schedule_at",
    "set_enabled",
    "write_schedule",
]

logger = get_logger("svc_infra_django.jobs")

TIMING = ("cron", "every_seconds", "tz")
CONTENT = ("task", "args", "queue", "catch_up", "window_seconds", "max_catch_up")


def check_schedule(schedule: Schedule, *, now: datetime) -> None:
    """Raises BadSchedule that names every field which would keep the schedule from firing."""
    found: list[FieldProblem] = []
    for check in (_check_key, _check_timing, _check_catch_up, _check_task, _check_queue):
        try:
            check(schedule, now)
        except ValidationError as error:
            found += error.errors
    if found:
        raise BadSchedule(errors=found)


def write_schedule(schedule: Schedule, *, now: datetime) -> None:
    """Save a schedule that a person wrote or changed, and reckon its next time anew from `now`.

    A schedule of the code whose content was changed belongs to its editor from then on: a worker that
    starts no longer sets it back. Raises BadSchedule.
    """
    check_schedule(schedule, now=now)
    try:
        _write(schedule, now=now)
    except IntegrityError:
        # Somebody else took the key in this very moment.
        check_schedule(schedule, now=now)
        raise


def change_schedule(schedule: Schedule, *, now: datetime, **changes: Any) -> None:
    """Write `changes` of its fields. One that is broken may still be switched off. Raises BadSchedule."""
    if changes.keys() == {"enabled"}:
        set_enabled(schedule, changes["enabled"], now=now)
        return
    for name, value in changes.items():
        setattr(schedule, name, value)
    write_schedule(schedule, now=now)


def _write(schedule: Schedule, *, now: datetime) -> None:
    with immediate(database()):
        # Locked: a scheduler that fires it now must not have its move undone.
        before = _locked(schedule)
        written = [*TIMING, *CONTENT, "key", "enabled"]
        changed = {name for name in written if getattr(before, name, None) != getattr(schedule, name)}
        if before is None or changed & {*TIMING, *CONTENT}:
            schedule.source = Schedule.Source.ADMIN
        if before is None or changed & {*TIMING, "enabled"}:
            schedule.next_fire_at = schedule.following(last=now, now=now)
            written.append("next_fire_at")
        if before is None:
            schedule.save(force_insert=True, using=database())
        else:
            schedule.error = ""
            schedule.save(update_fields=[*written, "source", "error"], using=database())
    logger.info("schedule written", schedule=schedule.key, changed=sorted(changed))


def set_enabled(schedule: Schedule, enabled: bool, *, now: datetime) -> None:
    """Let the schedule fire, or not. What it missed while it was off is not made up for."""
    schedule.enabled = enabled
    changes: dict[str, Any] = {"enabled": enabled}
    if enabled:
        changes["next_fire_at"] = schedule.next_fire_at = schedule.following(last=now, now=now)
    Schedule.objects.using(database()).filter(pk=schedule.pk).exclude(enabled=enabled).update(**changes)
    logger.info("schedule switched", schedule=schedule.key, enabled=enabled)


def fire_now(schedule: Schedule, *, now: datetime) -> Any:
    """Make the schedule's job at once, beside its times. Returns the TaskResult.

    Raises ScheduleNotFireable if its task is gone, say, or takes other arguments by now.
    """
    try:
        return make_job(schedule, fire_at=now)
    except (SvcInfraError, InvalidTask) as error:
        raise ScheduleNotFireable(str(error), schedule=schedule.key) from error


def remove_schedule(schedule: Schedule) -> None:
    """Delete a schedule. One of the code that was edited comes back as the code has it when a worker starts.

    Raises ScheduleOfTheCode for one that is as the code has it: disable that.
    """
    if schedule.source == Schedule.Source.CODE:
        raise ScheduleOfTheCode(schedule=schedule.key)
    Schedule.objects.using(database()).filter(pk=schedule.pk).delete()
    logger.info("schedule deleted", schedule=schedule.key)


def schedule_at(schedule_id: UUID) -> Schedule:
    """The schedule of this id. Raises ScheduleNotFound."""
    try:
        return Schedule.objects.using(database()).get(pk=schedule_id)
    except Schedule.DoesNotExist:
        raise ScheduleNotFound("Schedule", schedule_id) from None


def _locked(schedule: Schedule) -> Schedule | None:
    return Schedule.objects.using(database()).select_for_update().filter(pk=schedule.pk).first()


def _check_key(schedule: Schedule, now: datetime) -> None:
    if not schedule.key.strip():
        raise BadSchedule.at("/body/key", "Give it a name.", code="blank")
    if Schedule.objects.using(database()).filter(key=schedule.key).exclude(pk=schedule.pk).exists():
        raise BadSchedule.at("/body/key", "There is another schedule of this key.", code="taken")


def _check_catch_up(schedule: Schedule, now: datetime) -> None:
    if schedule.catch_up not in Schedule.CatchUp.values:
        raise BadSchedule.at("/body/catch_up", "Write skip, once or all.", code="unknown")
    if schedule.window_seconds is not None and not 0 < schedule.window_seconds <= LONGEST_SECONDS:
        raise BadSchedule.at("/body/window_seconds", "More than 0, up to ten years.", code="out_of_range")
    if not 1 <= (schedule.max_catch_up or 0) <= MOST_CAUGHT_UP:
        raise BadSchedule.at("/body/max_catch_up", f"Between 1 and {MOST_CAUGHT_UP}.", code="out_of_range")


def _check_timing(schedule: Schedule, now: datetime) -> None:
    if bool(schedule.cron) == (schedule.every_seconds is not None):
        raise BadSchedule.at("/body/cron", "Write either a cron expression or an interval.", code="one_of")
    timezone_named(schedule.tz)
    if schedule.cron:
        next_cron(schedule.cron, zone=schedule.tz, after=now)
    else:
        interval_of(schedule.every_seconds or 0)


def _check_task(schedule: Schedule, now: datetime) -> None:
    discover()
    shape = schedule.args
    if not isinstance(shape, Mapping) or shape.keys() - {"args", "kwargs"}:
        raise BadSchedule.at("/body/args", 'Write {"args": [...], "kwargs": {...}}.', code="shape")
    args, kwargs = schedule.arguments()
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise BadSchedule.at("/body/args", 'Write {"args": [...], "kwargs": {...}}.', code="shape")
    # What is typed into a form names a task; it must not make the server import a module.
    if schedule.task.rpartition(".")[0] not in sys.modules:
        raise BadSchedule.at("/body/task", f"There is no task {schedule.task!r}.", code="unknown")
    try:
        task: Any = task_at(schedule.task)
    except UnknownTask:
        raise BadSchedule.at("/body/task", f"There is no task {schedule.task!r}.", code="unknown") from None
    try:
        checked_arguments(task, args, kwargs)
    except (BadArguments, ArgumentsTooLarge) as error:
        raise BadSchedule.at("/body/args", error.message) from None


def _check_queue(schedule: Schedule, now: datetime) -> None:
    if schedule.queue and schedule.queue not in queue_names():
        raise BadSchedule.at("/body/queue", f"No task declares the queue {schedule.queue!r}.", code="unknown")
