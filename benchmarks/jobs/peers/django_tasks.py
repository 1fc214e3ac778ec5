"""django-tasks-db and django-ox: Django's Tasks interface over rows that are claimed one by one."""

from __future__ import annotations

import os
import sys

import django

os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.jobs.peers.django_project"
django.setup()

from benchmarks.jobs import drive  # noqa: E402  # Django must be set up first
from benchmarks.jobs.peers.noop import noop  # noqa: E402


def worker(concurrency: int) -> list[str]:
    command = [sys.executable, "-m", "django"]
    if os.environ["BENCH_PEER"] == "ox":
        return [*command, "ox_worker", "--concurrency", str(concurrency), "--interval", "0.01"]
    # It runs one at a time, whatever it is asked for.
    return [*command, "db_worker", "--queue-name", "default", "--interval", "0.01", "--no-startup-delay"]


def many(numbers: range) -> None:
    from django.db import transaction

    with transaction.atomic():
        for number in numbers:
            noop.enqueue(number)


if __name__ == "__main__":
    drive.main(worker=worker, enqueue_many=many, enqueue=lambda number: noop.enqueue(number))
