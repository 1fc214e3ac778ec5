"""Runs a few processes as one: all start, the dead are restarted, all stop, none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

GRACE_SECONDS = 10.0
"""How long a child may take to stop before its whole process group is killed."""

HEALTHY_AFTER_SECONDS = 5.0
"""A child that lived this long was not a failed start: its next restart comes at once."""

LONGEST_PAUSE_SECONDS = 10.0
POLL_SECONDS = 0.1


@dataclass(slots=True)
class Child:
    """One process in a group of its own: a Ctrl-C at the terminal reaches only the supervisor."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    failures: int = 0
    restart_at: float = 0.0

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, env=self.environment, process_group=0)  # noqa: S603  our own command
        self.started_at = monotonic()

    def signal_group(self, number: int) -> None:
        if self.process is not None:
            # Either error means that nobody is left in it.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)

    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None


@dataclass(slots=True)
class Supervisor:
    """`run` starts the children and returns once a SIGINT or SIGTERM has stopped them all."""

    children: Sequence[Child]
    say: Callable[[str], None]
    when_buried: Callable[[int], None]
    """Called with the process id of every child that died by itself."""

    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, *, when_started: Callable[[], None]) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self.stop.set())
        try:
            for child in self.children:
                child.start()
            when_started()
            while not self.stop.wait(POLL_SECONDS):
                for child in self.children:
                    self.look_after(child)
        finally:
            self.stop_all()

    def look_after(self, child: Child) -> None:
        """Restart the child if it died: at once the first time, then with growing pauses."""
        if child.process is not None and child.process.poll() is not None:
            self.bury(child, child.process)
        if child.process is None and monotonic() >= child.restart_at:
            child.start()

    def bury(self, child: Child, process: subprocess.Popen[bytes]) -> None:
        lived = monotonic() - child.started_at
        child.failures = 0 if lived > HEALTHY_AFTER_SECONDS else child.failures + 1
        pause = min(LONGEST_PAUSE_SECONDS, 0.5 * 2**child.failures) if child.failures else 0.0
        child.restart_at = monotonic() + pause
        self.say(f"{child.name} ended with {process.returncode}; starting it again in {pause:.0f} s")
        child.signal_group(signal.SIGKILL)  # what it may have left in its group
        self.when_buried(process.pid)
        child.process = None

    def stop_all(self) -> None:
        """SIGTERM to every child, a grace, then SIGKILL to the groups of those that stay."""
        running = [(child, child.process) for child in self.children if child.process is not None]
        for _, process in running:
            process.terminate()
        deadline = monotonic() + GRACE_SECONDS
        for child, process in running:
            try:
                process.wait(max(0.0, deadline - monotonic()))
            except subprocess.TimeoutExpired:
                self.say(f"{child.name} did not stop in {GRACE_SECONDS:.0f} s; killing it")
            child.signal_group(signal.SIGKILL)
            process.wait()
