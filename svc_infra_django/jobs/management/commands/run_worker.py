from __future__ import annotations

import os
import signal
from argparse import ArgumentParser, ArgumentTypeError
from threading import Thread
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ....identifiers import uuid7
from ...compat import task_backends
from ...decorators import discover, queue_names
from ..serving import serve, watch_parent
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
            help="Worker processes, each with that concurrency, watched and started again by this one, which"
            " runs no jobs then. Without it, this is the one process.",
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
        if options["processes"] is None:
            serve(uuid7(), parent=options["exit_with_parent"], stops=STOPS, **work)
            return
        supervisor = Supervisor(options["processes"], work)
        for number in STOPS:
            signal.signal(number, lambda number, frame: supervisor.stop())
        if options["exit_with_parent"] is not None:
            Thread(target=watch_parent, args=(supervisor, options["exit_with_parent"]), daemon=True).start()
        supervisor.run()


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
