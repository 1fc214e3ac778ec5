from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest.mock import Mock
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db import DataError, OperationalError
from django.utils import timezone

from svc_infra_django.jobs import enqueue_many, rescue, turn, waking
from svc_infra_django.jobs.holding import MOST_AHEAD, write_apart
from svc_infra_django.jobs.management.supervisor import Supervisor
from svc_infra_django.jobs.models import Job, JobAttempt
from svc_infra_django.jobs.turn import Outcome
from svc_infra_django.jobs.worker import JobWorker, drain
from tests.jobs import work

pytestmark = pytest.mark.django_db


def test_a_job_runs_and_keeps_its_result() -> None:
    result = work.add.enqueue(2, b=3)

    assert drain() == 1

    result.refresh()
    assert result.return_value == 5
    assert result.attempts == 1
    assert not JobAttempt.objects.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--queues", "mail,mial"], "no queue mial; there are default, mail"),
        (["--concurrency", "0"], "less than one"),
        (["--concurrency", "many"], "invalid"),
    ],
    ids=str,
)
def test_a_worker_that_could_never_work_does_not_start(arguments: list[str], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        call_command("run_worker", *arguments)


def test_jobs_are_held_ahead_as_far_as_they_are_short(svc_settings: Any) -> None:
    svc_settings(jobs={"prefetch_seconds": 0.02, "concurrency": 2})
    worker = JobWorker()
    assert worker._ahead() == 0, "nothing is known yet"

    worker._prefetch._mean_seconds = 0.001
    assert worker._ahead() == 40
    worker._prefetch._mean_seconds = 1e-9
    assert worker._ahead() == MOST_AHEAD
    worker._prefetch._mean_seconds = 1.0
    assert worker._ahead() == 0

    svc_settings(jobs={"prefetch_seconds": 0})
    worker._prefetch._mean_seconds = 1e-9
    assert worker._ahead() == 0


def test_jobs_whose_worker_died_once_are_not_held_ahead() -> None:
    enqueue_many(work.add, [[number] for number in range(4)])
    Job.objects.update(crashes=1)
    worker = JobWorker(concurrency=1)
    worker._free = 0
    worker._prefetch._mean_seconds = 1e-9

    assert worker._turn()

    assert not worker._backlog and worker._ahead() == 0
    write_apart(worker._unwritten, worker=worker.id)
    assert {(job.state, job.attempt) for job in Job.objects.all()} == {(Job.State.READY, 0)}


def test_a_database_that_goes_while_outcomes_are_written_apart_does_not_end_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work.add.enqueue(1)
    answers = iter([DataError("no such text"), OperationalError("gone")])
    worker = JobWorker()
    (job,) = turn.take_turn([], worker=worker.id, queues=["default"], room=1)
    unwritten = [Outcome(job, Job.State.SUCCEEDED)]

    def fail(*args: Any, **kwargs: Any) -> None:
        raise next(answers)

    with monkeypatch.context() as patched:
        patched.setattr(turn, "take_turn", fail)
        write_apart(unwritten, worker=worker.id)

    write_apart(unwritten, worker=worker.id)
    assert (Job.objects.get().state, unwritten) == (Job.State.FAILED, [])


def test_staging_takes_no_lock_while_nothing_is_due(django_assert_num_queries: Any) -> None:
    work.add.using(run_after=timezone.now() + timedelta(hours=1)).enqueue(1)

    with django_assert_num_queries(1):
        assert JobWorker()._stage_once() > 0

    Job.objects.update(run_at=timezone.now() - timedelta(seconds=1))
    assert JobWorker()._stage_once() == 0
    assert Job.objects.get().state == Job.State.READY


@pytest.mark.sqlite
def test_a_database_that_fails_while_nothing_happens_does_not_end_the_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker, failures = JobWorker(), list[int]()

    def failing() -> int:
        worker.stop()
        raise OperationalError("disk I/O error")

    monkeypatch.setattr(waking, "commits", failing)
    monkeypatch.setattr(worker, "_wait_out", lambda error, count: failures.append(count))

    worker._work()

    assert failures == [1]


def test_a_process_that_dies_while_the_database_is_away_is_replaced_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unavailable(worker: UUID, *, max_crashes: int) -> int:
        raise OperationalError("the database is starting up")

    monkeypatch.setattr(rescue, "bury", unavailable)
    supervisor = Supervisor(1, {})
    (place,) = supervisor.places
    place.process = died = Mock(exitcode=-9, pid=7)

    supervisor._end(place, died)

    assert place.process is None
    assert place.begin_at > 0
    died.close.assert_called_once()


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
