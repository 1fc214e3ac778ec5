"""django-q2 with its ORM broker: a process for each worker, fed by one that claims."""

from __future__ import annotations

import os
import sys

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.jobs.peers.django_project"
django.setup()

from benchmarks.jobs import drive  # noqa: E402  # Django must be set up first


def worker(concurrency: int) -> list[str]:
    os.environ["BENCH_WORKERS"] = str(concurrency)
    return [sys.executable, "-m", "django", "qcluster"]


def many(numbers: range) -> None:
    from django.db import transaction

    with transaction.atomic():
        for number in numbers:
            one(number)


def one(number: int) -> None:
    from django_q.tasks import async_task

    async_task("benchmarks.jobs.drive.note", number)


if __name__ == "__main__":
    drive.main(worker=worker, enqueue_many=many, enqueue=one)
