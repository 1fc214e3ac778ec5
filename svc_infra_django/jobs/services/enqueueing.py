"""Putting work into the queue, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from functools import lru_cache, partial
from hashlib import sha256
from inspect import signature
from json import dumps
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.utils import timezone

from ...identifiers import uuid7
from ...observability.context import carried
from ...observability.metrics import metrics
from ..compat import DEFAULT_TASK_QUEUE_NAME, AnyTask, task_backends
from ..conf import settings
from ..decorators import JobTask, Unique, queue_names
from ..errors import ArgumentsTooLarge, BadArguments, UnknownQueue
from ..models import Job
from ..payloads import plain
from ..turn import database, wake

AT_ONCE = 1000

# Reading a signature takes longer than binding to it.
_signature = lru_cache(maxsize=1024)(signature)


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
    pattern = _pattern(task)
    unique: Unique | None = getattr(task, "unique", None)
    rows: list[tuple[UUID, dict[str, Any], str | None]] = []
    for call in calls:
        arguments = (
            checked_arguments(task, (), call)
            if isinstance(call, Mapping)
            else checked_arguments(task, call, {})
        )
        rows.append((uuid7(), arguments, _unique_key(task, unique, arguments) if unique else None))
    if not rows:
        return []
    if unique:
        # Sorted, so that two callers with the same keys wait for each other and never in a circle.
        rows.sort(key=lambda row: (row[2] or "", row[0]))
    alias = database()
    insert = _insert_unnested if connections[alias].vendor == "postgresql" else _insert_each
    with transaction.atomic(using=alias):
        written = [
            pk
            for start in range(0, len(rows), AT_ONCE)
            for pk in insert(alias, pattern, rows[start : start + AT_ONCE])
        ]
    _announce(task, len(written))
    return [str(pk) for pk in sorted(written)]


def _insert_unnested(
    alias: str, pattern: Job, rows: Sequence[tuple[UUID, dict[str, Any], str | None]]
) -> list[UUID]:
    """PostgreSQL: what differs goes as arrays, what all have in common only once."""
    connection = connections[alias]
    quote = connection.ops.quote_name
    common = [field for field in Job._meta.concrete_fields if field.name not in ("id", "args", "unique_key")]
    columns = ", ".join(quote(str(field.column)) for field in common)
    values = ", ".join(f"%s::{field.db_type(connection)}" for field in common)
    sql = f"""
        INSERT INTO {quote(Job._meta.db_table)} (id, args, unique_key, {columns})
        SELECT d.id, d.args, d.unique_key, {values}
        FROM unnest(%s::uuid[], %s::jsonb[], %s::text[]) AS d(id, args, unique_key)
        ON CONFLICT DO NOTHING RETURNING id
    """  # noqa: S608 - names of columns and types only
    shared = [
        field.get_db_prep_save(getattr(pattern, field.attname), connection=connection) for field in common
    ]
    ids, arguments, keys = zip(*rows, strict=True)
    with connection.cursor() as cursor:
        cursor.execute(sql, [*shared, list(ids), [dumps(each) for each in arguments], list(keys)])
        return [pk for (pk,) in cursor.fetchall()]


def _insert_each(
    alias: str, pattern: Job, rows: Sequence[tuple[UUID, dict[str, Any], str | None]]
) -> list[UUID]:
    jobs = []
    for pk, arguments, key in rows:
        job = copy(pattern)
        job.pk, job.args, job.unique_key = pk, arguments, key
        jobs.append(job)
    is_unique = jobs[0].unique_key is not None
    Job.objects.using(alias).bulk_create(jobs, ignore_conflicts=is_unique)
    ids = [job.pk for job in jobs]
    return (
        list(Job.objects.using(alias).filter(pk__in=ids).values_list("pk", flat=True)) if is_unique else ids
    )


aenqueue_many = sync_to_async(enqueue_many)


def _check_queue(task: AnyTask) -> None:
    if task.queue_name == DEFAULT_TASK_QUEUE_NAME or task_backends[task.backend].queues:
        return
    if task.queue_name not in queue_names():
        raise UnknownQueue(
            f"No task declares the queue {task.queue_name!r} and TASKS does not list it in QUEUES.",
            queue=task.queue_name,
        )


def _new_job(task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Job:
    arguments = checked_arguments(task, args, kwargs)
    job = _pattern(task)
    job.args = arguments
    if unique := getattr(task, "unique", None):
        job.unique_key = _unique_key(task, unique, arguments)
    return job


def _pattern(task: AnyTask) -> Job:
    """A job of the task, but for its arguments."""
    now = timezone.now()
    is_later = task.run_after is not None and task.run_after > now
    unique: Unique | None = getattr(task, "unique", None)
    return Job(
        queue=task.queue_name,
        task=task.module_path,
        args={},
        headers=carried() | dict(getattr(task, "headers", {})),
        backend=task.backend,
        priority=task.priority,
        state=Job.State.SCHEDULED if is_later else Job.State.READY,
        run_at=task.run_after,
        created_at=now,
        max_attempts=getattr(task, "max_attempts", JobTask.max_attempts),
        owner_id=getattr(task, "owner_id", None),
        tenant=getattr(task, "tenant", ""),
        unique_until=Job.UniqueUntil[unique.until.upper()] if unique else None,
    )


def checked_arguments(task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as they are stored. Raises BadArguments, ArgumentsTooLarge."""
    # A first argument that the worker will give has to be counted.
    context = [None] if task.takes_context else []
    try:
        _signature(task.func).bind(*context, *args, **kwargs)
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
    bound = _signature(task.func).bind(
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
