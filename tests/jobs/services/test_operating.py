from __future__ import annotations

import logging
import re
from datetime import timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from svc_infra_django.identifiers import uuid7, uuid7_at
from svc_infra_django.jobs.errors import (
    JobNotCancellable,
    JobNotDiscardable,
    JobNotFound,
    JobNotRetryable,
    QueueNotFound,
)
from svc_infra_django.jobs.models import Job
from svc_infra_django.jobs.services import operating
from svc_infra_django.jobs.services.operating import (
    cancel,
    discard,
    duplicate,
    pause,
    prune,
    resume,
    retry,
    set_retention,
)
from svc_infra_django.jobs.turn import Outcome, take_turn
from svc_infra_django.jobs.worker import drain
from tests.conftest import held_up
from tests.jobs import work

pytestmark = pytest.mark.django_db


def dead_job() -> Job:
    result = work.fail.enqueue()
    drain(timezone.now() + timedelta(hours=1))
    return Job.objects.get(pk=result.id)


def test_a_dead_job_keeps_its_error_and_can_be_retried() -> None:
    job = dead_job()
    assert "Shaky: again" in job.traceback

    retried = retry(job.pk)
    assert (retried.state, retried.finished_at) == (Job.State.READY, None)
    drain(timezone.now() + timedelta(hours=1))

    job.refresh_from_db()
    assert (job.state, job.attempt, job.max_attempts) == (Job.State.FAILED, 6, 6)
    assert job.attempts.count() == 6


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_job_that_is_retried_while_it_is_pruned_stays() -> None:
    job = dead_job()
    pruned: list[int] = []

    with transaction.atomic():
        retry(job.pk)
        pruner = held_up(lambda: pruned.append(prune(now=timezone.now() + timedelta(days=400))))
    pruner.join()

    assert pruned == [0]
    job.refresh_from_db()
    assert (job.state, job.attempts.count()) == (Job.State.READY, 3)


def test_however_often_a_job_is_retried_its_attempts_can_be_counted() -> None:
    job = dead_job()
    Job.objects.update(attempt=32_760, max_attempts=32_760)

    assert retry(job.pk).max_attempts == 32_763
    Job.objects.update(attempt=32_766, state=Job.State.FAILED, finished_at=timezone.now())
    assert retry(job.pk).max_attempts == 32_767


def test_only_what_ended_badly_can_be_retried() -> None:
    job = Job.objects.get(pk=work.add.enqueue(1).id)

    with pytest.raises(JobNotRetryable, match="ready"):
        retry(job.pk)


def test_a_waiting_job_that_is_cancelled_never_runs(ledger: str) -> None:
    ready = work.record.enqueue(ledger)
    later = work.record.using(run_after=timezone.now() + timedelta(hours=1)).enqueue(ledger)

    cancel(ready.id)
    cancel(later.id)

    assert drain(timezone.now() + timedelta(hours=2)) == 0
    assert set(Job.objects.values_list("state", flat=True)) == {Job.State.CANCELLED}
    with pytest.raises(JobNotCancellable, match="cancelled"):
        cancel(ready.id)


def test_cancelling_lets_go_of_the_unique_key() -> None:
    first = work.only_once.enqueue("a")

    cancel(first.id)

    assert work.only_once.enqueue("a").id != first.id


def test_who_is_retried_has_its_unique_key_again() -> None:
    first = work.only_once.enqueue("a")
    cancel(first.id)

    retry(first.id)

    assert work.only_once.enqueue("a").id == first.id
    cancel(first.id)
    second = work.only_once.enqueue("a")
    with pytest.raises(JobNotRetryable, match="one at a time"):
        retry(first.id)
    assert second.id != first.id


@pytest.mark.parametrize("identifier", ["nonsense", "019ab39e-0000-7000-8000-000000000000"])
def test_a_job_that_is_not_there_is_not_found(identifier: str) -> None:
    for act in (cancel, retry, duplicate, discard):
        with pytest.raises(JobNotFound):
            act(identifier)


def test_a_paused_queue_starts_nothing_until_it_is_resumed(ledger: str) -> None:
    work.mail.enqueue(ledger, "mail")
    work.record.enqueue(ledger, "default")

    pause("mail")
    drain()
    assert work.read(ledger) == ["default"]

    resume("mail")
    drain()
    assert work.read(ledger) == ["default", "mail"]


def test_a_queue_that_nobody_knows_cannot_be_paused() -> None:
    with pytest.raises(QueueNotFound):
        pause("mial")


def test_pruning_deletes_what_was_kept_long_enough_and_nothing_else(svc_settings: Any) -> None:
    svc_settings(jobs={"keep_succeeded_hours": 1, "keep_failed_hours": 10})
    work.add.enqueue(1)
    drain()
    failed = dead_job()
    waiting = work.add.enqueue(1)
    Job.objects.update(created_at=timezone.now() - timedelta(days=400))

    assert prune() == 0
    assert prune(now=timezone.now() + timedelta(hours=2)) == 1
    assert set(Job.objects.values_list("pk", flat=True)) == {failed.pk, Job.objects.get(pk=waiting.id).pk}
    assert prune(now=timezone.now() + timedelta(hours=20)) == 1
    assert prune(now=timezone.now() + timedelta(days=4000)) == 0


