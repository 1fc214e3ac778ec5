from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import pytest

from .conftest import ROOT, newcomers_environment


@pytest.mark.sqlite
def test_the_tour_is_green_and_leaves_nothing_behind(tmp_path: Path) -> None:
    before = getrusage(RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "manage.py", "tour"],
        cwd=ROOT,
        env=newcomers_environment() | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )

    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(\d)  ", done.stdout, re.MULTILINE) == ["1", "2", "3", "4", "5", "6", "7"]
    after = getrusage(RUSAGE_CHILDREN)
    # Fifteen seconds of two idle cores, and half as much again where nothing is compiled yet.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 45
    assert list(tmp_path.iterdir()) == []
    left = [
        entry.name
        for entry in Path("/proc").glob("[0-9]*")
        if str(tmp_path).encode() in readable(entry / "environ")
    ]
    assert left == []


def readable(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # gone while we looked, or somebody else's
        return b""
