"""The servers that `make test` brings up, and above all that it takes them down again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests import servers

# What these start has servers and databases of its own, the same in every pass: one pass is enough.
pytestmark = pytest.mark.sqlite

SHOW = "import os; print(os.environ['DATABASE_URL'], os.environ['REDIS_URL'], flush=True)"


def wrapped(*command: str, **urls: str) -> subprocess.Popen[str]:
    environment = {
        name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.servers", "--", *command],
        env=environment | urls,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def is_open(url: str) -> bool:
    place = urlsplit(url)
    with socket.socket() as knocker:
        return knocker.connect_ex((place.hostname, place.port)) == 0


def left_behind() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("svc-infra-django-postgresql-*"))


def test_the_command_gets_two_servers_that_are_gone_afterwards() -> None:
    answer = "import psycopg, os; psycopg.connect(os.environ['DATABASE_URL']).close()"
    process = wrapped(sys.executable, "-c", f"{answer}; {SHOW}")

    urls = process.communicate(timeout=60)[0].split()

    assert process.returncode == 0
    assert [urlsplit(url).hostname for url in urls] == ["127.0.0.1", "127.0.0.1"]
    assert not any(is_open(url) for url in urls)


def test_the_exit_code_is_the_commands() -> None:
    process = wrapped(sys.executable, "-c", "raise SystemExit(7)", DATABASE_URL="there", REDIS_URL="there")

    process.communicate(timeout=60)

    assert process.returncode == 7


@pytest.mark.parametrize(
    # A terminal tells the command too.
    ("tell", "how"),
    [(os.killpg, signal.SIGINT), (os.kill, signal.SIGTERM)],
)
def test_a_signal_takes_everything_down(tell: Callable[[int, int], None], how: signal.Signals) -> None:
    process = wrapped(sys.executable, "-c", f"{SHOW}; import time; time.sleep(60)")
    assert process.stdout
    urls = process.stdout.readline().split()
    assert all(is_open(url) for url in urls)

    tell(process.pid, how)
    process.communicate(timeout=60)

    assert process.returncode == 128 + how
    assert not any(is_open(url) for url in urls)


def test_urls_that_are_set_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgres://elsewhere/db")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere/0")

    with servers.both_servers():
        assert os.environ["DATABASE_URL"] == "postgres://elsewhere/db"

    assert os.environ["REDIS_URL"] == "redis://elsewhere/0"


@pytest.fixture
def no_binaries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(servers.shutil, "which", lambda name: None)
    monkeypatch.setattr(servers, "PACKAGED", tmp_path)


@pytest.mark.usefixtures("no_binaries")
def test_the_wheels_will_do() -> None:
    with servers.postgresql() as database, servers.redis() as redis:
        with psycopg.connect(database) as connection:
            assert connection.execute("SELECT 7").fetchone() == (7,)
        assert is_open(redis)

    assert not is_open(database)
    assert not is_open(redis)


@pytest.mark.usefixtures("no_binaries")
@pytest.mark.parametrize(
    ("server", "advice"), [(servers.postgresql, "DATABASE_URL="), (servers.redis, "REDIS_URL=")]
)
def test_without_any_server_it_says_what_to_type(
    server: Callable[[], Any], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "find_spec", lambda name: None)
    before = left_behind()

    with pytest.raises(servers.NoServer, match="pip install") as refusal, server():
        pass

    assert advice in str(refusal.value)
    assert left_behind() <= before
