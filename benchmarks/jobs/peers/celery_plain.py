"""Plain Celery with Redis, without a result backend: what the broker loses is lost."""

from __future__ import annotations

import os
import sys

from celery import Celery

from benchmarks.jobs import drive

app = Celery("plain", broker=os.environ["REDIS_URL"])


@app.task(name="noop", ignore_result=True)
def noop(number: int) -> None:
    drive.note(number)


def worker(concurrency: int) -> list[str]:
    return [
        sys.executable, "-m", "celery", "-A", "benchmarks.jobs.peers.celery_plain", "worker",
        "--concurrency", str(concurrency), "--loglevel", "ERROR", "--without-mingle", "--without-gossip",
    ]  # fmt: skip


def many(numbers: range) -> None:
    with app.producer_or_acquire() as producer:
        for number in numbers:
            noop.apply_async((number,), producer=producer)


def fresh() -> None:
    import redis

    redis.Redis.from_url(os.environ["REDIS_URL"]).flushdb()


if __name__ == "__main__":
    drive.main(worker=worker, enqueue_many=many, enqueue=noop.delay, fresh=fresh)
