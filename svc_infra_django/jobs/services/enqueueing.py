"""Putting work into the queue, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from datetime import timedelta
from functools import lru_cache, partial
from hashlib import sha256
from inspect import signature
from json import dumps
from typing import Any, NamedTuple
from uuid import UUID

from asgiref.sync import sync_to_async
from django.db import connections, transaction
from django.utils import timezone

from ...identifiers import uuid7
from ...observability.context import carried
from ...observability.metrics import metrics
from ..compat import DEFAULT_TASK_QUEUE_NAME, AnyTask, Task, task_backends
from ..conf import settings
from ..decorators import KEY_LENGTH, JobTask, Limit, Rate, Unique, queue_names, seconds_of, task_at
from ..errors import ArgumentsTooLarge, BadArguments, BadTask, UnknownQueue, UnknownTask
from ..limits import promote_later
from ..models import Job
from ..payloads import plain
from ..publishing import announce, first_publish_at
from ..turn import database

AT_ONCE = 1000
MOST_BYTES = 16_000_000
"""Of arguments in one statement; PostgreSQL refuses JSON of a quarter of a gigabyte."""

# Reading a signature takes longer than binding to it.
_signature = lru_cache(maxsize=1024)(signature)


KEYS = ("unique_key", "concurrency_key", "rate_key")
"""What of a row only jobs of limited tasks have."""


class Row(NamedTuple):
    """What differs between the jobs of one task."""

    id: UUID
    args: dict[str, Any]
    unique_key: str | None
    concurrency_key: str | None
    rate_key: str | None

    def as_job(self, pattern: Job) -> Job:
        job = copy(pattern)
        for name, value in self._asdict().items():
            setattr(job, name, value)
        return job


def enqueue(task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Job:
    """Write one job. Of a unique task that waits already, the waiting job is returned.

    Raises BadArguments, ArgumentsTooLarge or UnknownQueue.
    """
    _check_queue(task)
    row = _row(task, args, kwargs)
    job = row.as_job(_pattern(task))
    unique: Unique | None = getattr(task, "unique", None)
    if unique is None:
        job.save(force_insert=True, using=database())
    else:
        job = _insert_unique(job, replace=unique.replace)
    _announce(task, [row], job.state)
    return job


def enqueue_many(task: AnyTask, calls: Iterable[Mapping[str, Any] | Sequence[Any]]) -> list[str]:
    """Write a job for each of `calls`, a thousand a statement: a mapping is keyword arguments, a sequence
    positional ones. Returns the ids of the jobs written; those that a unique task refused are missing.

    All are checked before any is written. Raises what `.enqueue` raises, and BadTask for what is no task.
    """
    if not isinstance(task, Task):
        raise BadTask(f"{task!r} is no task: it wants @task above it.")
    _check_queue(task)
    pattern = _pattern(task)
    unique: Unique | None = getattr(task, "unique", None)
    rows = [_row_of_call(task, call) for call in calls]
    if not rows:
        return []
    alias = database()
    with transaction.atomic(using=alias):
        if unique and unique.replace:
            jobs = [row.as_job(pattern) for row in rows]
            written = [job.pk for job in jobs if _insert_unique(job, replace=True).pk == job.pk]
        else:
            written = _insert(alias, pattern, rows, is_unique=unique is not None)
    _announce(task, rows, pattern.state)
    return [str(pk) for pk in sorted(written)]


def _insert(alias: str, pattern: Job, rows: Sequence[Row], *, is_unique: bool) -> list[UUID]:
    if is_unique:
        # Sorted, so that two callers with the same keys wait for each other and never in a circle.
        rows = sorted(rows, key=lambda row: (row.unique_key or "", row.id))
    insert = _insert_unnested if connections[alias].vendor == "postgresql" else _insert_each
    written: list[UUID] = []
    for start in range(0, len(rows), AT_ONCE):
        batch = rows[start : start + AT_ONCE]
        if pattern.unique_expires_at is not None:
            _let_go_of_expired([row.unique_key for row in batch])
        written += insert(alias, pattern, batch)
    return written


def _insert_unnested(alias: str, pattern: Job, rows: Sequence[Row]) -> list[UUID]:
    """PostgreSQL: what differs goes as lists, what all have in common only once."""
    texts = [dumps(row.args) for row in rows]
    if len(rows) > 1 and sum(map(len, texts)) > MOST_BYTES:
        half = len(rows) // 2
        return _insert_unnested(alias, pattern, rows[:half]) + _insert_unnested(alias, pattern, rows[half:])
    connection = connections[alias]
    quote = connection.ops.quote_name
    keys = [name for name in KEYS if any(getattr(row, name) is not None for row in rows)]
    names = ["id", "args", *keys]
    common = [field for field in Job._meta.concrete_fields if field.name not in names]
    columns = ", ".join(quote(str(field.column)) for field in common)
    values = ", ".join(f"%s::{field.db_type(connection)}" for field in common)
    # The two long lists as one text each: an array is put together element by element.
    lists = ["unnest(%s::uuid[])", "jsonb_array_elements(%s::jsonb)", *["unnest(%s::text[])"] * len(keys)]
    sql = f"""
        INSERT INTO {quote(Job._meta.db_table)} ({", ".join(names)}, {columns})
        SELECT {", ".join(names)}, {values} FROM ROWS FROM ({", ".join(lists)}) AS d({", ".join(names)})
        ON CONFLICT DO NOTHING RETURNING id
    """  # noqa: S608 - names of columns and types only
    shared = [
        field.get_db_prep_save(getattr(pattern, field.attname), connection=connection) for field in common
    ]
    ids = f"{{{','.join(str(row.id) for row in rows)}}}"
    arguments = f"[{','.join(texts)}]"
    with connection.cursor() as cursor:
        cursor.execute(sql, [*shared, ids, arguments, *([getattr(row, key) for row in rows] for key in keys)])
        return [pk for (pk,) in cursor.fetchall()]


def _insert_each(alias: str, pattern: Job, rows: Sequence[Row]) -> list[UUID]:
    jobs = [row.as_job(pattern) for row in rows]
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


def _row_of_call(task: AnyTask, call: Mapping[str, Any] | Sequence[Any]) -> Row:
    if isinstance(call, Mapping):
        return _row(task, (), call)
    if isinstance(call, str | bytes) or not isinstance(call, Sequence):
        raise BadArguments(f"{task.module_path}: {call!r:.80} is neither a mapping nor a list of arguments.")
    return _row(task, call, {})


def _row(task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Row:
    arguments = checked_arguments(task, args, kwargs)
    unique: Unique | None = getattr(task, "unique", None)
    concurrency: Limit | None = getattr(task, "concurrency", None)
    rate: Rate | None = getattr(task, "rate", None)
    return Row(
        uuid7(),
        arguments,
        _unique_key(task, unique, arguments) if unique else None,
        _key(task, concurrency, arguments) if concurrency else None,
        _key(task, rate, arguments) if rate else None,
    )


def _pattern(task: AnyTask) -> Job:
    """A job of the task, but for what differs by its arguments."""
    now = timezone.now()
    is_later = task.run_after is not None and task.run_after > now
    unique: Unique | None = getattr(task, "unique", None)
    job = Job(
        queue=task.queue_name,
        task=task.module_path,
        args={},
        headers=carried() | dict(getattr(task, "headers", {})),
        backend=task.backend,
        priority=task.priority,
        state=Job.State.SCHEDULED if is_later else Job.State.READY,
        run_at=task.run_after,
        created_at=now,
        publish_at=None if is_later else first_publish_at(task.queue_name, now=now),
        max_attempts=getattr(task, "max_attempts", JobTask.max_attempts),
        owner_id=getattr(task, "owner_id", None),
        tenant=getattr(task, "tenant", ""),
        unique_until=Job.UniqueUntil[unique.until.upper()] if unique else None,
    )
    if unique and unique.window is not None:
        job.unique_until = Job.UniqueUntil.WINDOW
        job.unique_expires_at = now + timedelta(seconds=seconds_of(unique.window))
    if concurrency := getattr(task, "concurrency", None):
        job.concurrency_limit = concurrency.n
        if not is_later:
            # It has to wait for a place first.
            job.state = Job.State.BLOCKED
    if rate := getattr(task, "rate", None):
        job.rate_seconds, job.rate_burst = rate.seconds, rate.burst
    return job


def _key(task: AnyTask, rule: Limit | Rate, arguments: Mapping[str, Any]) -> str:
    """One that people can read, where it is short enough."""
    chosen = _chosen(task, rule.by, arguments) if rule.by else {}
    name = rule.key or task.module_path
    key = f"{name} {dumps(chosen, sort_keys=True)}" if chosen else name
    return key if len(key) <= KEY_LENGTH else sha256(key.encode()).hexdigest()


def checked_arguments(task: AnyTask, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as they are stored. Raises BadArguments, ArgumentsTooLarge."""
    # A first argument that the worker will give has to be counted.
    context = [None] if task.takes_context else []
    try:
        _signature(task.func).bind(*context, *args, **kwargs)
    except TypeError as error:
        raise BadArguments(f"{task.module_path}: {error}.") from None
    try:
        arguments: dict[str, Any] = plain(
            {"args": list(args), "kwargs": dict(kwargs)}, limit=settings.max_argument_bytes
        )
        return arguments
    except OverflowError as error:
        raise ArgumentsTooLarge(f"{task.module_path}: {error}; store the data and pass its key.") from None
    except RecursionError:
        raise BadArguments(
            f"{task.module_path}: these arguments are nested too deeply, or endlessly."
        ) from None
    except (TypeError, ValueError) as error:
        raise BadArguments(f"{task.module_path}: {error}.") from None


