"""The matrix: each supported Python with its Django, and the lowest versions that we claim to support."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import nox

nox.options.default_venv_backend = "uv"
nox.options.sessions = ["tests", "lowest"]
nox.options.error_on_missing_interpreters = True

MATRIX = [("3.11", "5.2"), ("3.13", "6.0")]
EVERY_EXTRA = ".[check,demo,docs,otel,servers,test]"


def show_pyenv_interpreters() -> None:
    """pyenv's `python3.13` answers only if PYENV_VERSION lists a 3.13, so list every version it has."""
    if shutil.which("pyenv") and "PYENV_VERSION" not in os.environ:
        listed = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True, check=True)
        versions = [line.strip() for line in listed.stdout.splitlines() if line.strip().startswith("3.")]
        here = sys.version.partition(" ")[0]
        os.environ["PYENV_VERSION"] = ":".join(sorted(versions, key=lambda version: version != here))


show_pyenv_interpreters()


@nox.session
@nox.parametrize(("python", "django"), MATRIX)
def tests(session: nox.Session, django: str) -> None:
    """Every test, on both databases."""
    session.install("--editable", EVERY_EXTRA, f"django~={django}.0")
    run_tests(session)


@nox.session(python="3.11")
def lowest(session: nox.Session) -> None:
    """Every test with the lowest version of each dependency that pyproject.toml allows."""
    session.install("--resolution", "lowest-direct", "--editable", ".[demo,otel,servers,test]")
    run_tests(session)


@nox.session(python=False)
def other(session: nox.Session) -> None:
    """The interpreter of the matrix that `make test` does not run on, if this machine has it."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for python, django in MATRIX:
        if python == here:
            continue
        if not answers(f"python{python}"):
            session.warn(f"Python {python} is not on this machine: its tests run where it is.")
            continue
        session.notify(f"tests(python='{python}', django='{django}')")


def answers(interpreter: str) -> bool:
    if not shutil.which(interpreter):
        return False
    return subprocess.run([interpreter, "--version"], capture_output=True, check=False).returncode == 0


def run_tests(session: nox.Session) -> None:
    session.run("python", "-m", "tests.servers", "--", "python", "-m", "tests.passes", *session.posargs)
