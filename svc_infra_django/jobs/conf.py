"""Settings of the jobs app."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from ..config.sections import Section, section_settings


class JobsSettings(Section):
    section: ClassVar[str] = "jobs"

    concurrency: PositiveInt = 10
    """Jobs that one worker process runs at the same time."""

    lease_seconds: PositiveFloat = 30.0
    """A worker silent for so long, by the database's clock, is dead and its jobs are taken from it."""

    heartbeat_seconds: PositiveFloat = 5.0
    """How often a worker process says that it lives."""

    rescue_seconds: PositiveFloat = 5.0
    """How often each worker looks for jobs of dead workers."""

    grace_seconds: NonNegativeFloat = 25.0
    """How long a stopping worker waits for running jobs before it hands them back."""

    idle_poll_seconds: PositiveFloat = 0.25
    """The longest pause between two looks into an empty queue."""

    engines: dict[str, Literal["database", "celery"]] = {}
    """Who runs the jobs of a queue: the database's own workers unless it says "celery" here. "*" is every
    queue that is not named. To change it moves nothing: the jobs stay where they are."""

    publish_grace_seconds: PositiveFloat = 30.0
    """How long after it was published a job may wait before the broker is thought to have lost it."""

    sweep_seconds: PositiveFloat = 1.0
    """How often a worker looks for jobs that are to be published."""

    listen: bool = True
    """Be told of new jobs by PostgreSQL (LISTEN), over a connection of the worker's own. Not through a pooler
    in transaction mode, such as pgbouncer: there, set it to False."""

    prefetch_seconds: NonNegativeFloat = 0.02
    """A worker holds as many jobs ahead as it runs in so many seconds, so that short jobs share a commit.
    With 0 it holds none, and one that is killed counts an attempt only of the jobs that it ran."""

    stage_seconds: PositiveFloat = 0.25
    """The longest pause between two looks for scheduled jobs that fell due."""

    schedule_seconds: PositiveFloat = 1.0
    """The longest pause between two looks for periodic schedules that fell due."""

    schedule_grace_seconds: PositiveFloat = 60.0
    """A schedule that fires so much too late has not missed its time yet."""

    undeclared_schedule_hours: PositiveFloat = 24.0
    """A schedule of the code that no worker has had in its code for so long is deleted."""

    overrun_seconds: PositiveFloat = 5.0
    """A job that still runs so long after its `timeout` is given up: it is timed out, and under `--processes`
    its process is replaced, as nothing else ends a call that does not listen."""

    max_crashes: PositiveInt = 3
    """A job whose worker died under it so many times is poison: it is failed, not tried again."""

    unknown_task_pause_seconds: PositiveFloat = 30.0
    """How long a worker leaves jobs alone whose task it cannot import; another release may know it."""

    unknown_task_grace_seconds: PositiveFloat = 3600.0
    """A task that a worker could not import for so long is unknown for good, and its jobs are failed."""

    max_argument_bytes: PositiveInt = 262_144
    """The largest arguments of one job, as JSON."""

    max_result_bytes: PositiveInt = 262_144
    """The largest return value of one job, as JSON."""

    keep_succeeded_hours: PositiveFloat = 24.0
    """How long a job that succeeded is kept."""

    keep_cancelled_hours: PositiveFloat = 24.0 * 7
    """How long a cancelled job is kept."""

    keep_failed_hours: PositiveFloat = 24.0 * 30
    """How long a failed job is kept, to be looked at and retried."""

    keep_effects_hours: PositiveFloat = 24.0 * 90
    """How long `context.once` remembers what was done."""

    watch_seconds: PositiveFloat = 1.0
    """How often a worker writes the progress of its jobs and looks which of them were cancelled."""

    prune_seconds: PositiveFloat = 3600.0
    """How often each worker deletes what has been kept long enough."""


settings = section_settings(JobsSettings)