def test_a_queue_may_keep_its_jobs_for_another_time(ledger: str) -> None:
    work.mail.enqueue(ledger, "x")
    work.add.enqueue(1)
    drain()

    set_retention("mail", keep_succeeded_hours=100.0)
    assert prune(now=timezone.now() + timedelta(hours=25)) == 1
    assert Job.objects.get().queue == "mail"
    set_retention("mail", keep_succeeded_hours=0.5)
    assert prune(now=timezone.now() + timedelta(hours=1)) == 1
    with pytest.raises(QueueNotFound):
        set_retention("mial", keep_failed_hours=1.0)


def test_pruning_looks_no_further_than_where_the_young_jobs_begin() -> None:
    work.add.enqueue(1)
    drain()

    with CaptureQueriesContext(connection) as captured:
        assert prune() == 0

    bound = uuid7_at(timezone.now() - timedelta(hours=23)).hex[:8]
    asked = [query["sql"].replace("-", "") for query in captured if "finished_at" in query["sql"]]
    assert len(asked) == 3
    assert all(re.search(r'"id" < \'([0-9a-f]{8})', sql)[1] <= bound for sql in asked)  # type: ignore[index]


@pytest.mark.django_db(transaction=True)
def test_of_a_cancel_and_an_end_that_race_one_wins() -> None:
    """Neither overwrites the other, and neither is refused for the lock of the other."""
    rounds, barrier = 20, Barrier(2)
    claimed: list[Job] = []
    refused: list[Exception] = []

    def cancel_each() -> None:
        try:
            for _ in range(rounds):
                barrier.wait(20)
                barrier.wait(20)
                try:
                    cancel(claimed[0].pk)
                except JobNotCancellable as error:
                    refused.append(error)
                barrier.wait(20)
        finally:
            connections.close_all()

    thread = Thread(target=cancel_each)
    thread.start()
    ends: list[tuple[int, Any]] = []
    for number in range(rounds):
        barrier.wait(20)
        work.add.enqueue(number)
        claimed[:] = take_turn([], worker=uuid7(), queues=["default"], room=1)
        barrier.wait(20)
        take_turn([Outcome(claimed[0], Job.State.SUCCEEDED, result=7)], worker=uuid7(), queues=[], room=0)
        barrier.wait(20)
        job = Job.objects.get(pk=claimed[0].pk)
        ends.append((job.state, job.result))
    thread.join()

    assert set(ends) <= {(Job.State.SUCCEEDED, 7), (Job.State.CANCELLED, None)}
    assert ends.count((Job.State.SUCCEEDED, 7)) == len(refused)


def test_a_job_is_made_once_more_for_the_same_owner(user: Any) -> None:
    first = work.only_once.using(owner=user, tenant="acme", priority=5).enqueue("a")

    again = duplicate(first.id)

    assert str(again.pk) != first.id
    assert (again.owner, again.tenant, again.priority, again.args) == (
        user,
        "acme",
        5,
        {"args": ["a"], "kwargs": {}},
    )
    assert again.headers["duplicate_of"] == first.id
    assert drain() == 2


def test_what_another_engine_runs_is_published_when_it_is_made_ready(svc_settings: Any) -> None:
    svc_settings(jobs={"engines": {"default": "celery"}})
    job = dead_job()

    assert retry(job.pk).publish_at is not None
    assert duplicate(job.pk).publish_at is not None


def test_a_job_is_discarded_with_its_attempts_unless_it_runs(caplog: pytest.LogCaptureFixture) -> None:
    dead, running = dead_job(), Job.objects.get(pk=work.add.enqueue(1).id)
    take_turn([], worker=uuid7(), queues=["default"], room=1)

    with caplog.at_level(logging.INFO, logger="svc_infra_django.jobs"):
        discard(dead.pk)
    with pytest.raises(JobNotDiscardable):
        discard(running.pk)

    assert list(Job.objects.all()) == [running]
    assert str(dead.pk) in caplog.text


def test_the_place_of_a_job_that_is_discarded_is_anothers(
    django_capture_on_commit_callbacks: Any,
) -> None:
    first, second = (work.add.enqueue(n) for n in (1, 2))
    Job.objects.update(concurrency_key="k", concurrency_limit=1)
    Job.objects.filter(pk=second.id).update(state=Job.State.BLOCKED)

    with django_capture_on_commit_callbacks(execute=True):
        discard(first.id)

    assert Job.objects.get().state == Job.State.READY


def test_who_is_overtaken_while_it_is_retried_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    first = work.only_once.enqueue("a")
    cancel(first.id)

    def overtake(path: str) -> int:
        work.only_once.enqueue("a")
        return 1

    # After it was looked whether another such job waits, and before the key is written.
    monkeypatch.setattr(operating, "_attempts_of", overtake)
    with pytest.raises(JobNotRetryable, match="Another such job"):
        retry(first.id)

    assert Job.objects.get(pk=first.id).state == Job.State.CANCELLED
