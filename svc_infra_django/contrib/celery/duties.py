"""What goes on beside Celery's processes: staging, rescue, sweeping, schedules, pruning, the apps' services.

It has a process of its own, which is started anew and not forked, and what needs Django is imported there.
Celery's main process forks whenever a child is replaced, and a database connection or a lock in the hands of
one of its threads would come along half alive: SQLite, for one, would take its file for locked for ever.
"""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass
from importlib import import_module
from mmap import mmap
from multiprocessing.process import BaseProcess
from secrets import token_hex
from threading import Event, Thread
from time import sleep

import django

from ...jobs.management.supervisor import spawning

WATCH_SECONDS = 1.0
STOP_SECONDS = 10.0

closing = mmap(-1, 1)
"""One byte that Celery's main process shares with those that it forks: 1 once it stops."""


@dataclass(slots=True)
class MainProcess:
    """Which of Celery's main processes this one is, or was forked from."""

    pid: int = 0
    name: str = "celery"
    """What the names of its workers begin with. Not the id alone: a container begins with the same again."""

    def is_here(self) -> None:
        self.pid = os.getpid()
        self.name = f"celery@{socket.gethostname()}:{self.pid}-{token_hex(4)}"


main = MainProcess()


class Duties:
    """Keeps the process of the duties alive. `module` is the one that makes the Celery app."""

    def __init__(self, module: str) -> None:
        self.module = module
        self._ended = Event()
        self._process: BaseProcess | None = None
        self._thread = Thread(target=self._keep, name="svc-jobs duties", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        if self._process is not None:
            self._process.terminate()
            self._process.join(STOP_SECONDS)
            self._process.kill()

    def _keep(self) -> None:
        from ...observability.logging import get_logger

        logger = get_logger("svc_infra_django.jobs")
        while not self._ended.is_set():
            # A daemon: a main process that Celery ends without a word would wait for it, and it for that.
            self._process = spawning.Process(target=do_duties, args=(self.module, main), daemon=True)
            self._process.start()
            while not self._ended.wait(WATCH_SECONDS) and self._process.exitcode is None:
                pass
            if not self._ended.is_set():
                logger.error("the process of the duties died", exitcode=self._process.exitcode)


def do_duties(module: str, main: MainProcess) -> None:
    """Do them until SIGTERM comes, or the process `main` is gone."""
    django.setup()
    import_module(module)
    from ...identifiers import uuid7
    from ...jobs.management.serving import serve

    # A terminal tells all of its processes; the main process passes on what is meant for us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=watch_children, args=(main,), name="svc-jobs children", daemon=True).start()
    serve(uuid7(), queues=(), concurrency=0, parent=main.pid, stops=(signal.SIGTERM,))


def watch_children(main: MainProcess) -> None:
    """Give the jobs of a child process that died to others at once."""
    from django.db import Error as DatabaseFailure
    from django.db import connections

    from ...jobs import turn
    from ...jobs.conf import settings
    from ...jobs.models import Worker
    from ...jobs.rescue import bury, workers_overrun

    while True:
        try:
            rows = Worker.objects.using(turn.database()).filter(name__startswith=f"{main.name}/")
            children = dict(rows.values_list("pk", "pid"))
            for stuck in workers_overrun(children):
                # In a pool of threads it is the main process, which others work in: see `Hands`.
                if children[stuck] != main.pid and _is_alive(children[stuck]):
                    turn.logger.error("a job ignores its timeout", pid=children[stuck])
                    os.kill(children[stuck], signal.SIGKILL)
            for pk, pid in children.items():
                if not _is_alive(pid):
                    turn.logger.error("a worker process died", pid=pid)
                    bury(pk, max_crashes=settings.max_crashes)
        except DatabaseFailure as error:
            turn.logger.warning("child processes could not be looked after", error=repr(error))
            connections[turn.database()].close()
        sleep(WATCH_SECONDS)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
