"""Run the demo: a real web server and the worker, with data to look at, until Ctrl-C."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError, CommandParser
from prometheus_client.multiprocess import mark_process_dead

from ...banner import banner
from ...browser import Browser
from ...leash import end_with
from ...supervisor import Child, Supervisor

START_SECONDS = 60.0


class Command(BaseCommand):
    help = __doc__

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8000")))
        parser.add_argument("--host", default="127.0.0.1")
        parser.add_argument("--exit-with-parent", action="store_true", help="Stop when the parent dies.")

    def handle(self, *args: Any, host: str, port: int, exit_with_parent: bool, **options: Any) -> None:
        if exit_with_parent:
            end_with(os.getppid())
        refuse_busy_port(host, port)
        url = f"http://{host}:{port}"
        call_command("migrate", verbosity=0)
        call_command("seed_demo", url=url)

        metrics = empty_folder(settings.VAR / "metrics")
        environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(metrics)}
        web = [sys.executable, "-m", "example_project.demo.web", host, str(port), str(os.getpid())]
        worker = [sys.executable, sys.argv[0], "run_worker", "--exit-with-parent", str(os.getpid())]
        supervisor = Supervisor(
            [Child("web", web, environment), Child("worker", worker, environment)],
            say=lambda line: self.stderr.write(self.style.WARNING(line)),
            when_buried=lambda pid: mark_process_dead(pid, str(metrics)),
        )
        supervisor.run(when_started=lambda: self.announce(url, supervisor))
        self.stdout.write("Stopped.")

    def announce(self, url: str, supervisor: Supervisor) -> None:
        deadline = monotonic() + START_SECONDS
        while not Browser(url).answers("/readyz"):
            if monotonic() > deadline or not all(child.is_running() for child in supervisor.children):
                raise CommandError("The server did not start; what it said is above.")
            if supervisor.stop.wait(0.1):
                return
        self.stdout.write(banner(url))
        self.stdout.flush()


def refuse_busy_port(host: str, port: int) -> None:
    """Find out before anything starts. Granian shares ports: two demos would steal from each other."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CommandError(
                f"Port {port} on {host} cannot be used: {error.strerror}. Try: PORT={port + 1} make run"
            ) from None


def empty_folder(path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
