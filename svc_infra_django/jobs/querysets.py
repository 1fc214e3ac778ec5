"""Questions about jobs, workers and schedules."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import models
from django.db.models import Count, Func, OuterRef, Subquery
from django.db.models.functions import Coalesce, Now

from ..rows import OwnedQuerySet

if TYPE_CHECKING:
    from .models import Job, Queue, Schedule, Worker  # noqa: F401 - the type parameters below


class JobQuerySet(OwnedQuerySet["Job"]):
    def ready(self) -> JobQuerySet:
        return self.filter(state=literal(self.model.State.READY))

    def running(self) -> JobQuerySet:
        return self.filter(state=literal(self.model.State.RUNNING))

    def scheduled(self) -> JobQuerySet:
        return self.filter(state=literal(self.model.State.SCHEDULED))

    def dead(self) -> JobQuerySet:
        """Failed for good: kept to be looked at and retried."""
        return self.filter(state=literal(self.model.State.FAILED))

    def due(self, *, now: Any) -> JobQuerySet:
        """Scheduled, and their time has come."""
        return self.scheduled().filter(run_at__lte=now)


def literal(state: int) -> Func:
    """The state as it stands in the conditions of the partial indexes.

    Of a bound value SQLite cannot prove that it meets such a condition, nor can a prepared statement of
    PostgreSQL, and both would read the whole table.
    """
    return Func(template=str(int(state)), output_field=models.SmallIntegerField())


class QueueQuerySet(models.QuerySet["Queue"]):
    def with_depth(self) -> QueueQuerySet:
        """Queues with `ready`, `running` and `scheduled`: how many of their jobs are in these states."""
        jobs = apps.get_model("svc_jobs", "Job")

        def count(state: int) -> Coalesce:
            waiting = jobs.objects.filter(queue=OuterRef("name"), state=literal(state)).order_by()
            total = waiting.values("queue").annotate(total=Count("pk")).values("total")
            return Coalesce(Subquery(total, output_field=models.IntegerField()), 0)

        return self.annotate(
            ready=count(jobs.State.READY),
            running=count(jobs.State.RUNNING),
            scheduled=count(jobs.State.SCHEDULED),
        )


class WorkerQuerySet(models.QuerySet["Worker"]):
    def alive(self, *, lease: timedelta) -> WorkerQuerySet:
        """Heard of within `lease`, by the clock of the database."""
        return self.filter(heartbeat_at__gte=Now() - lease)

    def silent(self, *, lease: timedelta) -> WorkerQuerySet:
        """Not heard of within `lease`, by the clock of the database."""
        return self.filter(heartbeat_at__lt=Now() - lease)


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def due(self, *, now: datetime) -> ScheduleQuerySet:
        return self.filter(enabled=True, next_fire_at__lte=now).order_by("next_fire_at", "pk")
