from __future__ import annotations

import os
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError
from queue import SimpleQueue
from threading import Thread
from time import sleep
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...compat import task_backends
from ...decorators import discover, queue_names
from ...worker import JobWorker


class Command(BaseCommand):
    help = (
        "Run jobs, periodic schedules and the apps' services until SIGTERM or SIGINT; twice to stop at once."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--queues", default="", help="Comma-separated names; all queues without it.")
        parser.add_argument("--concurrency", type=_positive, help="Jobs that run at the same time.")
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
        queues = _known(options["queues"])
        worker = JobWorker(queues=queues, concurrency=options["concurrency"], on_ready=self._say_ready)
        # A handler runs between any two instructions of this thread, maybe one that holds a lock which stop()
        # wants; putting into a SimpleQueue is safe there.
        signals: SimpleQueue[int] = SimpleQueue()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, _: signals.put(number))
        Thread(target=_obey, args=(worker, signals), daemon=True).start()
        if options["exit_with_parent"] is not None:
            Thread(target=_watch_parent, args=(worker, options["exit_with_parent"]), daemon=True).start()
        worker.run()
        if worker.has_stragglers:
            # Threads that would not stop: their jobs are handed back, so nothing waits for them.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    def _say_ready(self) -> None:
        self.stdout.write(f"worker ready (pid {os.getpid()})")
        self.stdout.flush()


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


def _watch_parent(worker: JobWorker, parent: int) -> None:
    while os.getppid() == parent:
        sleep(0.5)
    worker.stop()
