"""Publishes to a running worker and says how many deliveries a second were sent, answered and recorded.

Runs in the peers' environments too, so it knows nothing but Django, psycopg and the standard library.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urlsplit

ENDPOINTS = 10
WARM_UP = 100
SECRET_KEY = "a-key-for-measuring-only-" * 3
DEADLINE_SECONDS = 300


def database(name: str) -> dict[str, Any]:
    """A database of its own on the server of DATABASE_URL."""
    server = urlsplit(os.environ["DATABASE_URL"])
    return {
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": f"bench_{name}",
            "USER": server.username,
            "PASSWORD": server.password or "",
            "HOST": server.hostname,
            "PORT": server.port,
            "CONN_MAX_AGE": None,
        }
    }


def main(
    *,
    worker: Sequence[str],
    subscribe: Callable[[str, str], None],
    publish: Callable[[str, dict[str, Any]], None],
    recorded: Callable[[], int],
) -> None:
    """`python -m <program> <deliveries>`.

    `subscribe(event_type, url)` makes an endpoint, `publish(event_type, data)` one message for it, and
    `recorded()` counts the deliveries whose success stands in the database.
    """
    count = int(sys.argv[1])
    with ExitStack() as stack:
        stack.enter_context(_fresh_database())
        port = stack.enter_context(_receiver())
        for number in range(ENDPOINTS):
            subscribe(f"bench.event{number}", f"http://127.0.0.1:{port}/hook/{number}")
        stack.enter_context(_running([sys.executable, *worker]))
        _deliver(WARM_UP, before=0, publish=publish, recorded=recorded)
        print(_deliver(count, before=WARM_UP, publish=publish, recorded=recorded))


def _deliver(
    count: int, *, before: int, publish: Callable[[str, dict[str, Any]], None], recorded: Callable[[], int]
) -> float:
    started = time.perf_counter()
    for number in range(count):
        publish(f"bench.event{number % ENDPOINTS}", {"order_id": number, "total": "12.50", "note": "n" * 200})
    while (done := recorded()) < before + count:
        if time.perf_counter() - started > DEADLINE_SECONDS:
            raise SystemExit(f"{done - before} of {count} deliveries were recorded in {DEADLINE_SECONDS} s")
        time.sleep(0.05)
    return count / (time.perf_counter() - started)


@contextmanager
def _fresh_database() -> Iterator[None]:
    import psycopg
    from django.core.management import call_command
    from django.db import connections

    name = connections["default"].settings_dict["NAME"]
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as server:
        server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        server.execute(f'CREATE DATABASE "{name}"')
    try:
        call_command("migrate", run_syncdb=True, verbosity=0)
        yield
    finally:
        connections.close_all()
        with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as server:
            server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@contextmanager
def _receiver() -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.deliveries.receiver"]
    with _running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        yield int(process.stdout.readline())


@contextmanager
def _running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, **{"stdout": subprocess.DEVNULL, **options})
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
