"""Schedules that people write."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ...errors import FieldProblem, ValidationError
from ..cron import interval_of, next_cron, timezone_named
from ..decorators import discover, queue_names, task_at
from ..errors import ArgumentsTooLarge, BadArguments, BadSchedule, UnknownTask
from ..models import Schedule
from ..scheduler import fire_now
from .enqueueing import checked_arguments

__all__ = ["check_schedule", "fire_now", "set_enabled", "write_schedule"]

TIMING = ("cron", "every_seconds", "tz")
CONTENT = ("task", "args", "queue")


def check_schedule(schedule: Schedule, *, now: datetime) -> None:
    """Raises BadSchedule that names every field which would keep the schedule from firing."""
    found: list[FieldProblem] = []
    for check in (_check_timing, _check_task, _check_queue):
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
    before = Schedule.objects.filter(pk=schedule.pk).values(*TIMING, *CONTENT, "enabled").first() or {}
    if any(before.get(name) != getattr(schedule, name) for name in (*TIMING, *CONTENT)):
        schedule.source = Schedule.Source.ADMIN
    if any(before.get(name) != getattr(schedule, name) for name in (*TIMING, "enabled")):
        schedule.next_fire_at = schedule.following(last=now, now=now)
    schedule.save()


def set_enabled(schedule: Schedule, enabled: bool, *, now: datetime) -> None:
    """Let the schedule fire, or not. What it missed while it was off is not made up for."""
    schedule.enabled = enabled
    if enabled:
        schedule.next_fire_at = schedule.following(last=now, now=now)
    schedule.save(update_fields=["enabled", "next_fire_at"])


def _check_timing(schedule: Schedule, now: datetime) -> None:
    if bool(schedule.cron) == (schedule.every_seconds is not None):
        raise BadSchedule.at("/cron", "Write either a cron expression or an interval.", code="one_of")
    timezone_named(schedule.tz)
    if schedule.cron:
        next_cron(schedule.cron, zone=schedule.tz, after=now)
    else:
        interval_of(schedule.every_seconds or 0)


def _check_task(schedule: Schedule, now: datetime) -> None:
    discover()
    shape = schedule.args
    if not isinstance(shape, Mapping) or shape.keys() - {"args", "kwargs"}:
        raise BadSchedule.at("/args", 'Write {"args": [...], "kwargs": {...}}.', code="shape")
    args, kwargs = schedule.arguments()
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise BadSchedule.at("/args", 'Write {"args": [...], "kwargs": {...}}.', code="shape")
    # What is typed into a form names a task; it must not make the server import a module.
    if schedule.task.rpartition(".")[0] not in sys.modules:
        raise BadSchedule.at("/task", f"There is no task {schedule.task!r}.", code="unknown")
    try:
        task: Any = task_at(schedule.task)
    except UnknownTask:
        raise BadSchedule.at("/task", f"There is no task {schedule.task!r}.", code="unknown") from None
    try:
        checked_arguments(task, args, kwargs)
    except (BadArguments, ArgumentsTooLarge) as error:
        raise BadSchedule.at("/args", error.message) from None


def _check_queue(schedule: Schedule, now: datetime) -> None:
    if schedule.queue and schedule.queue not in queue_names():
        raise BadSchedule.at("/queue", f"No task declares the queue {schedule.queue!r}.", code="unknown")
