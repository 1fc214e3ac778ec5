"""Runs one attempt of one job and says how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Context
from copy import copy
from ctypes import c_ulong, py_object, pythonapi
from datetime import datetime
from functools import lru_cache
from inspect import iscoroutinefunction
from logging import ERROR, INFO, getLogger
from threading import Lock, Timer, get_ident
from time import perf_counter
from traceback import format_exception
from typing import Any, TypeAlias

from asgiref.sync import async_to_sync, sync_to_async
from structlog.contextvars import bind_contextvars

from ..observability.context import CARRIED
from ..observability.logging import get_logger
from ..observability.redaction import redacted_text
from ..observability.tracing import span
from .compat import (
    TASK_LOGS,
    AnyResult,
    AnyTask,
    TaskError,
    TaskResult,
    TaskResultStatus,
    path_of,
    task_backends,
    task_finished,
    task_started,
    tasks_logger,
)
from .conf import settings
from .decorators import JobTask, TaskContext
from .errors import BadResult, JobTimeout
from .models import Job
from .payloads import plain, storable
from .retries import Decision, Verdict, decide
from .turn import Outcome, database, first_effect, immediate, settle_one, write_progress

logger = get_logger("svc_infra_django.jobs")
std_logger = getLogger("svc_infra_django.jobs")

TRACEBACK_LENGTH = 32_768
PROGRESS_SECONDS = 1.0
BAD_RESULT = path_of(BadResult)

# It looks through the wrappers of a function each time, for longer than a short job takes.
is_async = lru_cache(maxsize=1024)(iscoroutinefunction)

Report: TypeAlias = Callable[[dict[str, Any]], None]
STATUSES = {
    Job.State.RUNNING: TaskResultStatus.RUNNING,
    Job.State.SUCCEEDED: TaskResultStatus.SUCCESSFUL,
    Job.State.FAILED: TaskResultStatus.FAILED,
    Job.State.CANCELLED: TaskResultStatus.FAILED,
}


class Lost(Exception):
    """The job belongs to somebody else by now: what this attempt did in its transaction is undone."""


def result_of(job: Job, task: AnyTask) -> AnyResult:
    """The job as Django's TaskResult; earlier attempts are read from the database if there were any."""
    has_earlier = job.attempt > 1 or (job.attempt == 1 and job.state != Job.State.RUNNING)
    earlier = list(job.attempts.all()) if has_earlier else []
    workers = [str(attempt.worker_id) for attempt in earlier]
    if len(workers) < job.attempt:
        workers.append(str(job.worker_id))
    result: AnyResult = TaskResult(
        # A job that was tried again has the time of its next attempt there.
        task=_as_enqueued(task, job, run_after=None if earlier else job.run_at),
        id=str(job.pk),
        status=STATUSES.get(Job.State(job.state), TaskResultStatus.READY),
        enqueued_at=job.created_at,
        started_at=job.started_at,
        last_attempted_at=job.attempted_at,
        finished_at=job.finished_at,
        args=job.args["args"],
        kwargs=job.args["kwargs"],
        backend=job.backend,
        errors=[_task_error(attempt.error, attempt.traceback) for attempt in earlier if attempt.error],
        worker_ids=workers,
    )
    if job.state == Job.State.SUCCEEDED:
        object.__setattr__(result, "_return_value", job.result)
    return result


def _task_error(path: str, story: str) -> TaskError:
    """Django has no exception of its own for what it cannot store: to its users it is a TypeError."""
    return TaskError(
        exception_class_path="builtins.TypeError" if path == BAD_RESULT else path, traceback=story
    )


def _as_enqueued(task: AnyTask, job: Job, *, run_after: datetime | None) -> AnyTask:
    """The task with what `.using(...)` changed of it for this job."""
    changes = {
        "priority": job.priority,
        "queue_name": job.queue,
        "run_after": run_after,
        "backend": job.backend,
    }
    if all(getattr(task, name) == value for name, value in changes.items()):
        return task
    # Not `using`: a queue that TASKS does not list any more would be refused, and the job is here.
    changed = copy(task)
    for name, value in changes.items():
        object.__setattr__(changed, name, value)
    return changed


def run(
    job: Job, task: AnyTask, *, is_lost: Callable[[], bool] = lambda: False, report: Report | None = None
) -> Outcome:
    """Run the attempt in this thread, an async body in a loop of its own. Never raises.

    `report` takes the progress that the body tells; without it, it is written in this thread.
    """
    # A context of its own: the thread goes on to the next job, whatever this one binds and forgets.
    return Context().run(_run, job, task, is_lost, report)


