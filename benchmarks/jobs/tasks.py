"""Our jobs that do nothing."""

from __future__ import annotations

from benchmarks.jobs.drive import note
from svc_infra_django.jobs import task


@task
def noop(number: int) -> None:
    note(number)


@task(queue="limited", unique=True, concurrency=1, rate="1/d")
def limited(number: int) -> None:
    """All but one of these are blocked, and the one waits in a queue that is paused."""
