"""Runs one attempt of one job and says how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_ulong, py_object, pythonapi
from inspect import iscoroutinefunction
from threading import Lock, Timer, get_ident
from time import perf_counter
from traceback import format_exception
from typing import Any

from asgiref.sync import async_to_sync, sync_to_async
from django.utils import timezone

from ..observability.context import carrying
from ..observability.logging import get_logger
from ..observability.metrics import metrics
from ..observability.redaction import redacted_text
from ..observability.tracing import span
from .compat import (
    AnyResult,
    AnyTask,
    TaskError,
    TaskResult,
    TaskResultStatus,
    path_of,
    task_backends,
    task_finished,
    task_started,
)
from .conf import settings
from .decorators import JobTask, TaskContext
from .errors import BadResult, JobTimeout
from .models import Job
from .payloads import plain, storable
from .retries import Decision, Verdict, decide
from .turn import Outcome, database, immediate, settle_one

logger = get_logger("svc_infra_django.jobs")

TRACEBACK_LENGTH = 32_768
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
        task=task,
        id=str(job.pk),
        status=STATUSES.get(Job.State(job.state), TaskResultStatus.READY),
        enqueued_at=job.created_at,
        started_at=job.started_at,
        last_attempted_at=job.attempted_at,
        finished_at=job.finished_at,
        args=job.args["args"],
        kwargs=job.args["kwargs"],
        backend=job.backend,
        errors=[TaskError(exception_class_path=a.error, traceback=a.traceback) for a in earlier if a.error],
        worker_ids=workers,
    )
    object.__setattr__(result, "_return_value", job.result)
    return result


def run(job: Job, task: AnyTask, *, is_lost: Callable[[], bool] = lambda: False) -> Outcome:
    """Run the attempt in this thread, an async body in a loop of its own. Never raises."""
    with _context(job):
        attempt = Attempt(job, task, is_lost)
        try:
            attempt.begin(result_of(job, task))
            return attempt.succeeded(_run_sync(attempt))
        except BaseException as error:  # frontier: whatever a job raises is its outcome
            return attempt.failed(error)


async def arun(job: Job, task: AnyTask, *, is_lost: Callable[[], bool] = lambda: False) -> Outcome:
    """Run the attempt of an async body in the running loop. Raises CancelledError if the job is lost."""
    with _context(job):
        attempt = Attempt(job, task, is_lost)
        try:
            attempt.begin(
                await sync_to_async(result_of)(job, task) if job.attempt > 1 else result_of(job, task)
            )
            return attempt.succeeded(checked(await _limited(attempt)))
        except BaseException as error:  # frontier: whatever a job raises is its outcome
            if isinstance(error, asyncio.CancelledError) and is_lost():
                raise
            return attempt.failed(error)


class Attempt:
    """One attempt under way."""

    def __init__(self, job: Job, task: AnyTask, is_lost: Callable[[], bool]) -> None:
        self.job, self.task, self.is_lost = job, task, is_lost
        self.timeout: float | None = getattr(task, "timeout", None)
        self.is_atomic: bool = getattr(task, "atomic", False)
        self.result: AnyResult | None = None
        self.args: list[Any] = job.args["args"]
        self.kwargs: dict[str, Any] = job.args["kwargs"]
        self.started = perf_counter()

    def begin(self, result: AnyResult) -> None:
        self.result = result
        if self.task.takes_context:
            context = TaskContext(
                task_result=result,
                job_id=str(self.job.pk),
                attempt_number=self.job.attempt,
                is_lost=self.is_lost,
            )
            self.args = [context, *self.args]
        fell_due_at = max(self.job.created_at, self.job.run_at or self.job.created_at)
        waited = (timezone.now() - fell_due_at).total_seconds()
        metrics.observe("jobs.wait", max(0.0, waited), queue=self.job.queue)
        _tell(task_started, result)

    def succeeded(self, value: Any) -> Outcome:
        outcome = self.outcome(Job.State.SUCCEEDED, result=value, is_settled=self.is_atomic)
        logger.info("job succeeded", duration_ms=round(outcome.seconds * 1000, 1))
        self._finish(outcome)
        return outcome

    def failed(self, error: BaseException) -> Outcome:
        if isinstance(error, Lost):
            return self.outcome(Job.State.READY)
        decision = self._judge(error)
        path = path_of(type(error))[:255]
        story = storable(redacted_text("".join(format_exception(error))))[-TRACEBACK_LENGTH:]
        outcome = self.outcome(VERDICTS[decision.verdict], error=path, traceback=story, delay=decision.delay)
        log = logger.warning if decision.verdict is Verdict.RETRY else logger.error
        log("job failed", verdict=decision.verdict.value, error=path, delay_seconds=round(decision.delay, 1))
        if self.result is not None and outcome.state in Job.FINAL:
            self.result.errors.append(TaskError(exception_class_path=path, traceback=story))
            self._finish(outcome)
        return outcome

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

    def _finish(self, outcome: Outcome) -> None:
        object.__setattr__(self.result, "_return_value", outcome.result)
        object.__setattr__(self.result, "status", STATUSES[outcome.state])
        object.__setattr__(self.result, "finished_at", timezone.now())
        _tell(task_finished, self.result)


VERDICTS = {
    Verdict.RETRY: Job.State.SCHEDULED,
    Verdict.FAIL: Job.State.FAILED,
    Verdict.DISCARD: Job.State.CANCELLED,
}


@contextmanager
def _context(job: Job) -> Iterator[None]:
    with (
        carrying(job.headers, job_id=str(job.pk), task=job.task, attempt=job.attempt),
        span("job", **{"job.id": str(job.pk), "job.task": job.task, "job.attempt": job.attempt}),
    ):
        yield


def _tell(signal: Any, result: Any) -> None:
    sender = type(task_backends[result.backend])
    for receiver, error in signal.send_robust(sender, task_result=result):
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
    if iscoroutinefunction(attempt.task.func):
        return async_to_sync(_limited)(attempt)
    with _deadline(attempt.timeout):
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
def _deadline(seconds: float | None) -> Iterator[None]:
    """Raise JobTimeout in this thread after `seconds`, as soon as Python code runs in it."""
    if seconds is None:
        yield
        return
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
    try:
        return plain(value, limit=settings.max_result_bytes)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadResult(f"The task returned what cannot be stored: {error}.") from None
