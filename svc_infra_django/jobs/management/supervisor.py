"""Several worker processes under one: started, watched, started again, and stopped together."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Any
from uuid import UUID

import django

STEADY_SECONDS = 60.0
LONGEST_PAUSE = 30.0
LOOK_SECONDS = 1.0

# Not forked: threads and connections of this process would come along half alive.
spawning = multiprocessing.get_context("spawn")


def work(worker: UUID, options: Mapping[str, Any], supervisor: int) -> None:
    """Be one of the processes. Imports what needs Django only when it is set up."""
    django.setup()
    from .serving import serve

    # A terminal tells all of its processes; the supervisor passes on what is meant for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    serve(worker, parent=supervisor, stops=(signal.SIGTERM,), is_replaceable=True, **options)


@dataclass
class Place:
    """Where one worker process after another does its work."""

    worker: UUID = field(default_factory=lambda: UUID(int=0))
    process: BaseProcess | None = None
    started_at: float = 0.0
    failures: int = 0
    begin_at: float = 0.0
    was_heard: bool = False


class Supervisor:
    """Keeps `count` worker processes alive until it is told to stop."""

    def __init__(self, count: int, options: Mapping[str, Any]) -> None:
        self.options = options
        self.places = [Place() for _ in range(count)]
        self.is_stopping = False
        self.looked_at = self.patient_until = monotonic()

    def run(self) -> None:
        """Return when every process has ended after `stop`."""
        while True:
            for place in self.places:
                if place.process is None and not self.is_stopping and monotonic() >= place.begin_at:
                    self._begin(place)
            running = [place.process for place in self.places if place.process is not None]
            if not running and self.is_stopping:
                return
            wait([process.sentinel for process in running], timeout=0.2)
            self._end_the_silent()
            for place in self.places:
                if place.process is not None and place.process.exitcode is not None:
                    self._end(place, place.process)

    def stop(self) -> None:
        """Tell every process to stop; the second time, not to wait for what runs."""
        self.is_stopping = True
        for place in self.places:
            if place.process is not None and place.process.pid and place.process.is_alive():
                os.kill(place.process.pid, signal.SIGTERM)

    def _end_the_silent(self) -> None:
        """Kill a process that lives and says nothing: a call that never gives the interpreter back.

        It would keep its place for ever, and others would take its jobs for victims, each of them.
        """
        from django.db import Error as DatabaseFailure
        from django.db import connections

        from ..conf import settings
        from ..models import Worker
        from ..turn import database, logger

        if monotonic() < self.looked_at + LOOK_SECONDS:
            return
        pause, lease = settings.heartbeat_seconds, settings.lease_seconds
        places = [place for place in self.places if place.process is not None]
        known, alive = set[UUID](), set[UUID]()
        try:
            rows = Worker.objects.using(database()).filter(pk__in=[place.worker for place in places])
            alive = set(rows.alive(lease=timedelta(seconds=lease - pause)).values_list("pk", flat=True))
            known = set(rows.values_list("pk", flat=True))
            was_held_up = monotonic() - self.looked_at > lease / 3
        except DatabaseFailure:
            connections[database()].close()
            was_held_up = True
        self.looked_at = monotonic()
        if was_held_up:
            # By the database, or with the whole machine: then so were they, and are about to be heard again.
            self.patient_until = self.looked_at + 3 * pause
        for place in places:
            place.was_heard |= place.worker in known
            is_silent = place.was_heard and place.worker not in alive
            if is_silent and self.looked_at > self.patient_until and place.process and place.process.pid:
                logger.error("a worker process does not answer", pid=place.process.pid)
                os.kill(place.process.pid, signal.SIGKILL)

    def _begin(self, place: Place) -> None:
        from django.db import connections

        from ...identifiers import uuid7

        # However it is started, none of ours may come along.
        connections.close_all()
        place.worker, place.started_at, place.was_heard = uuid7(), monotonic(), False
        place.process = spawning.Process(target=work, args=(place.worker, self.options, os.getpid()))
        place.process.start()
        if self.is_stopping and place.process.pid:
            # Told while it was being started, so `stop` did not see it.
            os.kill(place.process.pid, signal.SIGTERM)

    def _end(self, place: Place, process: BaseProcess) -> None:
        """Give the jobs of a process that died to others at once, and plan the next one."""
        from django.db import Error as DatabaseFailure

        from ..conf import settings
        from ..rescue import bury, logger

        place.process = None
        place.failures = 1 if monotonic() - place.started_at > STEADY_SECONDS else place.failures + 1
        place.begin_at = monotonic() + min(LONGEST_PAUSE, 0.1 * 2**place.failures)
        if process.exitcode:
            logger.error("a worker process died", pid=process.pid, exitcode=process.exitcode)
            try:
                bury(place.worker, max_crashes=settings.max_crashes)
            except DatabaseFailure as error:
                # Its lease runs out, and then others rescue them.
                logger.warning("jobs of a process that died could not be given to others", error=repr(error))
        process.close()
