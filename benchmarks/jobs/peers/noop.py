"""The task of the peers behind Django's Tasks interface."""

from __future__ import annotations

from django.tasks import task

from benchmarks.jobs.drive import note


@task
def noop(number: int) -> None:
    note(number)
