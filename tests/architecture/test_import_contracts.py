"""The floors and rooms of the package hold, and the contracts notice when they do not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# For each fault: a file of the package, the line appended to it, and the report's words for it.
FAULTS = {
    "an app that imports an app of a higher floor": (
        "jobs/conf.py",
        "from ..webhooks import errors",
        "svc_infra_django.jobs is not allowed to import svc_infra_django.webhooks",
    ),
    "neighbours that know each other": (
        "rbac/conf.py",
        "from ..apikeys import errors",
        "svc_infra_django.rbac is not allowed to import svc_infra_django.apikeys",
    ),
    "a row that calls a story": (
        "rbac/models.py",
        "from .services import granting",
        "svc_infra_django.rbac.models is not allowed to import svc_infra_django.rbac.services",
    ),
    "a file that is no room": ("apikeys/helpers.py", "", "svc_infra_django.apikeys.helpers"),
    "a noun that nobody placed": ("commons.py", "", "svc_infra_django.commons"),
    "a door behind a door": (
        "api/conf.py",
        "from .factory import create_api",
        "svc_infra_django.api.conf is not allowed to import svc_infra_django.api.factory",
    ),
    "an optional package in an app": (
        "cache/conf.py",
        "import boto3",
        "svc_infra_django.cache is not allowed to import boto3",
    ),
}


def report(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as run; run(['--no-cache'])",
        ],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def broken_house(tmp_path_factory: pytest.TempPathFactory) -> str:
    root = tmp_path_factory.mktemp("house")
    shutil.copy(ROOT / ".importlinter", root)
    shutil.copytree(ROOT / "svc_infra_django", root / "svc_infra_django")
    for path, fault, _ in FAULTS.values():
        with (root / "svc_infra_django" / path).open("a", encoding="utf-8") as module:
            module.write(f"\n{fault}\n")
    result = report(root)
    assert result.returncode == 1, result.stderr
    return result.stdout


def test_the_house_stands() -> None:
    result = report(ROOT)

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("fault", FAULTS)
def test_the_contracts_notice(fault: str, broken_house: str) -> None:
    assert FAULTS[fault][2] in " ".join(broken_house.split())
