"""No file knows the machine that it was written on, nor where packages come from."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]

MACHINE_PATH = re.compile(r"(?<![\w.])/(?:root|home|work|Users)/[\w.]")
REGISTRY = re.compile(r"\b(?:pypi|pythonhosted|npmjs|jsdelivr|unpkg|cloudflare)\.(?:org|com|net|io)\b")
LOCK_FILE = re.compile(r"(^|/)(uv\.lock|poetry\.lock|pdm\.lock|Pipfile\.lock|requirements[\w.-]*\.txt)$")


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def matches(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in tracked():
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="ignore").splitlines(), start=1
        ):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    return found


def test_no_file_names_a_folder_of_a_machine() -> None:
    assert matches(MACHINE_PATH) == []


def test_no_file_names_a_package_registry() -> None:
    assert matches(REGISTRY) == []


def test_no_lock_file_is_kept() -> None:
    assert [path.name for path in tracked() if LOCK_FILE.search(path.as_posix())] == []
