"""Queues whose jobs another engine runs: their ids are published once they are committed.

The row stays the truth. What a broker loses is published again from the table, and what it delivers twice
finds its job claimed already.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from uuid import UUID

from django.db.models import F, Q
from django.db.models.functions import Now

from ..observability.logging import get_logger
from ..observability.metrics import metrics
from .conf import settings
from .database import database, immediate
from .engines import DATABASE, publishers
from .models import Job, Queue
from .waking import wake

logger = get_logger("svc_infra_django.jobs")

PUBLISHED_AT_ONCE = 1000
MOST_DOUBLINGS = 4


def engine_of(queue: str) -> str:
    """The engine that runs the jobs of `queue`."""
    engines = settings.engines
    return engines[queue] if queue in engines else engines.get("*", DATABASE)


def first_publish_at(queue: str, *, now: datetime) -> datetime | None:
    """When a new job of `queue` is to be swept up, should it not have been started by then."""
    engine = engine_of(queue)
    if engine == DATABASE:
        return None
    # Where nobody can publish, a program that only enqueues, it is for the next sweep.
    return now + timedelta(seconds=settings.publish_grace_seconds) if engine in publishers else now


def announce(queue: str, ids: Sequence[UUID]) -> None:
    """Tell those who run the jobs of `queue` of new ones. Call it after the commit; it never raises."""
    engine = engine_of(queue)
    if engine == DATABASE:
        wake(queue)
    elif engine in publishers:
        _publish(engine, queue, ids)


def publish_soon(queue: str) -> None:
    """Have the ready jobs of `queue` published by the next sweep, whenever they were published before."""
    if engine_of(queue) != DATABASE:
        Job.objects.using(database()).ready().filter(queue=queue).update(publish_at=Now(), publishes=0)


def republish() -> int:
    """Publish what is ready and should have been started by now; returns how much.

    Each time it waits twice as long, sixteen times the grace at most: a broker with a long queue has lost
    nothing, and would only be told everything twice.
    """
    if not publishers:
        return 0
    _adopt()
    alias = database()
    with immediate(alias):
        due = Job.objects.using(alias).ready().filter(_published(), publish_at__lte=Now())
        paused = Queue.objects.using(alias).filter(paused_at__isnull=False).values("name")
        found = list(
            due.exclude(queue__in=paused).order_by("publish_at").select_for_update(skip_locked=True)
            .values_list("queue", "pk", "publishes")[:PUBLISHED_AT_ONCE]
        )  # fmt: skip
        for publishes, rows in groupby(sorted(found, key=lambda row: row[2]), key=lambda row: row[2]):
            wait = settings.publish_grace_seconds * 2 ** min(publishes, MOST_DOUBLINGS)
            Job.objects.using(alias).filter(pk__in=[pk for _, pk, _ in rows]).update(
                publish_at=Now() + timedelta(seconds=wait), publishes=F("publishes") + 1
            )
    for position, (queue, pk, _) in enumerate(found):
        # One by one: what was handed back because it shared a message with a longer job must not do so again.
        if not _publish(engine_of(queue), queue, [pk]):
            put_off([pk for _, pk, _ in found[position + 1 :]])
            return position
        metrics.increment("jobs.swept", queue=queue)
    return len(found)


def _adopt() -> None:
    """Take up what became ready while its queue belonged to the database's own workers."""
    alias = database()
    orphans = Job.objects.using(alias).ready().filter(_published(), publish_at__isnull=True)
    ids = list(orphans.values_list("pk", flat=True)[:PUBLISHED_AT_ONCE])
    if ids:
        Job.objects.using(alias).ready().filter(pk__in=ids).update(publish_at=Now())


def _published() -> Q:
    """The queues that are not the database's."""
    named = {queue for queue, engine in settings.engines.items() if engine != DATABASE} - {"*"}
    if settings.engines.get("*", DATABASE) == DATABASE:
        return Q(queue__in=named)
    return ~Q(queue__in=[queue for queue, engine in settings.engines.items() if engine == DATABASE])


def _publish(engine: str, queue: str, ids: Sequence[UUID]) -> bool:
    publish = publishers.get(engine)
    try:
        if publish is not None:
            publish(queue, ids)
            return True
    except Exception as error:  # frontier: the work is committed, and a broker's trouble is not the caller's
        logger.warning("jobs could not be published", queue=queue, count=len(ids), error=repr(error))
        metrics.increment("jobs.publish_errors", queue=queue)
    put_off(ids)
    return False


def put_off(ids: Sequence[UUID]) -> None:
    """Have the next sweep publish these jobs."""
    try:
        Job.objects.using(database()).ready().filter(pk__in=list(ids)).update(publish_at=Now())
    except Exception as error:  # frontier: they are swept up a grace later
        logger.warning("unpublished jobs could not be marked", count=len(ids), error=repr(error))