def _run(job: Job, task: AnyTask, is_lost: Callable[[], bool], report: Report | None) -> Outcome:
    with _about(job):
        attempt = Attempt(job, task, is_lost, report)
        try:
            attempt.begin()
            _tell(task_started, attempt)
            outcome = attempt.succeeded(_run_sync(attempt))
        except BaseException as error:  # frontier: whatever a job raises is its outcome
            outcome = attempt.failed(error)
            if attempt.ended:
                # Here, where Django's log still finds the traceback.
                _tell(task_finished, attempt)
        else:
            _tell(task_finished, attempt)
        return outcome


async def arun(
    job: Job, task: AnyTask, *, is_lost: Callable[[], bool] = lambda: False, report: Report | None = None
) -> Outcome:
    """Run the attempt of an async body in the running loop. Raises CancelledError if the job is lost.

    Binds the job to the context, so it wants one of its own.
    """
    with _about(job):
        attempt = Attempt(job, task, is_lost, report)
        try:
            if job.attempt > 1:
                # The database is asked for its earlier attempts.
                await sync_to_async(attempt.begin)()
            else:
                attempt.begin()
            await _atell(task_started, attempt)
            outcome = attempt.succeeded(checked(await _limited(attempt)))
        except BaseException as error:  # frontier: whatever a job raises is its outcome
            if isinstance(error, asyncio.CancelledError) and is_lost():
                raise
            outcome = attempt.failed(error)
            if attempt.ended:
                await _atell(task_finished, attempt)
        else:
            await _atell(task_finished, attempt)
        return outcome


def broken(job: Job, error: BaseException) -> Outcome:
    """The outcome of a job that could not even be begun."""
    logger.error("a runner failed outside its job", job_id=str(job.pk), task=job.task, exc_info=error)
    return Outcome(job, Job.State.FAILED, error=path_of(type(error))[:255], traceback=_story(error))


def timed_out(job: Job, task: AnyTask, *, seconds: float) -> Outcome:
    """The outcome of a job that did not stop at its timeout, after `seconds`, by the policy of its task."""
    attempt = Attempt(job, task, lambda: True, None)
    attempt.started -= seconds
    return attempt.failed(JobTimeout("The job did not stop at its timeout."))


class Attempt:
    """One attempt under way."""

    def __init__(self, job: Job, task: AnyTask, is_lost: Callable[[], bool], report: Report | None) -> None:
        self.job, self.task, self.is_lost = job, task, is_lost
        self.report = report or self._write_progress
        self.reported_at = float("-inf")
        self.timeout: float | None = getattr(task, "timeout", None)
        self.is_atomic: bool = getattr(task, "atomic", False)
        self._result: AnyResult | None = None
        self.has_begun = False
        self.ended: Outcome | None = None
        self.args: list[Any] = []
        self.kwargs: dict[str, Any] = {}
        self.started = perf_counter()

    @property
    def result(self) -> AnyResult:
        """The job as Django's TaskResult, which most attempts are not asked for."""
        if self._result is None:
            self._result = result_of(self.job, self.task)
        if self.ended is not None:
            object.__setattr__(self._result, "_return_value", self.ended.result)
            object.__setattr__(self._result, "status", STATUSES[self.ended.state])
            object.__setattr__(self._result, "finished_at", self.ended.ended_at)
        return self._result

    def begin(self) -> None:
        self.args, self.kwargs = self.job.args["args"], self.job.args["kwargs"]
        if self.job.attempt > 1 or self.task.takes_context:
            # With earlier attempts the database is asked for them: here, where it may fail.
            self._result = result_of(self.job, self.task)
        if self.task.takes_context:
            context = TaskContext(
                task_result=self.result,
                job_id=str(self.job.pk),
                attempt_number=self.job.attempt,
                is_lost=self.is_lost,
                headers=self.job.headers,
                report=self.report,
                claim=lambda key: first_effect(self.job, key),
            )
            self.args = [context, *self.args]
        self.has_begun = True

    def succeeded(self, value: Any) -> Outcome:
        self.ended = self.outcome(Job.State.SUCCEEDED, result=value, is_settled=self.is_atomic)
        if std_logger.isEnabledFor(INFO):
            logger.info("job succeeded", duration_ms=round(self.ended.seconds * 1000, 1))
        return self.ended

    def failed(self, error: BaseException) -> Outcome:
        if isinstance(error, Lost):
            return self.outcome(Job.State.READY)
        decision = self._judge(error)
        path = path_of(type(error))[:255]
        story = _story(error)
        outcome = self.outcome(VERDICTS[decision.verdict], error=path, traceback=story, delay=decision.delay)
        log = logger.warning if decision.verdict is Verdict.RETRY else logger.error
        log("job failed", verdict=decision.verdict.value, error=path, delay_seconds=round(decision.delay, 1))
        if self.has_begun and outcome.state in Job.FINAL:
            self.result.errors.append(_task_error(path, story))
            self.ended = outcome
        return outcome

    def _write_progress(self, progress: dict[str, Any]) -> None:
        now = perf_counter()
        if now - self.reported_at >= PROGRESS_SECONDS and not _in_event_loop():
            self.reported_at = now
            write_progress([(self.job, progress)])

    def outcome(self, state: Job.State, **fields: Any) -> Outcome:
        return Outcome(self.job, state, seconds=perf_counter() - self.started, **fields)

    def _judge(self, error: BaseException) -> Decision:
        try:
            return decide(
                error,
                attempt=self.job.attempt,
                # The body ran to its end; running it again would not help its result.
                max_attempts=1 if isinstance(error, BadResult) else self.job.max_attempts,
                backoff=getattr(self.task, "backoff", JobTask.backoff),
                retry_on=getattr(self.task, "retry_on", None),
                discard_on=getattr(self.task, "discard_on", ()),
            )
        except Exception as broken:  # frontier: the policy is the project's code too
            logger.error("the retry policy of a task failed", exc_info=broken)
            return Decision(Verdict.FAIL)


