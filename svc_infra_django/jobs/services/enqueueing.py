"""Putting work into the queue, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from inspect import signature
from json import dumps
from typing import Any

from asgiref.sync import sync_to_async
from django.db import transaction
from django.utils import timezone

from ...observability.context import carried
from ...observability.metrics import metrics
from ..compat import AnyTask, task_backends
from ..conf import settings
from ..decorators import JobTask, Unique, queue_names
from ..errors import ArgumentsTooLarge, BadArguments, UnknownQueue
from ..models import Job
from ..payloads import plain
from ..turn import database, wake

AT_ONCE = 1000


def enqueue(task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Job:
    """Write one job. Of a unique task that waits already, the waiting job is returned.

    Raises BadArguments, ArgumentsTooLarge or UnknownQueue.
    """
    _check_queue(task)
    job = _new_job(task, args, kwargs)
    if job.unique_key is None:
        job.save(force_insert=True, using=database())
    else:
        job = _insert_unique(job)
    _announce(task, 1)
    return job


def enqueue_many(task: AnyTask, calls: Iterable[Mapping[str, Any] | Sequence[Any]]) -> list[str]:
    """Write a job for each of `calls`, a thousand a statement: a mapping is keyword arguments, a sequence
    positional ones. Returns the ids of the jobs written; those that a unique task refused are missing.

    All are checked before any is written. Raises what `.enqueue` raises.
    """
    _check_queue(task)
    jobs = [
        _new_job(task, (), call) if isinstance(call, Mapping) else _new_job(task, call, {}) for call in calls
    ]
    is_unique = any(job.unique_key for job in jobs)
    # Sorted, so that two callers with the same keys wait for each other and never in a circle.
    jobs.sort(key=lambda job: (job.unique_key or "", job.pk))
    Job.objects.using(database()).bulk_create(jobs, batch_size=AT_ONCE, ignore_conflicts=is_unique)
    if jobs:
        _announce(task, len(jobs))
    ids = [job.pk for job in jobs]
    if is_unique:
        ids = [
            pk
            for start in range(0, len(ids), AT_ONCE)
            for pk in Job.objects.using(database())
            .filter(pk__in=ids[start : start + AT_ONCE])
            .values_list("pk", flat=True)
        ]
    return [str(pk) for pk in sorted(ids)]


aenqueue_many = sync_to_async(enqueue_many)


def _check_queue(task: AnyTask) -> None:
    if not task_backends[task.backend].queues and task.queue_name not in queue_names():
        raise UnknownQueue(
            f"No task declares the queue {task.queue_name!r} and TASKS does not list it in QUEUES.",
            queue=task.queue_name,
        )


def _new_job(task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Job:
    arguments = checked_arguments(task, args, kwargs)
    now = timezone.now()
    is_later = task.run_after is not None and task.run_after > now
    unique: Unique | None = getattr(task, "unique", None)
    return Job(
        queue=task.queue_name,
        task=task.module_path,
        args=arguments,
        headers=carried() | dict(getattr(task, "headers", {})),
        backend=task.backend,
        priority=task.priority,
        state=Job.State.SCHEDULED if is_later else Job.State.READY,
        run_at=task.run_after,
        created_at=now,
        max_attempts=getattr(task, "max_attempts", JobTask.max_attempts),
        owner_id=getattr(task, "owner_id", None),
        tenant=getattr(task, "tenant", ""),
        unique_key=_unique_key(task, unique, arguments) if unique else None,
        unique_until=Job.UniqueUntil[unique.until.upper()] if unique else None,
    )


def checked_arguments(task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as they are stored. Raises BadArguments, ArgumentsTooLarge."""
    # A first argument that the worker will give has to be counted.
    context = [None] if task.takes_context else []
    try:
        signature(task.func).bind(*context, *args, **kwargs)
    except TypeError as error:
        raise BadArguments(f"{task.module_path}: {error}.") from None
    try:
        return {
            "args": plain(list(args), limit=settings.max_argument_bytes),
            "kwargs": plain(dict(kwargs), limit=settings.max_argument_bytes),
        }
    except OverflowError as error:
        raise ArgumentsTooLarge(f"{task.module_path}: {error}; store the data and pass its key.") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise BadArguments(f"{task.module_path}: {error}.") from None


def _unique_key(task: AnyTask, unique: Unique, arguments: Mapping[str, Any]) -> str:
    bound = signature(task.func).bind(
        *([None] if task.takes_context else []), *arguments["args"], **arguments["kwargs"]
    )
    bound.apply_defaults()
    names = unique.by or [name for name in bound.arguments if not (task.takes_context and name == "context")]
    chosen = {name: bound.arguments[name] for name in names}
    return sha256(f"{task.module_path} {dumps(chosen, sort_keys=True)}".encode()).hexdigest()


def _insert_unique(job: Job) -> Job:
    jobs = Job.objects.using(database())
    while True:
        jobs.bulk_create([job], ignore_conflicts=True)
        holder = jobs.filter(unique_key=job.unique_key).first()
        if holder is not None:
            return holder
        if jobs.filter(pk=job.pk).exists():
            return job


def _announce(task: AnyTask, count: int) -> None:
    metrics.increment("jobs.enqueued", count, queue=task.queue_name)
    transaction.on_commit(partial(wake, task.queue_name), using=database())
