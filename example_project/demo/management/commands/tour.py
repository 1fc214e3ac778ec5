"""Walk through everything the demo does, against a server of its own, and say what to look at."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...browser import Browser
from ...story import CHAPTERS, Scene, StoryFailed

START_SECONDS = 60.0
STOP_SECONDS = 15.0
PACE = "0.05"
"""The tour does not wait for retries as long as a demo that somebody watches."""


class Command(BaseCommand):
    help = __doc__
    requires_system_checks = []  # the server that it starts runs them

    def handle(self, *args: Any, **options: Any) -> None:
        started = monotonic()
        folder = Path(tempfile.mkdtemp(prefix="svc-tour-"))
        try:
            with served(folder) as scene:
                scene.say = self.say
                for number, chapter in enumerate(CHAPTERS, start=1):
                    self.say(self.style.MIGRATE_HEADING(f"\n{number}  {chapter.__doc__}"))
                    chapter(scene)
            self.say(self.style.SUCCESS(f"\nAll of it works. It took {monotonic() - started:.1f} s."))
        except StoryFailed as failure:
            log = "\n".join((folder / "server.log").read_text().splitlines()[-15:])
            raise CommandError(
                f"\N{BALLOT X} {failure}\n\nThe last lines of the server's log:\n{log}"
            ) from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def say(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


@contextmanager
def served(folder: Path) -> Iterator[Scene]:
    """A demo on a free port, with its data in `folder`, stopped again at the end."""
    port = free_port()
    log = folder / "server.log"
    environment = os.environ | {"EXAMPLE_VAR": str(folder), "EXAMPLE_PACE": PACE, "LOG_FORMAT": "json"}
    for elsewhere in ("DATABASE_URL", "REDIS_URL"):
        environment.pop(elsewhere, None)
    command = [sys.executable, sys.argv[0], "serve", "--port", str(port), "--exit-with-parent"]
    with log.open("wb") as output:
        server = subprocess.Popen(  # noqa: S603  our own command
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, process_group=0
        )
    try:
        scene = Scene(f"http://127.0.0.1:{port}", log=log, mail=folder / "mail", say=print)
        wait_until_ready(scene.url, server)
        yield scene
    finally:
        stop(server)


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = monotonic() + START_SECONDS
    while not Browser(url).answers("/readyz"):
        if server.poll() is not None or monotonic() > deadline:
            raise StoryFailed("The server did not start.")
        sleep(0.1)


def stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()  # its children end with it
        server.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
