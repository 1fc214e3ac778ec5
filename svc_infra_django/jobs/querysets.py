"""Questions about jobs, workers and schedules."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.db import models
from django.db.models import F
from django.db.models.functions import Now

from ..rows import OwnedQuerySet

if TYPE_CHECKING:
    from .models import Job, Schedule, Worker  # noqa: F401 - the type parameters below


class JobQuerySet(OwnedQuerySet["Job"]):
    def ready(self) -> JobQuerySet:
        return self.filter(state=self.model.State.READY)

    def running(self) -> JobQuerySet:
        return self.filter(state=self.model.State.RUNNING)

    def dead(self) -> JobQuerySet:
        """Failed for good: kept to be looked at and retried."""
        return self.filter(state=self.model.State.FAILED)

    def due(self, *, now: Any) -> JobQuerySet:
        """Scheduled, and their time has come."""
        return self.filter(state=self.model.State.SCHEDULED, run_at__lte=now)


class WorkerQuerySet(models.QuerySet["Worker"]):
    def alive(self, *, lease: timedelta) -> WorkerQuerySet:
        """Heard of within `lease`, by the clock of the database."""
        return self.filter(heartbeat_at__gte=Now() - lease)

    def silent(self, *, lease: timedelta) -> WorkerQuerySet:
        """Not heard of within `lease`, by the clock of the database."""
        return self.filter(heartbeat_at__lt=Now() - lease)


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def due(self, *, now: datetime) -> ScheduleQuerySet:
        return self.filter(enabled=True, next_fire_at__lte=now).order_by(F("next_fire_at"))
