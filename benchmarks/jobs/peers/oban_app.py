"""oban-py: jobs claimed in batches and acknowledged together."""

from __future__ import annotations

import asyncio
import os
import sys
from urllib.parse import urlsplit

from oban import Oban, job
from oban.schema import install_sql

from benchmarks.jobs import drive

NAME = "bench_jobs_oban"
CONNECT = urlsplit(os.environ["DATABASE_URL"])._replace(scheme="postgresql", path=f"/{NAME}").geturl()


@job(queue="default")
async def noop(number: int) -> None:
    drive.note(number)


def worker(concurrency: int) -> list[str]:
    return [
        sys.executable, "-m", "oban", "start", "--dsn", CONNECT, "--queues", f"default:{concurrency}",
        "--cron-modules", "benchmarks.jobs.peers.oban_app", "--log-level", "error",
    ]  # fmt: skip


def fresh() -> None:
    import psycopg

    drive.fresh_postgresql(NAME)
    with psycopg.connect(CONNECT) as connection:
        connection.execute(install_sql())


def many(numbers: range) -> None:
    # By the name under which the worker finds it, and not as a part of __main__.
    from benchmarks.jobs.peers.oban_app import noop

    asyncio.run(_enqueue([noop.new(number) for number in numbers]))


def one(number: int) -> None:
    many(range(number, number + 1))


async def _enqueue(jobs: list[object]) -> None:
    pool = await Oban.create_pool(CONNECT)
    async with Oban(pool=pool) as oban:
        await oban.enqueue_many(jobs)
    await pool.close()


if __name__ == "__main__":
    drive.main(worker=worker, enqueue_many=many, enqueue=one, fresh=fresh)
