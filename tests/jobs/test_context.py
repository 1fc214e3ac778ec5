"""What a task with `takes_context=True` is given."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connections
from django.utils import timezone

from svc_infra_django.identifiers import uuid7
from svc_infra_django.jobs import cancel, turn
from svc_infra_django.jobs.decorators import TaskContext
from svc_infra_django.jobs.models import Effect, Job
from svc_infra_django.jobs.services.operating import prune
from svc_infra_django.jobs.worker import drain
from tests.jobs import work
from tests.jobs.conftest import wait_until

pytestmark = pytest.mark.django_db


def test_progress_is_written_while_the_job_runs_and_says_so_in_words_that_can_be_kept(ledger: str) -> None:
    work.crawl.enqueue(ledger, 3)

    drain()

    job = Job.objects.get()
    assert job.progress == {"n": 0.0, "total": 3.0, "note": "crawling \ufffd ?", "attempt": 1}
    assert (job.shown_progress, job.progress_percent) == (None, None)  # it does not run any more


@pytest.mark.parametrize(
    ("n", "total", "percent"), [(1, 3, 33), (5, 3, 100), (-1, 3, 0), (1, 0, None), (1, None, None)]
)
def test_progress_in_percent(n: float, total: float | None, percent: int | None) -> None:
    job = Job(state=Job.State.RUNNING, attempt=2, progress={"n": n, "total": total, "note": "", "attempt": 2})

    assert job.progress_percent == percent


@pytest.mark.parametrize("told", [(float("nan"),), (1, float("inf")), ("x",), (None,)])
def test_what_is_no_number_is_no_progress(told: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, ValueError)):
        context().progress(*told)


def context(**fields: Any) -> TaskContext:
    return TaskContext(task_result=None, **fields)


def test_whoever_lost_the_job_tells_nothing_of_it() -> None:
    work.add.enqueue(1)
    (stale,) = turn.take_turn([], worker=uuid7(), queues=["default"], room=1)
    cancel(stale.pk)

    turn.write_progress([(stale, {"n": 1.0, "total": None, "note": ""})])

    assert Job.objects.get().progress is None


def test_outside_of_a_worker_a_context_does_nothing() -> None:
    outside = context()

    outside.progress(1, 2)
    with outside.once("key") as is_first:
        assert is_first
    assert (outside.cancelled, outside.fire_at) == (False, None)


def test_something_is_done_once_however_often_the_job_runs(ledger: str) -> None:
    work.charge_once.enqueue(ledger, "ada", fail_in=[1], fail_after=[2])

    drain(timezone.now() + timedelta(hours=1))

    # The first attempt was undone with its key, the second kept both, the third found them.
    assert work.read(ledger) == ["1 True", "2 True", "3 False"]
    assert list(Group.objects.values_list("name", flat=True)) == ["ada 2"]


def test_the_key_is_of_the_task(ledger: str) -> None:
    Effect.objects.create(task="another", key="charge:ada", job_id=uuid7())

    work.charge_once.enqueue(ledger, "ada", [], [])
    work.charge_once.enqueue(ledger, "ada", [], [])
    drain()

    assert work.read(ledger) == ["1 True", "1 False"]


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_a_key_that_cannot_be_kept_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="1 to 200"):
        context().once(key)


def test_effects_are_forgotten_in_the_end(ledger: str) -> None:
    work.charge_once.enqueue(ledger, "ada", [], [])
    drain()

    prune()
    assert Effect.objects.count() == 1
    prune(now=timezone.now() + timedelta(days=91))
    assert Effect.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_of_many_that_come_at_the_same_moment_one_is_the_first() -> None:
    work.add.enqueue(1)
    job, barrier, firsts = Job.objects.get(), Barrier(6), list[bool]()

    def come() -> None:
        try:
            barrier.wait(20)
            with turn.first_effect(job, "key") as is_first:
                time.sleep(0.01)
                firsts.append(is_first)
        finally:
            connections.close_all()

    threads = [Thread(target=come) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(firsts) == [False] * 5 + [True]


def test_a_running_job_tells_its_progress_and_learns_that_it_was_cancelled(
    worker: Callable[..., Any], ledger: str
) -> None:
    worker(watch_seconds=0.1, heartbeat_seconds=200.0).ready()
    sync, asynchronous = work.crawl.enqueue(ledger, 500), work.acrawl.enqueue(ledger)

    wait_until(lambda: [job.progress and job.progress["n"] > 0 for job in Job.objects.all()] == [True] * 2)
    assert Job.objects.get(pk=sync.id).progress_percent is not None

    cancel(sync.id)
    cancel(asynchronous.id)
    wait_until(lambda: "noticed" in work.read(ledger))
    assert set(Job.objects.values_list("state", flat=True)) == {Job.State.CANCELLED}
