"""What workers do for the table beside their turns: make ready what falls due, count, delete what is old."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db.models import Count, Min, Q
from django.db.models.functions import Coalesce, Now
from django.utils import timezone

from ..identifiers import uuid7_at
from ..observability.logging import get_logger
from ..observability.metrics import metrics
from .conf import settings
from .database import database, database_now, immediate
from .decorators import queue_names
from .limits import promote
from .models import Effect, Job, Pace, Queue, Throughput
from .querysets import literal

logger = get_logger("svc_infra_django.jobs")

STAGED_AT_ONCE = 1000
PRUNED_AT_ONCE = 5000
KEPT = (Job.State.SUCCEEDED, Job.State.CANCELLED, Job.State.FAILED)
IDLE_HOURS = 48


def stage(*, now: datetime | None = None) -> int:
    """Make scheduled jobs ready that are due at `now` (by default now, by the database's clock).

    Those with a concurrency limit have to wait for a place.
    """
    alias = database()
    moment = Now() if now is None else now
    with immediate(alias):
        due = Job.objects.using(alias).due(now=moment).order_by("run_at").select_for_update(skip_locked=True)
        found = dict(due.values_list("pk", "concurrency_key")[:STAGED_AT_ONCE])
        staged = 0
        for changes, ids in (
            (Job.ready_again(), [pk for pk, key in found.items() if key is None]),
            ({"state": Job.State.BLOCKED}, [pk for pk, key in found.items() if key is not None]),
        ):
            if ids:
                scheduled = Job.objects.using(alias).filter(pk__in=ids, state=Job.State.SCHEDULED)
                staged += scheduled.update(**changes)
    promote(key for key in found.values() if key is not None)
    return staged


def next_due_in() -> float | None:
    """Seconds until the next scheduled job falls due, by the database's clock; None without one."""
    scheduled = Job.objects.using(database()).scheduled().order_by("run_at")
    found = scheduled.values_list("run_at", Now()).first()
    return None if found is None else (found[0] - found[1]).total_seconds()


def measure_depth() -> None:
    """Tell the metrics how many jobs of each queue wait, and for how long."""
    jobs = Job.objects.using(database()).order_by()
    counts = {name: dict.fromkeys(Job.WAITING, 0) for name in queue_names()}
    for state in Job.WAITING:
        # One by one: each has an index of its own, and all together would read every row.
        waiting = jobs.filter(state=literal(state)).values_list("queue")
        for queue, count in waiting.annotate(count=Count("pk")):
            counts.setdefault(queue, dict.fromkeys(Job.WAITING, 0))[state] = count
    for queue, states in counts.items():
        for state, count in states.items():
            metrics.gauge("jobs.depth", count, queue=queue, state=Job.State(state).label)
    for queue, seconds in oldest_ready(counts).items():
        metrics.gauge("jobs.oldest_ready", seconds, queue=queue)


def oldest_ready(queues: Iterable[str]) -> dict[str, float]:
    """For how many seconds the ready job that waits longest has been due, 0 in an empty queue."""
    ready = Job.objects.using(database()).ready().values("queue").order_by()
    found = dict(ready.annotate(at=Min(Coalesce("run_at", "created_at"))).values_list("queue", "at"))
    now = database_now()
    return {name: max(0.0, (now - found.get(name, now)).total_seconds()) for name in queues}


def prune(*, now: datetime | None = None, limit: int | None = None) -> int:
    """Delete finished jobs that have been kept long enough, in chunks. Returns how many.

    How long is for each state in the settings, and for single queues in their rows.
    """
    now = now or timezone.now()
    own = list(Queue.objects.using(database()).all())
    deleted = 0
    for state in KEPT:
        name = f"keep_{state.label}_hours"
        special = {queue.name: hours for queue in own if (hours := getattr(queue, name)) is not None}
        rules: list[tuple[Q, float]] = [(Q(queue=queue), hours) for queue, hours in special.items()]
        rules.append((~Q(queue__in=list(special)), getattr(settings, name)))
        for jobs, hours in rules:
            rest = None if limit is None else limit - deleted
            deleted += _prune(jobs & Q(state=state), now=now, until=now - timedelta(hours=hours), limit=rest)
    forgotten = now - timedelta(hours=settings.keep_effects_hours)
    Effect.objects.using(database()).filter(pk__lt=uuid7_at(forgotten)).delete()
    idle = now - timedelta(hours=IDLE_HOURS)
    Pace.objects.using(database()).filter(free_at__lt=idle, line_at__lt=idle).delete()
    Throughput.objects.using(database()).filter(minute__lt=idle).delete()
    if deleted:
        logger.info("jobs pruned", count=deleted)
    return deleted


def _prune(which: Q, *, now: datetime, until: datetime, limit: int | None) -> int:
    jobs = Job.objects.using(database()).filter(which)
    # Along the key, which is ordered by time and so ends where the young jobs begin: no index is kept.
    old = jobs.filter(finished_at__lt=until, pk__lt=uuid7_at(until)).order_by("pk")
    # One that still keeps others out of its window is what they are refused by.
    old = old.exclude(unique_key__isnull=False, unique_expires_at__gt=now)
    deleted = 0
    while limit is None or deleted < limit:
        size = PRUNED_AT_ONCE if limit is None else min(PRUNED_AT_ONCE, limit - deleted)
        ids = list(old.values_list("pk", flat=True)[:size])
        with immediate(database()):
            # Locked: one that is retried meanwhile stays.
            finished = jobs.filter(pk__in=ids).order_by("pk").select_for_update()
            found = list(finished.values_list("pk", flat=True))
            deleted += jobs.filter(pk__in=found).delete()[1].get("svc_jobs.Job", 0) if found else 0
        if len(ids) < size:
            break
    return deleted
