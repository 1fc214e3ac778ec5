from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Sequence
from queue import SimpleQueue
from threading import Thread
from time import sleep
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError

from ....identifiers import uuid7
from ...compat import task_backends
from ...decorators import discover, queue_names
from ...worker import JobWorker
from ..supervisor import Supervisor

STOPS = (signal.SIGTERM, signal.SIGINT)


class Command(BaseCommand):
    help = (
        "Run jobs, periodic schedules and the apps' services until SIGTERM or SIGINT; twice to stop at once."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--queues", default="", help="Comma-separated names; all queues without it.")
        parser.add_argument("--concurrency", type=_positive, help="Jobs that run at the same time.")
        parser.add_argument(
            "--processes",
            type=_positive,
            default=1,
            help="Worker processes, each with that concurrency, watched and started again by this one.",
        )
        parser.add_argument(
            "--exit-with-parent",
            nargs="?",
            type=int,
            const=os.getppid(),
            metavar="PID",
            help="Stop when the process that started this one is gone. With its id, also if it went at once.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        discover()
        work: dict[str, Any] = {
            "queues": _known(options["queues"]),
            "concurrency": options["concurrency"],
        }
        if options["processes"] == 1:
            serve(uuid7(), parent=options["exit_with_parent"], stops=STOPS, **work)
            return
        supervisor = Supervisor(options["processes"], work)
        for number in STOPS:
            signal.signal(number, lambda number, frame: supervisor.stop())
        if options["exit_with_parent"] is not None:
            Thread(target=_watch_parent, args=(supervisor, options["exit_with_parent"]), daemon=True).start()
        supervisor.run()


def serve(
    identity: UUID,
    *,
    queues: Sequence[str],
    concurrency: int | None,
    parent: int | None,
    stops: Sequence[signal.Signals],
) -> None:
    """Run one worker in this process until one of the signals `stops` comes, or its parent is gone."""
    worker = JobWorker(identity=identity, queues=queues, concurrency=concurrency, on_ready=_say_ready)
    # A handler runs between any two instructions of this thread, maybe one that holds a lock which stop()
    # wants; putting into a SimpleQueue is safe there.
    signals: SimpleQueue[int] = SimpleQueue()
    for number in stops:
        signal.signal(number, lambda number, frame: signals.put(number))
    Thread(target=_obey, args=(worker, signals), daemon=True).start()
    if parent is not None:
        Thread(target=_watch_parent, args=(worker, parent), daemon=True).start()
    worker.run()
    if worker.has_stragglers:
        # Threads that would not stop: their jobs are handed back, so nothing waits for them.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _say_ready() -> None:
    print(f"worker ready (pid {os.getpid()})", flush=True)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{number} is less than one")
    return number


def _known(names: str) -> list[str]:
    """The queues of `--queues`. Raises CommandError for one that would never have a job."""
    queues = list(dict.fromkeys(name.strip() for name in names.split(",") if name.strip()))
    known = queue_names()
    for backend in task_backends.all():
        known |= backend.queues
    if unknown := [name for name in queues if name not in known]:
        known_names = ", ".join(sorted(known))
        raise CommandError(f"There is no queue {', '.join(unknown)}; there are {known_names}.")
    return queues


def _obey(worker: JobWorker, signals: SimpleQueue[int]) -> None:
    while signals.get():
        worker.stop()


def _watch_parent(worker: JobWorker | Supervisor, parent: int) -> None:
    while os.getppid() == parent:
        sleep(0.5)
    worker.stop()
