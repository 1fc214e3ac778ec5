"""How many jobs of a key may be under way at once, and how often one may start.

Only jobs with a key pay for it; the claim knows nothing of limits. A job that is ready or running holds a
place of its key: places are the rows themselves, so a crash cannot leak one. Whoever finds none is blocked,
and made ready by whoever leaves one; what a crash left out is made up for by `sweep`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any

from django.db import connections, transaction
from django.db.models import Count, Max

from ..observability.logging import get_logger
from ..observability.metrics import metrics
from .database import database, database_now, immediate
from .models import Job, Pace
from .querysets import JobQuerySet

logger = get_logger("svc_infra_django.jobs")

LOCKED_AT_ONCE = 100
HEAD = 16
LINED_UP_AT_ONCE = 500


def promote(keys: Iterable[str | None]) -> int:
    """Make blocked jobs of these concurrency keys ready, as many as there are places. Returns how many."""
    # Sorted, so that two who lock the same keys wait for each other and never in a circle.
    wanted = sorted({key for key in keys if key})
    return sum(
        _promote(wanted[start : start + LOCKED_AT_ONCE]) for start in range(0, len(wanted), LOCKED_AT_ONCE)
    )


def promote_later(keys: Iterable[str]) -> None:
    """`promote`, after the commit. If the database refuses that, the caller hears nothing of it."""

    def promote_now() -> None:
        promote(keys)

    # Robust: what the caller did is committed, and `sweep` makes up for this.
    transaction.on_commit(promote_now, using=database(), robust=True)


def _promote(keys: Sequence[str]) -> int:
    jobs = Job.objects.using(database())
    with immediate(database()):
        _lock(keys)
        held = _held(jobs.filter(concurrency_key__in=keys))
        chosen: list[Any] = []
        for key in keys:
            waiting = jobs.blocked().filter(concurrency_key=key).order_by("-priority", "pk")
            head = list(waiting.values_list("pk", "concurrency_limit")[:HEAD])
            room = max(0, (head[0][1] or 1) - held.get(key, 0)) if head else 0
            if room > HEAD:
                head = list(waiting.values_list("pk", "concurrency_limit")[:room])
            chosen += [pk for pk, _ in head[:room]]
        return jobs.filter(pk__in=chosen).blocked().update(**Job.ready_again()) if chosen else 0


def sweep() -> int:
    """Fill the places that are free though jobs wait for them. Returns how many became ready."""
    jobs = Job.objects.using(database())
    blocked = jobs.blocked().values("concurrency_key").order_by()
    limits = dict(blocked.annotate(limit=Max("concurrency_limit")).values_list("concurrency_key", "limit"))
    if not limits:
        return 0
    held = _held(jobs)
    return promote(key for key, limit in limits.items() if held.get(key, 0) < limit)


def _held(jobs: JobQuerySet) -> dict[str | None, int]:
    """How many places are taken, by key."""
    counted = jobs.holding().values("concurrency_key").order_by().annotate(held=Count("pk"))
    return dict(counted.values_list("concurrency_key", "held"))


def admit(jobs: Sequence[Job], *, now: datetime | None = None) -> list[Job]:
    """Those of the jobs, just claimed, that may start now by the rate of their key.

    The others are handed back, each for a time of its own, as if they had never been claimed.
    """
    limited: dict[str, list[Job]] = {}
    for job in jobs:
        if job.rate_key:
            limited.setdefault(job.rate_key, []).append(job)
    if not limited:
        return list(jobs)
    moment = now or database_now()
    refused: set[Any] = set()
    for key in sorted(limited):
        refused |= _refuse(key, limited[key], now=moment)
    promote(job.concurrency_key for job in jobs if job.pk in refused and job.concurrency_key)
    return [job for job in jobs if job.pk not in refused]


def _refuse(key: str, jobs: Sequence[Job], *, now: datetime) -> set[Any]:
    """Let start as many of the jobs as the rate allows; returns the keys of those that have to wait."""
    refused: set[Any] = set()
    turns: list[tuple[datetime, Job]] = []
    rows = Job.objects.using(database())
    rates = {
        pk: (timedelta(seconds=seconds or 0), burst or 1)
        for pk, seconds, burst in rows.filter(pk__in=[job.pk for job in jobs]).values_list(
            "pk", "rate_seconds", "rate_burst"
        )
    }
    paces = Pace.objects.using(database())
    paces.bulk_create([Pace(key=key, free_at=now, line_at=now)], ignore_conflicts=True)
    with immediate(database()):
        pace = paces.select_for_update().get(pk=key)
        waiting = rows.filter(
            state=Job.State.SCHEDULED, rate_key=key, run_at__gt=now, run_at__lte=pace.line_at
        )
        first = waiting.order_by("run_at").values_list("run_at", flat=True).first()
        if first is None:
            # Whoever stood in line is gone: cancelled, say.
            pace.line_at = now
        for job in jobs:
            step, burst = rates.get(job.pk, (timedelta(0), 1))
            start = pace.free_at - step * (burst - 1)
            if start <= now:
                pace.free_at = max(pace.free_at, now) + step
                continue
            at = max(pace.line_at, start)
            if first is not None and start < first:
                # The last one started late. At the end of the line, this one would leave its turn unused.
                at = first = start
            pace.line_at = max(pace.line_at, at + step)
            refused.add(job.pk)
            turns.append((at, job))
            metrics.increment("jobs.limited", queue=job.queue)
        if turns:
            unclaimed = "attempt = attempt - 1, epoch = epoch + 1, worker_id = NULL"
            _give_times(turns, unclaimed, where=f"state = {Job.State.RUNNING}")
            _line_up(key, pace)
        pace.save(using=database(), update_fields=["free_at", "line_at"])
    return refused


def _line_up(key: str, pace: Pace) -> None:
    """Give a time of their own to those behind, too: each would be claimed in vain, and hold up other jobs.

    Not to those that hold a place of a concurrency limit: they are few.
    """
    ready = Job.objects.using(database()).ready().filter(rate_key=key, concurrency_key=None)
    chosen = ready.order_by("-priority", "pk").only("rate_seconds", "epoch")
    if connections[database()].features.has_select_for_update_skip_locked:
        chosen = chosen.select_for_update(skip_locked=True)
    turns: list[tuple[datetime, Job]] = []
    for job in chosen[:LINED_UP_AT_ONCE]:
        turns.append((pace.line_at, job))
        pace.line_at += timedelta(seconds=job.rate_seconds or 0)
    _give_times(turns, "worker_id = NULL", where=f"state = {Job.State.READY}")


def _give_times(turns: Sequence[tuple[datetime, Job]], more: str, *, where: str) -> None:
    """Schedule each of the jobs for its time, unless it has changed hands.

    One statement many times: with an ORM's expression for each job, five hundred take half a second.
    """
    connection = connections[database()]
    key: Any = Job._meta.pk
    sql = f"""
        UPDATE {connection.ops.quote_name(Job._meta.db_table)}
        SET state = {Job.State.SCHEDULED}, run_at = %s, {more} WHERE id = %s AND epoch = %s AND {where}
    """  # noqa: S608 - a table's name and constants
    values = [
        (connection.ops.adapt_datetimefield_value(at), key.get_db_prep_value(job.pk, connection), job.epoch)
        for at, job in turns
    ]
    with connection.cursor() as cursor:
        cursor.executemany(sql, values)


def _lock(keys: Sequence[str]) -> None:
    """Hold up everybody else who counts the places of these keys, until the end of the transaction.

    On SQLite whoever writes holds up all others anyway.
    """
    connection = connections[database()]
    if connection.vendor == "postgresql":
        numbers = [
            int.from_bytes(sha256(f"svc_jobs {key}".encode()).digest()[:8], signed=True) for key in keys
        ]
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_advisory_xact_lock(number) FROM unnest(%s::bigint[]) AS number", [sorted(numbers)]
            )
