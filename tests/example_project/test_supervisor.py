from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

PATIENCE_SECONDS = 10.0

SUPERVISOR = """
import sys
from example_project.demo import supervisor
from example_project.demo.supervisor import Child, Supervisor
supervisor.GRACE_SECONDS = 1.0
child = Child("actor", [sys.executable, "-c", sys.argv[1]], {})
Supervisor([child], say=print, when_buried=lambda pid: None).run(when_started=lambda: None)
"""

QUIET = """
import os, time
open({path!r}, "a").write(str(os.getpid()) + "\\n")
time.sleep(60)
"""
LEASHED = """
import os, sys, time
sys.path.insert(0, {root!r})
from example_project.demo.leash import end_with
end_with(os.getppid())
open({path!r}, "a").write(str(os.getpid()) + "\\n")
time.sleep(60)
"""
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({path!r}, "a").write(f"{{os.getpid()}}\\n{{grandchild.pid}}\\n")
time.sleep(60)
"""

# What these start has servers and databases of its own, the same in every pass: one pass is enough.
pytestmark = pytest.mark.sqlite

ROOT = str(Path(__file__).parents[2])


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Whoever inherits our orphans may be slow to reap them: a zombie is dead.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_until(is_so: Callable[[], bool]) -> bool:
    deadline = monotonic() + PATIENCE_SECONDS
    while not is_so() and monotonic() < deadline:
        sleep(0.02)
    return is_so()


class Stage:
    """One supervisor as a process of its own, and the pids that its children wrote down."""

    def __init__(self, folder: Path, code: str) -> None:
        self.pid_file = folder / "pids"
        child = textwrap.dedent(code).format(path=str(self.pid_file), root=ROOT)
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISOR, child],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )

    def pids(self) -> list[int]:
        return [int(line) for line in self.pid_file.read_text().split()] if self.pid_file.exists() else []

    def wait_for_pids(self, count: int) -> list[int]:
        assert wait_until(lambda: len(self.pids()) >= count)
        return self.pids()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Callable[[str], Stage]]:
    made: list[Stage] = []

    def make(code: str) -> Stage:
        made.append(Stage(tmp_path, code))
        return made[-1]

    yield make

    for each in made:
        each.process.kill()
        each.process.wait()
        for pid in each.pids():
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_children_and_then_the_supervisor(
    stage: Callable[[str], Stage], number: signal.Signals
) -> None:
    show = stage(QUIET)
    [child] = show.wait_for_pids(1)

    show.process.send_signal(number)

    assert show.process.wait(PATIENCE_SECONDS) == 0
    assert not is_alive(child)


def test_a_child_that_ignores_sigterm_is_killed_with_its_own_children(stage: Callable[[str], Stage]) -> None:
    show = stage(STUBBORN)
    child, grandchild = show.wait_for_pids(2)

    show.process.terminate()

    assert show.process.wait(PATIENCE_SECONDS) == 0
    assert not is_alive(child)
    assert wait_until(lambda: not is_alive(grandchild))


def test_a_child_that_dies_is_started_again(stage: Callable[[str], Stage]) -> None:
    show = stage(QUIET)
    [first] = show.wait_for_pids(1)

    os.kill(first, signal.SIGKILL)

    second = show.wait_for_pids(2)[1]
    assert is_alive(second)
    assert show.process.poll() is None


def test_a_leashed_child_ends_when_the_supervisor_is_killed_outright(stage: Callable[[str], Stage]) -> None:
    show = stage(LEASHED)
    [child] = show.wait_for_pids(1)

    show.process.kill()
    show.process.wait()

    assert wait_until(lambda: not is_alive(child))
