"""What Celery's child processes do for the jobs: run those that they are told of."""

from __future__ import annotations

import atexit
import os
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from threading import Event, Lock, Thread
from time import monotonic
from uuid import UUID

from celery.worker import state
from django.db import DataError, IntegrityError, connections
from django.db import Error as DatabaseFailure
from django.db.models.functions import Now

from ...identifiers import uuid7
from ...jobs import turn
from ...jobs.conf import settings
from ...jobs.decorators import discover, task_at
from ...jobs.errors import UnknownTask
from ...jobs.holding import HELD_SECONDS, Running, UnknownTasks, count, write_apart
from ...jobs.models import Job, Worker
from ...jobs.runner import run, timed_out
from ...jobs.throughput import tally
from ...jobs.turn import Outcome
from ...observability.logging import get_logger
from ...observability.metrics import metrics
from .duties import closing, main
from .lanes import Lane

logger = get_logger("svc_infra_django.jobs")


class Hands:
    """The jobs in the hands of this process, and the row that says it lives."""

    def __init__(self) -> None:
        self.id, self.pid = uuid7(), os.getpid()
        self.name = f"{main.name}/{self.pid}"
        # In a pool of threads others work here too, and nobody may end the process.
        self._is_shared = self.pid == main.pid
        # One for each message that is at hand at the same time: in a process of Celery's own, one.
        self._lanes: list[Lane] = []
        self._free: list[Lane] = []
        self._running: dict[tuple[UUID, int], Running] = {}
        self._unknown = UnknownTasks()
        self._claiming, self._registering, self._signing_off = Lock(), Lock(), Lock()
        self._has_strays = False
        self._ended = Event()
        discover()
        self._register()
        Thread(target=self._beat, name="svc-jobs heartbeat", daemon=True).start()
        Thread(target=self._relieve, name="svc-jobs relief", daemon=True).start()
        if self._is_shared:
            # Told to hurry, Celery sends no signal of its end.
            atexit.register(self.sign_off, seconds=0.0)

    def run(self, ids: Sequence[UUID]) -> None:
        """Run those of the jobs that are still to be run. Returns when others should follow."""
        if self._ended.is_set():
            # They are published again.
            return
        lane = self._lane()
        try:
            lane.take(ids)
        finally:
            self._free.append(lane)

    def _lane(self) -> Lane:
        with suppress(IndexError):
            while (lane := self._free.pop()).is_left_behind:
                pass
            return lane
        self._lanes.append(lane := Lane(self._take_turn, self._run))
        return lane

    def _take_turn(self, outcomes: Sequence[Outcome], ids: Sequence[UUID]) -> list[Running]:
        """Write how jobs ended, however long the database is away: nobody else can. Claim those of `ids`."""
        unwritten, failures = list(outcomes), 0
        taken: list[Running] = []
        while unwritten or ids:
            try:
                # The lock: what is claimed and not noted yet would look like a claim whose answer was lost.
                with self._claiming:
                    ids = () if self._ended.is_set() else ids
                    claimed = turn.claim_these(ids, worker=self.id, outcomes=unwritten)
                    taken = [Running(job) for job in claimed]
                    self._running.update((running.key, running) for running in taken)
            except (DataError, IntegrityError) as error:
                logger.error("an outcome cannot be written", exc_info=error)
                write_apart(unwritten, worker=self.id)
            except DatabaseFailure as error:
                failures += 1
                logger.warning("jobs could not be claimed or written", failures=failures, error=repr(error))
                connections[turn.database()].close()
                # They are published again, and what was claimed without our knowing is handed back.
                self._has_strays, ids = self._has_strays or bool(ids), ()
                if unwritten:
                    self._ended.wait(min(5.0, 0.1 * 2 ** min(failures, 6)))
            else:
                count(unwritten)
                break
        for outcome in outcomes:
            self._running.pop((outcome.job.pk, outcome.job.epoch), None)
        return taken

    def _run(self, running: Running) -> Outcome | None:
        """Nothing comes of a job that was taken away meanwhile."""
        try:
            task = task_at(running.job.task)
        except UnknownTask as error:
            outcome = self._unknown.met(running.job, error)
            return replace(outcome, delay=settings.unknown_task_pause_seconds)
        running.begin(task)
        outcome = run(running.job, task, is_lost=partial(_is_lost, running))
        _tidy_connections()
        if running.is_lost:
            self._running.pop(running.key, None)
            return None
        return outcome

    def _relieve(self) -> None:
        deadline = inf
        while not self._ended.wait(HELD_SECONDS):
            if closing[0]:
                deadline = min(deadline, monotonic() + settings.grace_seconds)
            if self._is_shared and state.should_terminate:
                # SIGQUIT, of which no signal tells here: Celery tries to kill its threads, fails, and waits.
                deadline = -inf
            if monotonic() >= deadline:
                # Celery would wait for its messages for as long as the jobs take.
                self.sign_off(seconds=0.0)
            for lane in tuple(self._lanes):
                lane.relieve()
                if self._is_shared and (running := lane.leave_behind()):
                    self._lanes.remove(lane)
                    self._give_up(running)
            connections.close_all()

    def _give_up(self, running: Running) -> None:
        logger.error("a job ignores its timeout", job_id=str(running.job.pk), task=running.job.task)
        metrics.increment("jobs.overrun", queue=running.job.queue, task=running.job.task)
        running.lose()
        seconds = monotonic() - running.since
        self._take_turn([timed_out(running.job, task_at(running.job.task), seconds=seconds)], ())

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

    def _say_alive(self) -> None:
        with self._registering:
            me = Worker.objects.using(turn.database()).filter(pk=self.id)
            if not self._ended.is_set() and not me.update(heartbeat_at=Now()):
                logger.warning("this worker was taken for dead", worker=str(self.id))
                self._register()

    def _beat(self) -> None:
        while not self._ended.wait(settings.heartbeat_seconds):
            try:
                self._say_alive()
                running = [each for each in list(self._running.values()) if not each.is_lost]
                mine = turn.still_owned([each.job for each in running])
                for each in running:
                    if each.job.pk not in mine:
                        each.lose()
                tally.write()
                if self._has_strays:
                    with self._claiming:
                        turn.hand_back_strays(worker=self.id, known=[pk for pk, _ in self._running])
                        self._has_strays = False
            except DatabaseFailure as error:
                logger.warning("heartbeat failed", error=repr(error))
                connections[turn.database()].close()
        connections.close_all()

    def sign_off(self, *, seconds: float) -> None:
        """The process ends: what it still runs after so long is for others at once."""
        # Whoever comes second waits too: the process may end as soon as it returns.
        with self._signing_off:
            if not self._ended.is_set():
                self._sign_off(seconds=seconds)

    def _sign_off(self, *, seconds: float) -> None:
        deadline = monotonic() + seconds
        for lane in self._lanes:
            lane.end(seconds=max(0.0, deadline - monotonic()))
        with self._claiming:
            self._ended.set()
        left = [running for running in list(self._running.values()) if not running.is_lost]
        for running in left:
            running.lose()
        # This thread may not have used it for long, and lost it meanwhile.
        connections[turn.database()].close()
        with suppress(DatabaseFailure):
            back = [Outcome(running.job, Job.State.READY) for running in left]
            turn.take_turn(back, worker=self.id, queues=(), room=0)
            tally.write()
            with self._registering:
                Worker.objects.using(turn.database()).filter(pk=self.id).delete()
        for lane in self._lanes:
            lane.let_go()


_here: list[Hands] = []
_here_lock = Lock()


def here() -> Hands:
    """The hands of this process."""
    with _here_lock:
        # A forked child starts with what its parent had.
        if not _here or _here[0].pid != os.getpid():
            _here[:] = [Hands()]
        return _here[0]


def sign_off(*, seconds: float) -> None:
    if _here and _here[0].pid == os.getpid():
        _here[0].sign_off(seconds=seconds)


def _is_lost(running: Running) -> bool:
    return running.is_lost


def _tidy_connections() -> None:
    """Drop the connections that a job broke, and keep the others for the next."""
    for connection in connections.all(initialized_only=True):
        if connection.errors_occurred and not connection.is_usable():
            connection.close()
        else:
            connection.errors_occurred = False
