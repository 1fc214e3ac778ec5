"""What Celery's child processes do for the jobs: run those that they are told of."""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from threading import Event, Lock, Thread, Timer
from time import monotonic
from uuid import UUID

from django.db import Error as DatabaseFailure
from django.db import connections
from django.db.models.functions import Now

from ...identifiers import uuid7
from ...jobs import turn
from ...jobs.conf import settings
from ...jobs.decorators import discover, task_at
from ...jobs.errors import UnknownTask
from ...jobs.models import Job, Worker
from ...jobs.runner import run
from ...jobs.turn import Outcome
from ...jobs.worker import HELD_SECONDS, Running, ThreadPool, UnknownTasks
from ...observability.logging import get_logger
from .duties import of_main_process

logger = get_logger("svc_infra_django.jobs")

WRITE_SECONDS = 0.02
MOST_THREADS = 1000


class Hands:
    """The jobs in the hands of this process, and the row that says it lives.

    They run in threads of our own: Celery closes the database connections of its own before and after each
    message, and to open one takes longer than a short job.
    """

    def __init__(self) -> None:
        self.id, self.pid = uuid7(), os.getpid()
        self.name = f"{of_main_process(os.getppid())}{self.pid}"
        self._threads = ThreadPool(MOST_THREADS)
        self._running: dict[tuple[UUID, int], Running] = {}
        self._unknown = UnknownTasks()
        self._claiming = Lock()
        self._has_strays = False
        self._ended = Event()
        discover()
        self._register()
        Thread(target=self._beat, name="svc-jobs heartbeat", daemon=True).start()

    def run(self, ids: Sequence[UUID]) -> None:
        """Claim those of the jobs that are still to be run, and run them one after another."""
        done: Future[None] = Future()
        self._threads.submit(partial(self._work, ids, done))
        done.result()

    def _work(self, ids: Sequence[UUID], done: Future[None]) -> None:
        try:
            self._run(self._claim(ids))
        except BaseException as error:  # frontier: Celery tells of it, the jobs are rescued or swept up
            done.set_exception(error)
        else:
            done.set_result(None)

    def _claim(self, ids: Sequence[UUID]) -> list[Running]:
        # The lock: what is claimed and not noted yet would look like a claim whose answer was lost.
        with self._claiming:
            try:
                claimed = turn.claim_these(ids, worker=self.id)
            except DatabaseFailure as error:
                logger.warning("published jobs could not be claimed", count=len(ids), error=repr(error))
                connections[turn.database()].close()
                self._has_strays = True
                return []
            taken = [Running(job) for job in claimed]
            self._running.update((running.key, running) for running in taken)
        return taken

    def _run(self, taken: Sequence[Running]) -> None:
        waiting = deque(taken)
        alarm = None
        if len(waiting) > 1:
            # Short jobs share a message; behind a longer one the rest is for whoever is free.
            alarm = Timer(HELD_SECONDS, self._give_back, [waiting])
            alarm.start()
        written = monotonic()
        outcomes: list[Outcome] = []
        while (running := _next(waiting)) is not None:
            outcomes += self._run_one(running)
            if monotonic() - written > WRITE_SECONDS or not waiting:
                self._write(outcomes)
                outcomes, written = [], monotonic()
        self._write(outcomes)
        if alarm is not None:
            alarm.cancel()
        for running in taken:
            self._running.pop(running.key, None)

    def _run_one(self, running: Running) -> list[Outcome]:
        try:
            task = task_at(running.job.task)
        except UnknownTask as error:
            outcome = self._unknown.met(running.job, error)
            return [replace(outcome, delay=settings.unknown_task_pause_seconds)]
        outcome = run(running.job, task, is_lost=partial(_is_lost, running))
        _tidy_connections()
        return [] if running.is_lost else [outcome]

    def _give_back(self, waiting: deque[Running]) -> None:
        """Let others have the jobs of a message that wait behind a longer one."""
        given = []
        while (running := _next(waiting)) is not None:
            given.append(Outcome(running.job, Job.State.READY))
        try:
            self._write(given)
        finally:
            connections.close_all()

    def _write(self, outcomes: Sequence[Outcome]) -> None:
        """Write them down, however long the database is away: nobody else can."""
        failures = 0
        while outcomes:
            try:
                turn.take_turn(outcomes, worker=self.id, queues=(), room=0)
                return
            except DatabaseFailure as error:
                failures += 1
                logger.warning("outcomes could not be written", failures=failures, error=repr(error))
                connections[turn.database()].close()
                self._ended.wait(min(5.0, 0.1 * 2 ** min(failures, 6)))

    def _register(self) -> None:
        Worker.objects.using(turn.database()).update_or_create(
            pk=self.id,
            defaults={
                "name": self.name,
                "host": socket.gethostname(),
                "pid": self.pid,
                "queues": ["celery"],
                "concurrency": 1,
                "heartbeat_at": Now(),
            },
        )

    def _beat(self) -> None:
        while not self._ended.wait(settings.heartbeat_seconds):
            try:
                me = Worker.objects.using(turn.database()).filter(pk=self.id)
                if not me.update(heartbeat_at=Now()):
                    logger.warning("this worker was taken for dead", worker=str(self.id))
                    self._register()
                running = [each for each in list(self._running.values()) if not each.is_lost]
                mine = turn.still_owned([each.job for each in running])
                for each in running:
                    if each.job.pk not in mine:
                        each.lose()
                if self._has_strays:
                    with self._claiming:
                        turn.hand_back_strays(worker=self.id, known=[pk for pk, _ in self._running])
                        self._has_strays = False
            except DatabaseFailure as error:
                logger.warning("heartbeat failed", error=repr(error))
                connections[turn.database()].close()
        connections.close_all()

    def sign_off(self) -> None:
        """The process ends: what it still runs is for others at once."""
        self._ended.set()
        with suppress(DatabaseFailure):
            Worker.objects.using(turn.database()).filter(pk=self.id).delete()


_here: list[Hands] = []
_here_lock = Lock()


def here() -> Hands:
    """The hands of this process."""
    with _here_lock:
        # A forked child starts with what its parent had.
        if not _here or _here[0].pid != os.getpid():
            _here[:] = [Hands()]
        return _here[0]


def sign_off() -> None:
    if _here and _here[0].pid == os.getpid():
        _here[0].sign_off()


def _next(waiting: deque[Running]) -> Running | None:
    # One step, so that of two threads only one has it.
    try:
        return waiting.popleft()
    except IndexError:
        return None


def _is_lost(running: Running) -> bool:
    return running.is_lost


def _tidy_connections() -> None:
    """Drop the connections that a job broke, and keep the others for the next."""
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred and not connection.is_usable():
            connection.close()
        else:
            connection.errors_occurred = False
