"""Ours: the database's own workers, and on request Celery's. Also what only concerns ourselves."""

from __future__ import annotations

import os
import sys
import time
from typing import Any
from uuid import uuid4

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.jobs.project"
django.setup()

from django.db import connection  # noqa: E402  # Django must be set up first

from benchmarks.jobs import drive, tasks  # noqa: E402
from svc_infra_django.jobs import enqueue_many  # noqa: E402
from svc_infra_django.jobs.models import Job  # noqa: E402
from svc_infra_django.jobs.services.operating import pause  # noqa: E402

HISTORY = """
    INSERT INTO svc_jobs_job ({columns})
    SELECT {values} FROM svc_jobs_job j, generate_series(1, %s) AS n
"""
WAITING = """
    UPDATE svc_jobs_job SET state = 5, run_at = now() + interval '1 day', finished_at = NULL
    WHERE state = 2 AND id IN (SELECT id FROM svc_jobs_job WHERE state = 2 LIMIT 10000)
"""


snapshots: list[Any] = []


def worker(concurrency: int) -> list[str]:
    if os.environ.get("BENCH_ENGINE") == "celery":
        return [
            sys.executable, "-m", "celery", "-A", "benchmarks.jobs.celery_ours", "worker",
            "--queues", "default", "--concurrency", str(concurrency),
            "--loglevel", "ERROR", "--without-mingle", "--without-gossip",
        ]  # fmt: skip
    return [sys.executable, "-m", "django", "run_worker", "--concurrency", str(concurrency)]


def many(numbers: range) -> None:
    if "BENCH_SINGLE" in os.environ:
        from svc_infra_django.contrib.celery import engine

        engine.IDS_A_MESSAGE = 1
    enqueue_many(tasks.noop, [[number] for number in numbers])


def write_history() -> None:
    """As many finished rows as BENCH_HISTORY says, copies of one job."""
    count = int(os.environ.get("BENCH_HISTORY", "0"))
    if os.environ.get("BENCH_ENGINE") == "celery":
        import redis

        from benchmarks.jobs import celery_ours  # noqa: F401 - it publishes from now on

        redis.Redis.from_url(os.environ["REDIS_URL"]).flushdb()
    if count:
        pattern = Job.objects.get(pk=tasks.noop.enqueue(0).id)
        Job.objects.update(state=Job.State.SUCCEEDED, finished_at=pattern.created_at)
        fields = [field.column for field in Job._meta.concrete_fields]
        # In the order of time, as our own keys are, and before those of the jobs that are still to come.
        ordered = "('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
        values = [ordered if column == "id" else f"j.{column}" for column in fields]
        with connection.cursor() as cursor:
            cursor.execute(HISTORY.format(columns=", ".join(fields), values=", ".join(values)), [count])
            if "BENCH_WAITING" in os.environ:
                cursor.execute(WAITING)
            cursor.execute("VACUUM ANALYZE svc_jobs_job")
    if limited := int(os.environ.get("BENCH_LIMITED", "0")):
        pause("limited")
        enqueue_many(tasks.limited, [[number] for number in range(limited)])
    if "BENCH_SNAPSHOT" in os.environ:
        _hold_a_snapshot()


def _hold_a_snapshot() -> None:
    """Keep a transaction open until this process ends: no row that dies meanwhile can be cleaned away."""
    import psycopg

    snapshots.append(psycopg.connect(os.environ["DATABASE_URL"], dbname=drive.postgresql("ours")["NAME"]))
    snapshots[0].isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    snapshots[0].execute("SELECT count(*) FROM svc_jobs_job")


def enqueue_rate(count: int) -> float:
    """Jobs a second by `enqueue_many`."""
    started = time.perf_counter()
    enqueue_many(tasks.noop, [[number] for number in range(count)])
    return count / (time.perf_counter() - started)


def unnest_rate(count: int) -> float:
    """Rows a second by a statement that is written for it."""
    sql = """
        INSERT INTO svc_jobs_job (id, args, queue, task, headers, backend, priority, state, created_at,
            attempt, max_attempts, crashes, epoch, tenant, error, traceback, publishes)
        SELECT d.id, d.args, 'default', 'benchmarks.jobs.tasks.noop', '{}', 'default', 0, 0, now(),
            0, 5, 0, 0, '', '', '', 0
        FROM unnest(%s::uuid[], %s::jsonb[]) AS d(id, args)
    """
    started = time.perf_counter()
    for start in range(0, count, 1000):
        numbers = range(start, start + 1000)
        arguments = [f'{{"args": [{number}], "kwargs": {{}}}}' for number in numbers]
        with connection.cursor() as cursor:
            cursor.execute(sql, [[uuid4() for _ in numbers], arguments])
    return count / (time.perf_counter() - started)


def enqueue_ms(count: int) -> float:
    """Milliseconds of one `.enqueue`."""
    started = time.perf_counter()
    for number in range(count):
        tasks.noop.enqueue(number)
    return (time.perf_counter() - started) / count * 1000


def create_ms(count: int) -> float:
    """Milliseconds of one `Model.objects.create` of the same row."""
    pattern = Job.objects.get(pk=tasks.noop.enqueue(0).id)
    values = {field.attname: getattr(pattern, field.attname) for field in Job._meta.concrete_fields}
    del values["id"]
    started = time.perf_counter()
    for _ in range(count):
        Job.objects.create(**values)
    return (time.perf_counter() - started) / count * 1000


def raw_rate(count: int) -> float:
    """Jobs a second by a loop that does nothing but claim and acknowledge a hundred at a time."""
    import psycopg

    enqueue_many(tasks.noop, [[number] for number in range(count)])
    turn = """
        WITH done AS (
            UPDATE svc_jobs_job SET state = 2, finished_at = now() WHERE id = ANY(%s) AND state = 1),
        pick AS MATERIALIZED (SELECT id FROM svc_jobs_job WHERE state = 0 AND queue = 'default'
            ORDER BY priority DESC, id LIMIT 100 FOR UPDATE SKIP LOCKED)
        UPDATE svc_jobs_job j SET state = 1, epoch = epoch + 1, attempt = attempt + 1, attempted_at = now(),
            started_at = now(), worker_id = gen_random_uuid()
        FROM pick WHERE j.id = pick.id RETURNING j.id, j.task, j.args
    """
    name = drive.postgresql("ours")["NAME"]
    with psycopg.connect(os.environ["DATABASE_URL"], dbname=name, autocommit=True) as server:
        done: list[object] = []
        started = time.perf_counter()
        while rows := server.execute(turn, [done], prepare=True).fetchall():
            done = [row[0] for row in rows]
        return count / (time.perf_counter() - started)


ALONE = {
    "enqueue-rate": enqueue_rate,
    "unnest-rate": unnest_rate,
    "enqueue-ms": enqueue_ms,
    "create-ms": create_ms,
    "raw-rate": raw_rate,
}

if __name__ == "__main__":
    if sys.argv[1] in ALONE:
        drive.fresh_database()
        ALONE[sys.argv[1]](100)
        print(ALONE[sys.argv[1]](int(sys.argv[2])))
    else:
        drive.main(
            worker=worker, enqueue_many=many, enqueue=lambda number: tasks.noop.enqueue(number),
            prepare=write_history,
        )  # fmt: skip
