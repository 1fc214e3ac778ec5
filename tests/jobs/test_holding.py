from __future__ import annotations

from concurrent.futures import Future
from threading import Event, Thread, get_ident

import pytest
from django.db import connection, connections

from svc_infra_django.jobs import enqueue_many, holding, turn
from svc_infra_django.jobs.holding import ThreadPool, close_connections, write_apart
from svc_infra_django.jobs.models import Job
from svc_infra_django.jobs.turn import Outcome
from svc_infra_django.jobs.worker import JobWorker
from tests.jobs import work


@pytest.mark.django_db
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


@pytest.mark.django_db(transaction=True)
def test_connections_are_looked_after_once_a_thread_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = list[str]()

    def work_with_a_connection() -> None:
        monkeypatch.setattr(holding, "close_old_connections", lambda: looks.append(stage))
        stage = "before"
        close_connections()
        stage = "after"
        connection.ensure_connection()
        close_connections()
        connections.close_all()

    thread = Thread(target=work_with_a_connection)
    thread.start()
    thread.join()

    assert looks == ["after"]


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
