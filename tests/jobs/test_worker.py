from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from svc_infra_django.jobs.models import Job, JobAttempt
from svc_infra_django.jobs.worker import drain
from tests.jobs import work

pytestmark = pytest.mark.django_db


def test_a_job_runs_and_keeps_its_result() -> None:
    result = work.add.enqueue(2, b=3)

    assert drain() == 1

    result.refresh()
    assert result.return_value == 5
    assert result.attempts == 1
    assert not JobAttempt.objects.exists()


def test_an_async_job_runs() -> None:
    result = work.aadd.enqueue(2)

    drain()

    result.refresh()
    assert result.return_value == 3


def test_a_failing_job_is_tried_again_until_its_attempts_are_used_up(ledger: str) -> None:
    work.fail.enqueue(ledger)

    assert drain(timezone.now() + timedelta(hours=1)) == 3

    job = Job.objects.get()
    assert job.state == Job.State.FAILED
    assert [attempt.outcome for attempt in job.attempts.all()] == ["retried", "retried", "failed"]
    assert job.error == "tests.jobs.work.Shaky"
    assert "Shaky: again" in job.traceback
    assert work.read(ledger) == ["failed"] * 3
