"""Jobs, queues and schedules as the API shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from ..api.schemas import Schema

StateName = Literal["ready", "running", "succeeded", "failed", "cancelled", "scheduled", "blocked"]


class AttemptOut(Schema):
    attempt: int
    outcome: str
    error: str = Field(description="Path of the exception's class.")
    traceback: str
    started_at: datetime | None
    finished_at: datetime


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
    error: str
    created_at: datetime
    run_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None

    @staticmethod
    def resolve_state(job: Any) -> str:
        return str(job.get_state_display())

    @staticmethod
    def resolve_arguments(job: Any) -> dict[str, Any]:
        shown: dict[str, Any] = job.shown_arguments()
        return shown


class JobDetail(JobOut):
    headers: dict[str, str]
    result: Any = Field(description="Redacted as the arguments are.")
    traceback: str
    attempts: list[AttemptOut] = Field(description="Attempts that did not end well.")

    @staticmethod
    def resolve_result(job: Any) -> Any:
        return job.shown_result()

    @staticmethod
    def resolve_attempts(job: Any) -> list[Any]:
        return list(job.attempts.all())


class QueueOut(Schema):
    name: str
    is_paused: bool
    paused_at: datetime | None
    ready: int
    running: int
    scheduled: int


class ScheduleOut(Schema):
    id: UUID
    key: str
    task: str
    queue: str
    cron: str
    every_seconds: float | None
    tz: str
    enabled: bool
    source: Literal["code", "admin"]
    next_fire_at: datetime
    last_fire_at: datetime | None