def _unique_key(task: AnyTask, unique: Unique, arguments: Mapping[str, Any]) -> str:
    chosen = _chosen(task, unique.by, arguments)
    return sha256(f"{task.module_path} {dumps(chosen, sort_keys=True)}".encode()).hexdigest()


def unique_key_of(job: Job) -> str | None:
    """The key that a job lays claim to; None if it does not, or if its task is unknown here."""
    try:
        task = task_at(job.task)
        unique: Unique | None = getattr(task, "unique", None)
        return _unique_key(task, unique, job.args) if unique else None
    except (UnknownTask, TypeError):
        return None


def _chosen(task: AnyTask, names: Sequence[str], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the named arguments, or of all."""
    bound = _signature(task.func).bind(
        *([None] if task.takes_context else []), *arguments["args"], **arguments["kwargs"]
    )
    bound.apply_defaults()
    context = next(iter(bound.arguments), None) if task.takes_context else None
    return {name: bound.arguments[name] for name in names or bound.arguments if name != context}


def _insert_unique(job: Job, *, replace: bool) -> Job:
    jobs = Job.objects.using(database())
    if job.unique_expires_at is not None:
        _let_go_of_expired([job.unique_key])
    while True:
        jobs.bulk_create([job], ignore_conflicts=True)
        holder = jobs.filter(unique_key=job.unique_key).first()
        if holder is not None:
            if replace and holder.pk != job.pk:
                _replace(holder, job)
            return holder
        if jobs.filter(pk=job.pk).exists():
            return job


def _replace(holder: Job, job: Job) -> None:
    """Let the job that waits take over what the later one would have been."""
    changes = {name: getattr(job, name) for name in REPLACED}
    Job.objects.using(database()).filter(pk=holder.pk, state__in=Job.WAITING).update(**changes)
    holder.refresh_from_db()


REPLACED = (
    "args", "headers", "queue", "priority", "state", "run_at", "publish_at", "unique_expires_at",
    "concurrency_key", "concurrency_limit", "rate_key", "rate_seconds", "rate_burst",
)  # fmt: skip


def _let_go_of_expired(keys: Iterable[str | None]) -> None:
    """Take their keys from those whose window is over."""
    holders = Job.objects.using(database()).filter(unique_key__in=sorted({key for key in keys if key}))
    holders.filter(unique_expires_at__lte=timezone.now()).update(unique_key=None)


def _announce(task: AnyTask, rows: Sequence[Row], state: int) -> None:
    metrics.increment("jobs.enqueued", len(rows), queue=task.queue_name)
    if keys := {row.concurrency_key for row in rows if row.concurrency_key}:
        promote_later(keys)
    if state == Job.State.READY:
        ids = [row.id for row in rows]
        transaction.on_commit(partial(announce, task.queue_name, ids), using=database())
