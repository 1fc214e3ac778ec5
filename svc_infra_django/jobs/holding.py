"""What a process has of the jobs that it claimed, whichever engine it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import groupby
from queue import SimpleQueue
from threading import Semaphore, Thread, local
from time import monotonic
from typing import Any
from uuid import UUID

from django.db import DataError, IntegrityError, close_old_connections
from django.db import Error as DatabaseFailure
from django.db.backends.signals import connection_created
from django.dispatch import receiver

from ..observability.logging import get_logger
from ..observability.metrics import metrics
from . import turn
from .compat import AnyTask
from .conf import settings
from .errors import UnknownTask
from .models import Job
from .runner import broken
from .throughput import tally
from .turn import Outcome

logger = get_logger("svc_infra_django.jobs")

MOST_AHEAD = 1024
HELD_SECONDS = 0.1
BEGUN_SECONDS = 0.05
MEAN_WEIGHT = 0.1
BUSY_POLL_SECONDS = 0.01


class Running:
    """A job in the hands of this process."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.loop: asyncio.AbstractEventLoop | None = None
        self.task: asyncio.Task[Outcome] | None = None
        self.is_lost = False
        self.has_slot = True
        self.is_given_up = False
        self.since = monotonic()
        self._overrun_at = float("inf")
        self._report: dict[str, Any] | None = None

    @property
    def key(self) -> tuple[UUID, int]:
        """With the epoch: a job that was taken away may come back while its first body still runs."""
        return self.job.pk, self.job.epoch

    def begin(self, task: AnyTask) -> None:
        """The body starts now, and the time that it has."""
        timeout = getattr(task, "timeout", None)
        if timeout is not None:
            self._overrun_at = monotonic() + timeout + settings.overrun_seconds

    def has_overrun(self) -> bool:
        return monotonic() > self._overrun_at

    def report(self, progress: dict[str, Any]) -> None:
        """Keep how far the job says it is, until somebody writes it down."""
        self._report = progress

    def take_report(self) -> dict[str, Any] | None:
        """What the job said since the last time, if anything."""
        report, self._report = self._report, None
        return report

    def lose(self) -> None:
        """The job is not ours any more: stop it if it can be stopped, and write nothing of it."""
        self.is_lost = True
        if self.loop is not None and self.task is not None:
            self.loop.call_soon_threadsafe(self.task.cancel)


class Prefetch:
    """How many jobs to hold beyond the free slots: what runs in `prefetch_seconds`, by what jobs took.

    So jobs of microseconds share a commit, and a job of a second is left for a worker with a free slot.
    """

    def __init__(self) -> None:
        self._mean_seconds = settings.prefetch_seconds

    def size(self, *, slots: int = 1) -> int:
        if self._mean_seconds >= settings.prefetch_seconds:
            return 0
        return min(MOST_AHEAD, int(slots * settings.prefetch_seconds / max(self._mean_seconds, 1e-6)))

    def threads(self, count: int) -> int:
        """In how many threads to run `count` jobs, for all to have begun in BEGUN_SECONDS.

        Threads that run jobs of microseconds only wait for each other, and the claimer for all of them. They
        take longer then: were less time given, more threads would be thought needed, and make it worse.
        """
        return 1 + int(count * self._mean_seconds / BEGUN_SECONDS)

    def took(self, seconds: float) -> None:
        self._mean_seconds += (seconds - self._mean_seconds) * MEAN_WEIGHT

    def was_wrong(self) -> None:
        """Jobs wait behind slower ones than that: hold none for a while."""
        self._mean_seconds = max(self._mean_seconds, settings.prefetch_seconds)


class UnknownTasks:
    """Tasks that this process cannot import, and since when. Another release may know them."""

    def __init__(self) -> None:
        self._first_met: dict[str, float] = {}
        self._last_met: dict[str, float] = {}

    def excluded(self) -> list[str]:
        """Tasks to leave alone for the moment."""
        recent = monotonic() - settings.unknown_task_pause_seconds
        return sorted(path for path, met in self._last_met.items() if met > recent)

    def met(self, job: Job, error: UnknownTask) -> Outcome:
        """Leave the job for others, or fail it if its task has been unknown for too long."""
        now = monotonic()
        first = self._first_met.setdefault(job.task, now)
        self._last_met[job.task] = now
        logger.error("unknown task", task=job.task, job_id=str(job.pk))
        metrics.increment("jobs.unknown", task=job.task)
        if now - first > settings.unknown_task_grace_seconds:
            return Outcome(
                job, Job.State.FAILED, error="svc_infra_django.jobs.errors.UnknownTask", traceback=str(error)
            )
        return Outcome(job, Job.State.READY)


class _Thread(local):
    has_connected = False


_thread = _Thread()


@receiver(connection_created, dispatch_uid="svc_infra_django.jobs.holding")
def _note_connection(**_: object) -> None:
    _thread.has_connected = True


def close_connections() -> None:
    """Close those of this thread that are broken or too old, as Django does between two requests."""
    # To look for them takes longer than many a job, and most threads that run such jobs never had one.
    if _thread.has_connected:
        close_old_connections()


class ThreadPool:
    """Daemon threads that run what is submitted. The standard pool would wait for them at exit, for ever.

    A thread is started only when all of them are busy: each may come to hold a connection to the database.
    """

    def __init__(self, size: int) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._size = size
        self._started = 0
        self._idle = Semaphore(0)

    def submit(self, call: Callable[[], None]) -> None:
        if not self._idle.acquire(blocking=False) and self._started < self._size:
            self._started += 1
            Thread(target=self._serve, name=f"svc-jobs runner {self._started}", daemon=True).start()
        self._calls.put(call)

    def grow(self) -> None:
        """One of the threads will not be back, or late: let another one be started for it."""
        self._size += 1

    def _serve(self) -> None:
        while True:
            call = self._calls.get()
            try:
                call()
            except BaseException as error:  # frontier: the thread outlives whatever a job leaves behind
                logger.error("a runner failed outside its job", exc_info=error)
            self._idle.release()


def write_apart(outcomes: list[Outcome], *, worker: UUID) -> None:
    """Write each outcome by itself, and fail the job of the one that the database refuses.

    Together with it none could be written, and every job of this process would run for ever. What is written
    is taken off the list.
    """
    while outcomes:
        try:
            try:
                turn.take_turn(outcomes[:1], worker=worker, queues=(), room=0)
            except (DataError, IntegrityError) as error:
                outcomes[0] = broken(outcomes[0].job, error)
                turn.take_turn(outcomes[:1], worker=worker, queues=(), room=0)
        except DatabaseFailure:
            return
        count([outcomes.pop(0)])


def count(outcomes: Iterable[Outcome]) -> None:
    """Tell the metrics and the chart how attempts ended."""
    for (queue, task, state), group in groupby(outcomes, key=_kind):
        if state != Job.State.READY:
            alike = list(group)
            name = "retried" if state == Job.State.SCHEDULED else state.label
            metrics.increment("jobs.finished", len(alike), queue=queue, task=task, outcome=name)
            # They ended one shortly after the other: since the turn before this.
            tally.add(queue, state, at=alike[-1].ended_at, count=len(alike))
            timer = metrics.series("timer", "jobs.run", queue=queue, task=task)
            for outcome in alike:
                timer.observe(outcome.seconds)


def _kind(outcome: Outcome) -> tuple[str, str, Job.State]:
    return outcome.job.queue, outcome.job.task, outcome.state
