"""PgQueuer: jobs claimed in batches, over asyncpg, which its own documentation takes for the fastest."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import asyncpg
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from benchmarks.jobs import drive

NAME = "bench_jobs_pgqueuer"
CONNECT = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{NAME}").geturl()


async def work(concurrency: int) -> None:
    queuer = PgQueuer(AsyncpgDriver(await asyncpg.connect(CONNECT)))

    @queuer.entrypoint("noop")
    async def noop(job: Job) -> None:
        drive.note(int(job.payload or b"0"))

    await queuer.run(batch_size=concurrency)


def worker(concurrency: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.jobs.peers.pgqueuer_app", "work", str(concurrency)]


def fresh() -> None:
    drive.fresh_postgresql(NAME)
    asyncio.run(_with_queries(lambda queries: queries.install()))


def many(numbers: range) -> None:
    payloads = [str(number).encode() for number in numbers]
    count = len(payloads)
    asyncio.run(
        _with_queries(lambda queries: queries.enqueue(["noop"] * count, payloads, [0] * count)),
    )


def one(number: int) -> None:
    asyncio.run(_with_queries(lambda queries: queries.enqueue("noop", str(number).encode())))


async def _with_queries(ask: Callable[[Queries], Awaitable[object]]) -> None:
    connection = await asyncpg.connect(CONNECT)
    try:
        await ask(Queries(AsyncpgDriver(connection)))
    finally:
        await connection.close()


if __name__ == "__main__" and sys.argv[1] == "work":
    asyncio.run(work(int(sys.argv[2])))
elif __name__ == "__main__":
    drive.main(worker=worker, enqueue_many=many, enqueue=one, fresh=fresh)
