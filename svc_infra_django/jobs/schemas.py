"""Jobs, queues and schedules as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from ..api.schemas import Schema, Text
from .querysets import RATE_MINUTES

StateName = Literal["ready", "running", "succeeded", "failed", "cancelled", "scheduled", "blocked"]


class JobAttemptOut(Schema):
    attempt: int
    outcome: str
    error: str = Field(description="Path of the exception's class.")
    traceback: str
    started_at: datetime | None
    finished_at: datetime


class ProgressOut(Schema):
    n: float
    total: float | None
    note: str


class JobOut(Schema):
    id: UUID
    task: str
    queue: str
    state: StateName
    priority: int
    attempt: int = Field(description="Attempts begun.")
    max_attempts: int
    crashes: int
    tenant: str
    arguments: dict[str, Any] = Field(description="Redacted: what is named like a secret is not shown.")
    progress: ProgressOut | None = Field(description="What the attempt that runs says of itself.")
    error: str
    created_at: datetime
    run_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None

    @staticmethod
    def resolve_state(job: Any) -> str:
        return str(job.get_state_display())

    @staticmethod
    def resolve_progress(job: Any) -> dict[str, Any] | None:
        found = job.shown_progress
        return found and {name: found[name] for name in ("n", "total", "note")}

    @staticmethod
    def resolve_arguments(job: Any) -> dict[str, Any]:
        shown: dict[str, Any] = job.shown_arguments()
        return shown


class JobDetail(JobOut):
    headers: dict[str, str]
    result: Any = Field(description="Redacted as the arguments are.")
    traceback: str
    attempts: list[JobAttemptOut] = Field(description="Attempts that did not end well.")

    @staticmethod
    def resolve_result(job: Any) -> Any:
        return job.shown_result()

    @staticmethod
    def resolve_attempts(job: Any) -> list[Any]:
        return list(job.attempts.all())


class WhichFailed(Schema):
    """Which failed jobs to retry; what is left out does not matter."""

    queue: Annotated[str, Text(max_length=64)] = ""
    task: Annotated[str, Text(max_length=255)] = ""
    limit: Annotated[int, Field(ge=1, le=1000)] = 1000


class Retried(Schema):
    retried: int
    refused: int = Field(description="Another job has their unique key, or somebody was quicker.")


class QueueOut(Schema):
    name: str
    is_paused: bool
    paused_at: datetime | None
    ready: int
    oldest_ready_at: datetime | None = Field(description="When the one that waits longest fell due.")
    running: int
    scheduled: int
    blocked: int
    failed: int
    per_minute: float = Field(description="Attempts that ended, on the average of the last five minutes.")
    keep_succeeded_hours: float | None
    keep_cancelled_hours: float | None
    keep_failed_hours: float | None

    @staticmethod
    def resolve_per_minute(queue: Any) -> float:
        return round(int(queue.ended) / RATE_MINUTES, 2)


Hours = Annotated[float | None, Field(gt=0, le=24 * 366 * 10, description="Null for what the settings say.")]


class QueueChange(Schema):
    """How long jobs of the queue are kept. What is left out stays as it is."""

    keep_succeeded_hours: Hours = None
    keep_cancelled_hours: Hours = None
    keep_failed_hours: Hours = None


class MinuteOut(Schema):
    minute: datetime
    succeeded: int
    failed: int
    cancelled: int
    retried: int


class WorkerOut(Schema):
    id: UUID
    name: str
    host: str
    pid: int
    queues: list[str] = Field(description="Empty for all.")
    concurrency: int
    busy: int = Field(description="Jobs that it runs.")
    started_at: datetime
    heartbeat_at: datetime
    is_stopping: bool


CatchUpName = Literal["skip", "once", "all"]


class ArgumentsIn(Schema):
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


class ScheduleFields(Schema):
    """What a schedule is made of; of a cron expression and an interval, exactly one."""

    task: Annotated[str, Text(max_length=255)]
    args: ArgumentsIn = ArgumentsIn()
    queue: Annotated[str, Text(max_length=64)] = Field("", description="Empty for the task's own.")
    cron: Annotated[str, Text(max_length=255)] = Field("", description="Five fields, as in crontab(5).")
    every_seconds: float | None = None
    tz: Annotated[str, Text(max_length=64)] = Field("UTC", description="A name of the IANA database.")
    catch_up: CatchUpName = Field("once", description="What becomes of missed times.")
    window_seconds: float | None = Field(None, description="Times that are longer past are not made up for.")
    max_catch_up: int = Field(24, description="At most so many missed times at once.")
    enabled: bool = True


class ScheduleIn(ScheduleFields):
    key: Annotated[str, Text(min_length=1, max_length=255)]


class ScheduleChange(ScheduleFields):
    """What is left out stays as it is."""

    task: Annotated[str, Text(max_length=255)] = ""


class ScheduleOut(Schema):
    id: UUID
    key: str
    task: str
    arguments: dict[str, Any] = Field(description="Redacted as those of jobs are.")
    queue: str
    cron: str
    every_seconds: float | None
    tz: str
    catch_up: CatchUpName
    window_seconds: float | None
    max_catch_up: int
    enabled: bool
    source: Literal["code", "admin"]
    next_fire_at: datetime
    last_fire_at: datetime | None
    error: str = Field(description="Why it did not fire when it was due last.")

    @staticmethod
    def resolve_arguments(schedule: Any) -> dict[str, Any]:
        shown: dict[str, Any] = schedule.shown_arguments()
        return shown


class ScheduleDetail(ScheduleOut):
    upcoming: list[datetime] = Field(description="The next five times.")

    @staticmethod
    def resolve_upcoming(schedule: Any) -> list[datetime]:
        times: list[datetime] = schedule.upcoming()
        return times
