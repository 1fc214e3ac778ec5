"""Our jobs that do nothing."""

from __future__ import annotations

from benchmarks.jobs.drive import note
from svc_infra_django.jobs import task


@task
def noop(number: int) -> None:
    note(number)
