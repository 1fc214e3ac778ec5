"""What becomes of the jobs of a worker that died: they are run again, or failed as the cause of its death."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db.models import Exists, F, OuterRef, Subquery
from django.db.models.functions import Now
from django.utils import timezone

from ..observability.logging import get_logger
from ..observability.metrics import metrics
from .compat import path_of
from .conf import settings
from .database import database, database_now, immediate
from .decorators import task_at
from .errors import JobCrashed, UnknownTask
from .models import Job, JobAttempt, Worker
from .runner import timed_out
from .turn import Outcome, owned, settle, write_attempt

logger = get_logger("svc_infra_django.jobs")

RESCUED_AT_ONCE = 200
CRASHED = path_of(JobCrashed)


def rescue(*, lease: timedelta, max_crashes: int) -> int:
    """Take the running jobs of dead workers away from them: ready again, or failed as poison."""
    alias = database()
    alive = Worker.objects.using(alias).alive(lease=lease).filter(pk=OuterRef("worker_id"))
    orphans = Job.objects.using(alias).running().exclude(Exists(alive))
    # When it died nobody saw, but it was alive when it was heard of last.
    heard_of = Worker.objects.using(alias).filter(pk=OuterRef("worker_id")).values("heartbeat_at")
    taken = _take(orphans.annotate(alive_until=Subquery(heard_of)), max_crashes=max_crashes)
    if taken < RESCUED_AT_ONCE:
        Worker.objects.using(alias).silent(lease=lease).delete()
    return taken


def bury(worker: UUID, *, max_crashes: int) -> int:
    """Take its jobs from a worker that is known to be dead, without waiting for its lease to run out."""
    Worker.objects.using(database()).filter(pk=worker).delete()
    orphans = Job.objects.using(database()).running().filter(worker_id=worker).annotate(alive_until=Now())
    buried = 0
    while taken := _take(orphans, max_crashes=max_crashes):
        buried += taken
    return buried


def _take(orphans: Any, *, max_crashes: int) -> int:
    with immediate(database()):
        taken = list(orphans.order_by("worker_id").select_for_update(skip_locked=True)[:RESCUED_AT_ONCE])
        overrun = {job.pk: run for job in taken if (run := overrun_seconds(job, until=job.alive_until))}
        guilty = {job.worker_id for job in taken if job.pk in overrun}
        for job in taken:
            if job.pk in overrun:
                settle([timed_out(job, task_at(job.task), seconds=overrun[job.pk])])
            elif job.worker_id in guilty:
                # Its process had to die because of another one.
                settle([Outcome(job, Job.State.READY)])
            else:
                _take_from_dead_worker(job, max_crashes=max_crashes)
    return len(taken)


def overrun_seconds(job: Job, *, until: datetime | None) -> float:
    """For how long a job that should have ended at its timeout had run by then; 0 for any other."""
    try:
        timeout = getattr(task_at(job.task), "timeout", None)
    except UnknownTask:
        return 0.0
    if timeout is None or job.attempted_at is None or until is None:
        return 0.0
    run = (until - job.attempted_at).total_seconds()
    return run if run > timeout + settings.overrun_seconds else 0.0


def workers_overrun(workers: Iterable[UUID]) -> set[UUID]:
    """Those of the workers that run a job which has overrun its timeout."""
    running = Job.objects.using(database()).running().filter(worker_id__in=list(workers))
    jobs = list(running.only("worker_id", "task", "attempted_at"))
    now = database_now()
    return {job.worker_id for job in jobs if job.worker_id and overrun_seconds(job, until=now)}


def _take_from_dead_worker(job: Job, *, max_crashes: int) -> None:
    crashes = job.crashes + 1
    is_poison = crashes >= max_crashes or job.attempt >= job.max_attempts
    changes: dict[str, Any] = {"epoch": F("epoch") + 1, "crashes": crashes, "error": CRASHED}
    if is_poison:
        story = (
            f"The worker died under this job {crashes} times; attempt {job.attempt} of {job.max_attempts}."
        )
        changes |= {"state": Job.State.FAILED, "finished_at": Now(), "traceback": story}
        if job.unique_until == Job.UniqueUntil.FINISHED:
            changes["unique_key"] = None
    else:
        changes |= Job.ready_again()
    if owned(job).update(**changes):
        write_attempt(job, JobAttempt.Outcome.CRASHED, timezone.now(), error=CRASHED)
        outcome = "poison" if is_poison else "rescued"
        metrics.increment("jobs.rescued", queue=job.queue, outcome=outcome)
        logger.warning(
            "job of a dead worker", job_id=str(job.pk), task=job.task, outcome=outcome, crashes=crashes
        )
