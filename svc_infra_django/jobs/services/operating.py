"""What an operator does to jobs and queues."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import IntegrityError, transaction
from django.db.models import F
from django.utils import timezone

from ...observability.context import carried
from ...observability.logging import get_logger
from ...observability.metrics import metrics
from ..decorators import JobTask, queue_names, task_at
from ..errors import (
    JobNotCancellable,
    JobNotDiscardable,
    JobNotFound,
    JobNotRetryable,
    QueueNotFound,
    UnknownTask,
)
from ..limits import promote_later
from ..models import Job, JobAttempt, Queue
from ..publishing import announce, first_publish_at, publish_soon
from ..tending import prune
from ..turn import database, immediate
from ..waking import wake
from .enqueueing import unique_key_of

logger = get_logger("svc_infra_django.jobs")

MOST_ATTEMPTS = 32_767
"""What the column of attempts can count."""

ANOTHER_WAITS = "Another such job is waiting, and one at a time is allowed."

__all__ = [
    "acancel",
    "adiscard",
    "aduplicate",
    "apause",
    "aresume",
    "aretry",
    "aretry_failed",
    "cancel",
    "discard",
    "duplicate",
    "pause",
    "prune",
    "queue_named",
    "resume",
    "retry",
    "retry_failed",
    "set_retention",
]


def cancel(job_id: UUID | str) -> Job:
    """End a job that is not finished. One that waits never runs.

    One that runs is told by its worker within `watch_seconds` (`context.cancelled`; an async body is
    cancelled) and its result is thrown away; an atomic one is rolled back. Raises JobNotFound,
    JobNotCancellable.
    """
    now = timezone.now()
    with immediate(database()):
        job = _locked(job_id)
        if job.is_final:
            raise JobNotCancellable(
                f"This job has {job.get_state_display()} already.", state=job.get_state_display()
            )
        was_running = job.state == Job.State.RUNNING
        _change(job, state=Job.State.CANCELLED, finished_at=now, unique_key=None)
        _promote_later(job)
        if was_running:
            JobAttempt.objects.using(database()).create(
                job=job,
                attempt=job.attempt,
                worker_id=job.worker_id,
                started_at=job.attempted_at,
                finished_at=now,
                outcome=JobAttempt.Outcome.CANCELLED,
            )
    logger.info("job cancelled", job_id=str(job.pk), task=job.task, was_running=was_running)
    return job


acancel = sync_to_async(cancel)


def retry(job_id: UUID | str) -> Job:
    """Make a failed or cancelled job ready again, with all its attempts before it.

    Crashes are forgiven. Raises JobNotFound, and JobNotRetryable also while another job has its unique key.
    """
    try:
        job = _retry(job_id)
    except IntegrityError:
        # Another such job came between the look for one and the commit.
        raise JobNotRetryable(ANOTHER_WAITS) from None
    logger.info("job retried by hand", job_id=str(job.pk), task=job.task)
    return job


aretry = sync_to_async(retry)


def _retry(job_id: UUID | str) -> Job:
    with immediate(database()):
        job = _locked(job_id)
        if job.state not in (Job.State.FAILED, Job.State.CANCELLED):
            raise JobNotRetryable(f"This job is {job.get_state_display()}.", state=job.get_state_display())
        key = job.unique_key or unique_key_of(job)
        holders = Job.objects.using(database()).filter(unique_key=key) if key else Job.objects.none()
        if holder := holders.exclude(pk=job.pk).first():
            raise JobNotRetryable(ANOTHER_WAITS, job=str(holder.pk))
        blocked = {"state": Job.State.BLOCKED, "worker_id": None}
        _change(
            job,
            **(blocked if job.concurrency_key else Job.ready_again()),
            unique_key=key,
            finished_at=None,
            run_at=None,
            crashes=0,
            max_attempts=min(job.attempt + _attempts_of(job.task), MOST_ATTEMPTS),
        )
        _announce_later(job)
    return job


def retry_failed(*, queue: str = "", task: str = "", limit: int = 1000) -> tuple[int, int]:
    """Retry the failed jobs of a queue or of a task, the oldest first; without either, of all.

    Returns how many became ready, and how many were refused because another job has their unique key.
    """
    failed = Job.objects.using(database()).dead().order_by("pk")
    wanted = {name: value for name, value in (("queue", queue), ("task", task)) if value}
    retried, refused = 0, 0
    for pk in list(failed.filter(**wanted).values_list("pk", flat=True)[:limit]):
        try:
            retry(pk)
            retried += 1
        except (JobNotRetryable, JobNotFound):
            # Of those that were chosen a moment ago, somebody else may have retried or discarded one.
            refused += 1
    return retried, refused


aretry_failed = sync_to_async(retry_failed)


def duplicate(job_id: UUID | str) -> Job:
    """Make another job of the same task and arguments, whatever became of the first.

    It belongs to the same owner and tenant and makes no claim on a unique key. Raises JobNotFound.
    """
    now = timezone.now()
    with immediate(database()):
        job = _locked(job_id)
        made = Job(
            owner_id=job.owner_id,
            tenant=job.tenant,
            queue=job.queue,
            task=job.task,
            args=job.args,
            headers=carried() | {"duplicate_of": str(job.pk)},
            backend=job.backend,
            priority=job.priority,
            state=Job.State.BLOCKED if job.concurrency_key else Job.State.READY,
            created_at=now,
            publish_at=first_publish_at(job.queue, now=now),
            max_attempts=_attempts_of(job.task),
            concurrency_key=job.concurrency_key,
            concurrency_limit=job.concurrency_limit,
            rate_key=job.rate_key,
            rate_seconds=job.rate_seconds,
            rate_burst=job.rate_burst,
        )
        made.save(force_insert=True, using=database())
        _announce_later(made)
    metrics.increment("jobs.enqueued", queue=job.queue)
    logger.info("job duplicated", job_id=str(job.pk), task=job.task, duplicate=str(made.pk))
    return made


aduplicate = sync_to_async(duplicate)


def discard(job_id: UUID | str) -> None:
    """Delete a job with its attempts, unless it runs. Raises JobNotFound, JobNotDiscardable."""
    with immediate(database()):
        job = _locked(job_id)
        if job.state == Job.State.RUNNING:
            raise JobNotDiscardable
        _promote_later(job)
        job.delete(using=database())
    logger.info("job discarded", job_id=str(job_id), task=job.task, state=job.get_state_display())


adiscard = sync_to_async(discard)


def pause(queue: str) -> Queue:
    """Start no more jobs of the queue; those that run go on. Raises QueueNotFound."""
    row = queue_named(queue)
    if row.paused_at is None:
        row.paused_at = timezone.now()
        row.save(update_fields=["paused_at"])
        logger.info("queue paused", queue=queue)
    return row


apause = sync_to_async(pause)


def resume(queue: str) -> Queue:
    """Start jobs of the queue again. Raises QueueNotFound."""
    row = queue_named(queue)
    if row.paused_at is not None:
        row.paused_at = None
        row.save(update_fields=["paused_at"])
        publish_soon(queue)
        logger.info("queue resumed", queue=queue)
        transaction.on_commit(wake, using=database())
    return row


aresume = sync_to_async(resume)


def set_retention(queue: str, **hours: float | None) -> Queue:
    """How long finished jobs of the queue are kept: `keep_failed_hours=1`; None for what the settings say.

    Raises QueueNotFound.
    """
    row = queue_named(queue)
    for name, value in hours.items():
        setattr(row, name, value)
    row.save(update_fields=list(hours), using=database())
    logger.info("retention of a queue set", queue=queue, **hours)
    return row


def queue_named(name: str) -> Queue:
    """The row of a queue that exists: in the table, in a task's declaration, or under a job."""
    queues = Queue.objects.using(database())
    row = queues.filter(pk=name).first()
    if row is None:
        if name not in queue_names() and not Job.objects.using(database()).filter(queue=name).exists():
            raise QueueNotFound("Queue", name)
        row, _ = queues.get_or_create(pk=name)
    return row


def _locked(job_id: UUID | str) -> Job:
    try:
        return Job.objects.using(database()).select_for_update().get(pk=UUID(str(job_id)))
    except (Job.DoesNotExist, ValueError):
        raise JobNotFound("Job", job_id) from None


def _promote_later(job: Job) -> None:
    if job.concurrency_key:
        promote_later([job.concurrency_key])


def _announce_later(job: Job) -> None:
    """Once it is committed, tell of a job that is ready, or make it so if there is a place for it."""
    _promote_later(job)
    if job.state == Job.State.READY:
        transaction.on_commit(partial(announce, job.queue, [job.pk]), using=database())


def _change(job: Job, **changes: Any) -> None:
    """Write `changes` to the row that is locked, and fence off whoever held it."""
    Job.objects.using(database()).filter(pk=job.pk).update(epoch=F("epoch") + 1, **changes)
    job.refresh_from_db()


def _attempts_of(path: str) -> int:
    try:
        return getattr(task_at(path), "max_attempts", JobTask.max_attempts)
    except UnknownTask:
        return JobTask.max_attempts
