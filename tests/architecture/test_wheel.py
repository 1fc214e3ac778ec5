"""What a user installs holds everything that the package reads at run time, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
DATA = [
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "svc_infra_django").rglob("*")
    if path.is_file() and path.suffix != ".pyc"
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = f"from hatchling.build import build_wheel; build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return ZipFile(built)


def test_the_wheel_holds_the_whole_package(wheel: ZipFile) -> None:
    assert set(DATA) <= set(wheel.namelist())
    assert any(name.endswith(".html") for name in DATA)
    assert "svc_infra_django/py.typed" in DATA


def test_the_wheel_holds_nothing_else(wheel: ZipFile) -> None:
    assert {name.partition("/")[0].partition("-")[0] for name in wheel.namelist()} == {"svc_infra_django"}


def test_the_wheel_names_its_licence(wheel: ZipFile) -> None:
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))

    assert b"License-Expression: MIT" in wheel.read(metadata)
