from __future__ import annotations

from concurrent.futures import Future
from datetime import timedelta
from queue import SimpleQueue
from threading import Event, Thread, get_ident
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections
from django.utils import timezone

from svc_infra_django.jobs import enqueue_many, turn
from svc_infra_django.jobs.models import Job, JobAttempt
from svc_infra_django.jobs.turn import Outcome
from svc_infra_django.jobs.worker import MOST_AHEAD, JobWorker, ThreadPool, drain, write_apart
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


def test_an_outcome_that_the_database_refuses_does_not_hold_up_the_others() -> None:
    enqueue_many(work.add, [[1], [2], [3]])
    worker = JobWorker()
    first, second, third = turn.take_turn([], worker=worker.id, queues=["default"], room=3)
    worker._unwritten = [
        Outcome(first, Job.State.SUCCEEDED),
        Outcome(second, 99),  # type: ignore[arg-type]  # what no constraint lets through
        Outcome(third, Job.State.SUCCEEDED),
    ]

    write_apart(worker._unwritten, worker=worker.id)

    states = [Job.objects.get(pk=job.pk).state for job in (first, second, third)]
    assert states == [Job.State.SUCCEEDED, Job.State.FAILED, Job.State.SUCCEEDED]
    assert Job.objects.get(pk=second.pk).error.endswith("IntegrityError")
    assert not worker._unwritten


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


def test_a_thread_is_started_only_when_all_others_are_busy() -> None:
    pool = ThreadPool(1000)
    done: Future[int]
    threads = set()
    for _ in range(100):
        done = Future()
        pool.submit(lambda done=done: done.set_result(get_ident()))
        threads.add(done.result(60))

    # Each may hold a connection. The second is there when a call comes before the last one's thread is back.
    assert len(threads) <= 2

    released, begun = Event(), [Future[None]() for _ in range(5)]
    for each in begun:
        pool.submit(lambda each=each: (each.set_result(None), released.wait(60)))
    for each in begun:
        each.result(60)
    released.set()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_other_processes_are_told_of_new_jobs(monkeypatch: pytest.MonkeyPatch, ledger: str) -> None:
    monkeypatch.setattr(turn, "_notified", {})
    stop, told = Event(), SimpleQueue[str]()
    thread = Thread(target=lambda: [told.put(queue) for queue in turn.notifications(stop)])
    thread.start()
    assert told.get(timeout=90) == "", "it listens"

    work.mail.enqueue(ledger, "hello")

    assert told.get(timeout=90) == "mail"
    stop.set()
    thread.join()


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_a_commit_of_another_process_ends_the_pause_of_a_worker() -> None:
    worker, waits, woken = JobWorker(), Event(), list[bool]()

    def wait() -> None:
        worker._commits = turn.commits()
        waits.set()
        woken.append(worker._wait(600))
        connections.close_all()

    thread = Thread(target=wait)
    thread.start()
    assert waits.wait(90)
    work.add.enqueue(1)

    thread.join(90)
    assert woken == [True]


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
