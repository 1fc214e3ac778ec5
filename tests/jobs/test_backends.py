from __future__ import annotations

import sys
from datetime import timedelta
from time import sleep
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command
from django.utils import timezone

from svc_infra_django.identifiers import uuid7
from svc_infra_django.jobs import turn
from svc_infra_django.jobs.compat import (
    InvalidTask,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)
from svc_infra_django.jobs.decorators import JobTask, periodic, task
from svc_infra_django.jobs.errors import BadSchedule, BadTask
from svc_infra_django.jobs.models import Job
from svc_infra_django.jobs.runner import arun, run
from svc_infra_django.jobs.services.operating import cancel
from svc_infra_django.jobs.worker import drain
from tests.jobs import work

pytestmark = pytest.mark.django_db


def module_level() -> None: ...


async def amodule_level() -> None: ...


def test_the_backend_can_do_all_that_the_interface_knows() -> None:
    backend = task_backends["default"]

    assert backend.supports_defer and backend.supports_async_task
    assert backend.supports_get_result and backend.supports_priority
    assert not list(backend.check())


def test_a_result_follows_its_job() -> None:
    result = work.add.enqueue(1, b=2)
    assert result.status == TaskResultStatus.READY
    assert (result.args, result.kwargs, result.attempts) == ([1], {"b": 2}, 0)

    drain()
    result.refresh()

    assert result.status == TaskResultStatus.SUCCESSFUL
    assert (result.return_value, result.attempts, result.errors) == (3, 1, [])
    assert result.enqueued_at <= result.started_at <= result.finished_at


def test_a_failed_result_tells_of_every_attempt() -> None:
    result = work.fail.enqueue()
    drain(timezone.now() + timedelta(hours=1))

    result.refresh()

    assert result.status == TaskResultStatus.FAILED
    assert result.attempts == 3
    assert [error.exception_class for error in result.errors] == [work.Shaky] * 3
    assert "Shaky: again" in result.errors[0].traceback
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value


def test_a_job_between_two_attempts_is_ready() -> None:
    result = work.raise_named.enqueue("Shaky")
    drain()

    result.refresh()

    assert (result.status, result.attempts, len(result.errors)) == (TaskResultStatus.READY, 1, 1)


def test_a_result_knows_what_its_task_was_enqueued_with() -> None:
    later = timezone.now() + timedelta(hours=1)
    task = work.add.using(priority=7, queue_name="mail", run_after=later)

    result = work.add.get_result(task.enqueue(1).id)

    assert result.task == task


def test_djangos_own_log_has_the_traceback_of_a_failed_task() -> None:
    found: list[Any] = []

    def look(**_: Any) -> None:
        found.append(sys.exc_info()[0])

    task_finished.connect(look)
    try:
        work.raise_named.enqueue("Other")
        drain()
    finally:
        task_finished.disconnect(look)

    assert found == [RuntimeError]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("made", [work.add, work.aadd])
def test_receivers_of_the_signals_may_use_the_orm(made: Any) -> None:
    counts: list[int] = []

    def count(**_: Any) -> None:
        counts.append(Job.objects.count())

    task_started.connect(count)
    task_finished.connect(count)
    try:
        made.enqueue(1)
        (job,) = turn.take_turn([], worker=uuid7(), queues=["default"], room=1)
        outcome = async_to_sync(arun)(job, made) if made.is_async else run(job, made)
    finally:
        task_started.disconnect(count)
        task_finished.disconnect(count)

    assert outcome.state == Job.State.SUCCEEDED, outcome.traceback
    assert counts == [1, 1]


def test_a_cancelled_job_is_failed_to_django() -> None:
    result = work.add.enqueue(1)
    cancel(result.id)

    result.refresh()

    assert (result.status, result.errors) == (TaskResultStatus.FAILED, [])


@pytest.mark.parametrize("identifier", ["nonsense", "019ab39e-0000-7000-8000-000000000000"])
def test_a_result_that_is_not_there_does_not_exist(identifier: str) -> None:
    with pytest.raises(TaskResultDoesNotExist):
        work.add.get_result(identifier)


def test_the_signals_are_sent() -> None:
    heard: list[tuple[str, Any]] = []
    receivers = []
    for signal, name in ((task_enqueued, "enqueued"), (task_started, "started"), (task_finished, "finished")):

        def hear(sender: Any, task_result: Any, name: str = name, **_: Any) -> None:
            heard.append((name, task_result.status))

        receivers.append((signal, hear))
        signal.connect(hear)
    try:
        work.add.enqueue(1)
        drain()
    finally:
        for signal, hear in receivers:
            signal.disconnect(hear)

    assert heard == [
        ("enqueued", TaskResultStatus.READY),
        ("started", TaskResultStatus.RUNNING),
        ("finished", TaskResultStatus.SUCCESSFUL),
    ]


def test_higher_priorities_run_first_and_equals_in_order(ledger: str) -> None:
    for word, priority in (("c", 0), ("a", 5), ("d", 0), ("b", 5), ("e", -100)):
        work.record.using(priority=priority).enqueue(ledger, word)

    drain()

    assert work.read(ledger) == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"timeout": 0},
        {"timeout": timedelta(0)},
        {"priority": 101},
        {"takes_context": True},
    ],
    ids=str,
)
def test_a_task_that_cannot_work_is_refused_where_it_is_declared(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidTask):
        task(**options)(module_level)


def test_an_atomic_coroutine_is_refused() -> None:
    with pytest.raises(BadTask, match="plain function"):
        task(atomic=True)(amodule_level)


def test_a_function_inside_a_function_is_refused() -> None:
    def inner() -> None: ...

    with pytest.raises(InvalidTask):
        task(inner)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({}, "either a cron"),
        ({"cron": "* * * * *", "every": 5}, "either a cron"),
        ({"cron": "0 0 30 2 *"}, "Bad day-of-month"),
        ({"every": 0}, "Between 0.1 seconds"),
        ({"cron": "* * * * *", "tz": "X"}, "no time zone 'X'"),
    ],
)
def test_a_period_that_never_comes_is_refused_where_it_is_declared(options: dict[str, Any], why: str) -> None:
    with pytest.raises((BadTask, BadSchedule), match=why):
        periodic(**options)


def test_using_refuses_what_it_does_not_know() -> None:
    with pytest.raises(TypeError, match="colour"):
        work.add.using(colour="red")


def test_code_written_for_django_runs_unchanged() -> None:
    from svc_infra_django.jobs import compat

    plain = task_backends["default"].task_class(
        func=work.add.func,
        priority=0,
        queue_name="default",
        backend="default",
        takes_context=False,
        run_after=None,
    )

    assert isinstance(plain, JobTask) and isinstance(plain, compat.Task)
    result = plain.enqueue(4)
    drain()
    result.refresh()
    assert result.return_value == 5


def test_prune_jobs_tells_how_many(capsys: pytest.CaptureFixture[str], svc_settings: Any) -> None:
    svc_settings(jobs={"keep_succeeded_hours": 1e-6})
    work.add.enqueue(1)
    drain()
    sleep(0.01)

    call_command("prune_jobs", "--limit", "5")

    assert "1 jobs deleted" in capsys.readouterr().out