VERDICTS = {
    Verdict.RETRY: Job.State.SCHEDULED,
    Verdict.FAIL: Job.State.FAILED,
    Verdict.DISCARD: Job.State.CANCELLED,
}


def _about(job: Job) -> AbstractContextManager[Any]:
    """Bind the job to the context, for good; returns a span for its attempt."""
    job_id = str(job.id)
    headers = job.headers if isinstance(job.headers, dict) else {}
    carried = {name: str(headers[name]) for name in CARRIED if headers.get(name)} if headers else {}
    bind_contextvars(**carried, job_id=job_id, task=job.task, attempt=job.attempt)
    return span("job", **{"job.id": job_id, "job.task": job.task, "job.attempt": job.attempt})


def _story(error: BaseException) -> str:
    return storable(redacted_text("".join(format_exception(error))))[-TRACEBACK_LENGTH:]


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _tell(signal: Any, attempt: Attempt) -> None:
    if _is_heard(signal, attempt):
        result = attempt.result
        _report(signal.send_robust(_sender(result), task_result=result))


async def _atell(signal: Any, attempt: Attempt) -> None:
    # Receivers may use the ORM, which refuses to work in the event loop's thread.
    if _is_heard(signal, attempt):
        result = attempt.result
        _report(await signal.asend_robust(_sender(result), task_result=result))


def _is_heard(signal: Any, attempt: Attempt) -> bool:
    """Whether anybody listens beside Django's own receivers, which only write to a log that may be off."""
    level = ERROR if attempt.ended and attempt.ended.state != Job.State.SUCCEEDED else INFO
    return tasks_logger.isEnabledFor(level) or any(entry[0][0] not in TASK_LOGS for entry in signal.receivers)


def _sender(result: Any) -> type:
    return type(task_backends[result.backend])


def _report(responses: Iterable[tuple[Any, Any]]) -> None:
    for receiver, error in responses:
        if isinstance(error, Exception):
            logger.error("a receiver of a task signal failed", receiver=repr(receiver), error=repr(error))


def _run_sync(attempt: Attempt) -> Any:
    if not attempt.is_atomic:
        return checked(_call(attempt))
    with immediate(database()):
        value = checked(_call(attempt))
        if not settle_one(attempt.outcome(Job.State.SUCCEEDED, result=value)):
            raise Lost
        return value


def _call(attempt: Attempt) -> Any:
    if is_async(attempt.task.func):
        return async_to_sync(_limited)(attempt)
    with nullcontext() if attempt.timeout is None else _deadline(attempt.timeout):
        return attempt.task.func(*attempt.args, **attempt.kwargs)


async def _limited(attempt: Attempt) -> Any:
    limit = asyncio.timeout(attempt.timeout)
    try:
        async with limit:
            return await attempt.task.func(*attempt.args, **attempt.kwargs)
    except TimeoutError:
        if limit.expired():
            raise JobTimeout from None
        raise


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raise JobTimeout in this thread after `seconds`, as soon as Python code runs in it."""
    thread, lock, is_over = get_ident(), Lock(), False

    def strike() -> None:
        with lock:
            if not is_over:
                pythonapi.PyThreadState_SetAsyncExc(c_ulong(thread), py_object(JobTimeout))

    timer = Timer(seconds, strike)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        with lock:
            is_over = True
            # One that was thrown but has not arrived must not hit the next job of this thread.
            pythonapi.PyThreadState_SetAsyncExc(c_ulong(thread), None)
        timer.cancel()


def checked(value: Any) -> Any:
    if value is None:
        return None
    try:
        return plain(value, limit=settings.max_result_bytes)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadResult(f"The task returned what cannot be stored: {error}.") from None
