"""A demo that runs as a newcomer runs it: one command, a terminal's output, a signal to end it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from example_project.demo.browser import Browser

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 60.0


class Demo:
    """`manage.py serve` with its data in `folder`, on a free port."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.browser = Browser(self.url)
        self.environment = {
            **newcomers_environment(),
            "EXAMPLE_VAR": str(folder),
            "EXAMPLE_PACE": "0.1",
            "LOG_FORMAT": "json",
            "PORT": str(self.port),
            **environment,
        }
        self.log = folder / "terminal.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait for the banner."""
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "serve"],
                cwd=ROOT,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                process_group=0,
            )
        assert wait_until(lambda: "demo/webhooks/inbox\n" in self.said or self.process.poll() is not None), (
            self.said
        )
        assert self.process.poll() is None, self.said

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_SECONDS)

    @property
    def said(self) -> str:
        return self.log.read_text()

    def curl_lines(self) -> list[str]:
        return re.findall(r"^(?:curl|TOKEN=|sleep).*$", self.said, re.MULTILINE)

    def processes(self) -> dict[int, str]:
        """Every living process of this demo with its command line, found by its environment."""
        mark = f"EXAMPLE_VAR={self.folder}".encode()
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # gone while we looked, or somebody else's
        return found

    def worker(self) -> int:
        """The process id of its worker."""
        [pid] = [pid for pid, command in self.processes().items() if "run_worker" in command]
        return pid

    def sign_in(self, name: str) -> dict[str, str]:
        """The header that makes a request one of this resident."""
        answer = self.browser.post(
            "/api/auth/login", {"email": f"{name}@example.com", "password": "look-around-freely"}
        )
        return {"Authorization": f"Bearer {answer.json['access_token']}"}


def newcomers_environment() -> dict[str, str]:
    """The environment of somebody who has set nothing: not what this test run itself has set."""
    ours = ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE", "SVC_ENVIRONMENT")
    return {name: value for name, value in os.environ.items() if name not in ours}


def wait_until(is_so: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> bool:
    deadline = monotonic() + seconds
    while not is_so() and monotonic() < deadline:
        sleep(0.05)
    return bool(is_so())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Callable[..., Demo]]:
    made: list[Demo] = []

    def make(**environment: str) -> Demo:
        made.append(Demo(tmp_path, **environment))
        return made[-1]

    yield make

    for each in made:
        for pid in each.processes():
            os.kill(pid, signal.SIGKILL)
        if each.process is not None:
            each.process.wait()
