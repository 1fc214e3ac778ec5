"""Tests that run in the example project itself, in a process of its own: its apps are not in the suite's."""

from __future__ import annotations

import os
import subprocess
import sys

# What a test run of this project leaves in the environment and one of another project must not find.
ELSEWHERE = ("DATABASE_URL", "REDIS_URL", "DJANGO_SETTINGS_MODULE", "PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS")


def run_inside(path: str, chosen: str) -> None:
    """Run the tests in `path` that the expression `chosen` names; fails with all that they said."""
    environment = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    command = [sys.executable, "-m", "pytest", path, "-q", "--ds=example_project.settings", "--no-migrations"]
    run = subprocess.run(
        [*command, "-k", chosen, "-p", "no:cacheprovider", "-p", "no:xdist"],
        env=environment | {"SVC_ENVIRONMENT": "local"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
