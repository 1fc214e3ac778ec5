"""What Django's Tasks interface promises of a backend that says it supports everything."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.utils import timezone

from svc_infra_django.jobs.compat import (
    InvalidTask,
    TaskError,
    TaskResultDoesNotExist,
    TaskResultStatus,
    task_backends,
    task_finished,
    tasks_logger,
)
from svc_infra_django.jobs.models import Job
from svc_infra_django.jobs.services.operating import cancel
from svc_infra_django.jobs.worker import drain

try:
    from django.tasks import task as django_task
    from django.tasks.exceptions import InvalidTaskBackend, TaskResultMismatch
except ImportError:  # before Django 6.0
    from django_tasks import task as django_task
    from django_tasks.exceptions import InvalidTaskBackendError as InvalidTaskBackend
    from django_tasks.exceptions import TaskResultMismatch

pytestmark = pytest.mark.django_db


@django_task
def plain(a: int, b: int = 1) -> dict[str, int]:
    return {"sum": a + b}


@django_task(takes_context=True)
def plain_with_context(context: Any) -> list[Any]:
    return [context.attempt, context.task_result.id, context.task_result.status]


@django_task(priority=10)
async def plain_async(a: int) -> int:
    return a * 2


@django_task
def plain_failing() -> None:
    raise KeyError("missing")


@django_task()
def plain_exiting() -> None:
    raise SystemExit("leaving")


@django_task()
def plain_anything(*args: Any, **kwargs: Any) -> None: ...


@django_task()
def plain_unserialisable() -> Any:
    return lambda: True


def run_to_the_end() -> None:
    """All attempts, however long their backoff is."""
    while drain(timezone.now() + timedelta(days=1)):
        pass


def test_tasks_of_djangos_own_decorator_run() -> None:
    sums, doubled = plain.enqueue(1, b=2), plain_async.enqueue(4)
    told = plain_with_context.enqueue()

    assert drain() == 3

    for result in (sums, doubled, told):
        result.refresh()
    assert sums.return_value == {"sum": 3}
    assert doubled.return_value == 8
    assert told.return_value == [1, told.id, "RUNNING"]


def test_a_task_knows_its_name_and_can_be_called_without_the_queue() -> None:
    assert plain.name == "plain"
    assert plain.module_path == f"{__name__}.plain"
    assert plain.call(1, b=4) == {"sum": 5}
    assert plain_async.call(2) == 4
    assert async_to_sync(plain_async.acall)(3) == 6
    assert async_to_sync(plain.acall)(3) == {"sum": 4}
    assert not Job.objects.exists()


def test_a_result_that_is_not_finished_has_no_value() -> None:
    result = plain.enqueue(1)

    assert result.status == TaskResultStatus.READY
    assert not result.is_finished
    assert (result.started_at, result.finished_at, result.last_attempted_at) == (None, None, None)
    assert (result.attempts, result.worker_ids, result.errors) == (0, [], [])
    with pytest.raises(ValueError, match="not finished"):
        _ = result.return_value


def test_a_result_is_found_by_its_id_by_the_task_and_by_the_backend() -> None:
    result = plain.enqueue(1, b=2)

    for found in (
        plain.get_result(result.id),
        task_backends["default"].get_result(result.id),
        async_to_sync(plain.aget_result)(result.id),
        async_to_sync(task_backends["default"].aget_result)(result.id),
    ):
        assert found == result
        assert (found.args, found.kwargs, found.backend, found.task) == ([1], {"b": 2}, "default", plain)


def test_the_result_of_another_task_is_refused() -> None:
    result = plain.enqueue(1)

    with pytest.raises(TaskResultMismatch):
        plain_async.get_result(result.id)
    with pytest.raises(TaskResultMismatch):
        async_to_sync(plain_async.aget_result)(result.id)


def test_a_result_that_was_deleted_does_not_exist_any_more() -> None:
    result = plain.enqueue(1)
    Job.objects.all().delete()

    with pytest.raises(TaskResultDoesNotExist):
        result.refresh()
    with pytest.raises(TaskResultDoesNotExist):
        async_to_sync(result.arefresh)()


def test_a_failure_keeps_its_class_and_its_traceback() -> None:
    result = plain_failing.enqueue()
    for _ in range(5):
        drain(timezone.now() + timedelta(days=1))

    async_to_sync(result.arefresh)()

    assert result.status == TaskResultStatus.FAILED
    assert result.is_finished
    assert result.attempts == len(result.worker_ids) == len(result.errors) == 5
    assert result.errors[-1].exception_class is KeyError
    assert "plain_failing" in result.errors[-1].traceback
    assert "KeyError: 'missing'" in result.errors[-1].traceback
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value


def test_a_cancelled_job_is_finished() -> None:
    result = plain.enqueue(1)
    cancel(result.id)

    result.refresh()

    assert result.is_finished
    assert result.finished_at is not None


@pytest.mark.parametrize("priority", [-101, 101, 1.5])
def test_priorities_beyond_the_range_are_refused(priority: float) -> None:
    with pytest.raises(InvalidTask, match="priority"):
        plain.using(priority=priority)


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(InvalidTask, match="aware"):
        plain.using(run_after=datetime(2030, 1, 1))


def test_a_queue_that_the_settings_do_not_list_is_refused(settings: Any) -> None:
    settings.TASKS = {"default": {**settings.TASKS["default"], "QUEUES": ["default", "bulk"]}}

    assert plain.using(queue_name="bulk").enqueue(1).task.queue_name == "bulk"
    with pytest.raises(InvalidTask, match="mail"):
        plain.using(queue_name="mail")


def test_two_aliases_keep_their_jobs_apart(settings: Any) -> None:
    backend = settings.TASKS["default"]
    settings.TASKS = {"default": backend, "other": backend}

    result = plain.using(backend="other").enqueue(1)

    assert result.backend == "other"
    assert task_backends["other"].get_result(result.id) == result
    with pytest.raises(TaskResultDoesNotExist):
        task_backends["default"].get_result(result.id)


def test_using_leaves_the_task_as_it_was() -> None:
    later = timezone.now() + timedelta(hours=1)

    changed = plain.using(priority=5, run_after=later)

    assert (changed.priority, changed.run_after, changed.func) == (5, later, plain.func)
    assert (plain.priority, plain.run_after) == (0, None)


def test_enqueueing_from_a_coroutine() -> None:
    result = async_to_sync(plain.aenqueue)(1, b=5)
    drain()

    async_to_sync(result.arefresh)()

    assert result.return_value == {"sum": 6}


@pytest.mark.parametrize("bad", [datetime(2030, 1, 1), object, {1, 2}, [{"inside": 1j}]], ids=str)
def test_an_argument_that_is_no_json_is_a_type_error(bad: Any) -> None:
    with pytest.raises(TypeError, match="Unsupported type"):
        plain_anything.enqueue(bad)
    with pytest.raises(TypeError, match="Unsupported type"):
        async_to_sync(plain_anything.aenqueue)(name=bad)
    assert not Job.objects.exists()


def test_a_result_that_is_no_json_fails_the_task_with_a_type_error() -> None:
    heard: list[Any] = []

    def hear(task_result: Any, **_: Any) -> None:
        heard.extend(task_result.errors)

    result = plain_unserialisable.enqueue()
    task_finished.connect(hear)
    try:
        drain()
    finally:
        task_finished.disconnect(hear)
    result.refresh()

    assert result.status == TaskResultStatus.FAILED
    assert [error.exception_class for error in (*result.errors, *heard)] == [TypeError, TypeError]
    assert "Unsupported type" in result.errors[0].traceback
    assert result.finished_at >= result.started_at >= result.enqueued_at


def test_a_task_that_wants_to_exit_has_failed() -> None:
    result = plain_exiting.enqueue()
    run_to_the_end()

    result.refresh()

    assert result.status == TaskResultStatus.FAILED
    assert {error.exception_class for error in result.errors} == {SystemExit}
    assert result.errors[0].traceback.endswith("SystemExit: leaving\n")


def test_whatever_became_of_it_a_result_is_of_the_task_that_was_enqueued() -> None:
    ids = [plain_failing.enqueue().id, plain_unserialisable.enqueue().id, plain.enqueue(1).id]
    drain()
    assert [plain_failing.get_result(ids[0]).task, plain.get_result(ids[2]).task] == [plain_failing, plain]
    run_to_the_end()

    tasks = [task_backends["default"].get_result(pk).task for pk in ids]

    assert tasks == [plain_failing, plain_unserialisable, plain]


def test_a_finished_result_tells_all_that_the_interface_asks_for() -> None:
    result = plain_anything.enqueue(1, two=[3, {"four": None}])
    drain()
    result.refresh()

    assert (result.status, result.is_finished, result.return_value) == ("SUCCESSFUL", True, None)
    assert result.enqueued_at <= result.started_at <= result.last_attempted_at <= result.finished_at
    assert (result.args, result.kwargs) == ([1], {"two": [3, {"four": None}]})
    assert (result.attempts, result.errors) == (1, [])
    assert (result.task, result.backend) == (plain_anything, "default")


def test_what_becomes_of_a_task_is_in_djangos_own_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger=tasks_logger.name):
        result = plain.enqueue(1)
        drain()

    told = [record.getMessage() for record in caplog.records if record.name == tasks_logger.name]
    assert [word in line for word, line in zip(("enqueued", "RUNNING", "SUCCESSFUL"), told, strict=True)] == [
        True
    ] * 3
    assert all(result.id in line and "None" not in line for line in told)


def test_a_task_is_asked_again_whether_it_is_valid_when_it_is_enqueued(settings: Any) -> None:
    elsewhere = plain.using(queue_name="bulk")
    settings.TASKS = {"default": {**settings.TASKS["default"], "QUEUES": ["default"]}}

    with pytest.raises(InvalidTask, match="bulk"):
        elsewhere.enqueue(1)
    with pytest.raises(InvalidTask, match="bulk"):
        async_to_sync(elsewhere.aenqueue)(1)
    assert not Job.objects.exists()


def test_a_backend_that_is_not_there_is_refused(settings: Any) -> None:
    settings.TASKS = {**settings.TASKS, "missing": {"BACKEND": "does.not.exist"}}
    for alias in ("unknown", "missing"):
        with pytest.raises(InvalidTaskBackend):
            plain.using(backend=alias)

    settings.TASKS = {}
    with pytest.raises(InvalidTaskBackend):
        plain.enqueue(1)


def test_a_backend_told_to_take_no_coroutines_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = task_backends["default"]
    monkeypatch.setattr(backend, "supports_async_task", False)

    with pytest.raises(InvalidTask, match="async"):
        backend.validate_task(plain_async)


def test_what_is_no_function_of_a_module_is_no_task() -> None:
    for function in (any, task_backends["default"].check, lambda: None):
        with pytest.raises(InvalidTask):
            django_task()(function)
    with pytest.raises(InvalidTask, match="context"):
        django_task(takes_context=True)(plain.func)


def test_the_class_of_an_error_is_one_of_an_exception_that_can_be_imported() -> None:
    with pytest.raises(ValueError, match=r"subprocess\.run"):
        _ = TaskError(exception_class_path="subprocess.run", traceback="").exception_class
    with pytest.raises(ImportError):
        _ = TaskError(exception_class_path="does.not.exist", traceback="").exception_class
