"""Questions about jobs, workers and schedules."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.db import models
from django.db.models import Count, F, Func, Min, OuterRef, Subquery, Sum
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from ..rows import OwnedQuerySet

if TYPE_CHECKING:
    from .models import Job, Queue, Schedule, Worker  # noqa: F401 - the type parameters below


RATE_MINUTES = 5


class JobQuerySet(OwnedQuerySet["Job"]):
    def ready(self) -> JobQuerySet:
        return self.filter(state=literal(self.model.State.READY))

    def running(self) -> JobQuerySet:
        return self.filter(state=literal(self.model.State.RUNNING))

    def scheduled(self) -> JobQuerySet:
        return self.filter(state=literal(self.model.State.SCHEDULED))

    def blocked(self) -> JobQuerySet:
        """Waiting for a place of their concurrency key."""
        return self.filter(state=literal(self.model.State.BLOCKED))

    def holding(self) -> JobQuerySet:
        """Ready or running, and so in a place of their concurrency key."""
        return self.filter(state__lt=literal(2), concurrency_key__isnull=False)

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
        """Queues with `ready`, `running`, `scheduled`, `blocked` and `failed`: how many of their jobs are so.

        And with `oldest_ready_at`, when the ready job that waits longest fell due, and `ended`, how many
        attempts ended in the last `RATE_MINUTES` full minutes.
        """
        jobs = apps.get_model("svc_jobs", "Job")

        def count(state: int) -> Coalesce:
            waiting = jobs.objects.filter(queue=OuterRef("name"), state=literal(state)).order_by()
            total = waiting.values("queue").annotate(total=Count("pk")).values("total")
            return Coalesce(Subquery(total, output_field=models.IntegerField()), 0)

        ready = jobs.objects.filter(queue=OuterRef("name"), state=literal(jobs.State.READY)).order_by()
        oldest = ready.values("queue").annotate(at=Min(Coalesce("run_at", "created_at"))).values("at")
        this_minute = timezone.now().replace(second=0, microsecond=0)
        recent = apps.get_model("svc_jobs", "Throughput").objects.filter(
            queue=OuterRef("name"),
            minute__gte=this_minute - timedelta(minutes=RATE_MINUTES),
            minute__lt=this_minute,
        )
        total = Sum(F("succeeded") + F("failed") + F("cancelled") + F("retried"))
        ended = recent.order_by().values("queue").annotate(total=total).values("total")
        return self.annotate(
            ready=count(jobs.State.READY),
            running=count(jobs.State.RUNNING),
            scheduled=count(jobs.State.SCHEDULED),
            blocked=count(jobs.State.BLOCKED),
            failed=count(jobs.State.FAILED),
            oldest_ready_at=Subquery(oldest, output_field=models.DateTimeField()),
            ended=Coalesce(Subquery(ended, output_field=models.IntegerField()), 0),
        )


class WorkerQuerySet(models.QuerySet["Worker"]):
    def with_busy(self) -> WorkerQuerySet:
        """Workers with `busy`: how many jobs they run."""
        jobs = apps.get_model("svc_jobs", "Job").objects.running().filter(worker_id=OuterRef("pk")).order_by()
        total = jobs.values("worker_id").annotate(total=Count("pk")).values("total")
        return self.annotate(busy=Coalesce(Subquery(total, output_field=models.IntegerField()), 0))

    def alive(self, *, lease: timedelta) -> WorkerQuerySet:
        """Heard of within `lease`, by the clock of the database."""
        return self.filter(heartbeat_at__gte=Now() - lease)

    def silent(self, *, lease: timedelta) -> WorkerQuerySet:
        """Not heard of within `lease`, by the clock of the database."""
        return self.filter(heartbeat_at__lt=Now() - lease)


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def due(self, *, now: datetime) -> ScheduleQuerySet:
        return self.filter(enabled=True, next_fire_at__lte=now).order_by("next_fire_at", "pk")
