"""Publishes to a worker and says how many deliveries a second were sent, answered and recorded.

`python -m <program> publishing COUNT` publishes while the worker delivers, `python -m <program> backlog
COUNT` before it starts. Runs in the peers' environments too, so it knows nothing but Django, psycopg and
the standard library. BENCH_MEASURE chooses what is printed: the `rate`, or the microseconds of CPU that a
delivery costs the `worker`, the `database` or the `receiver`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ENDPOINTS = int(os.environ.get("BENCH_ENDPOINTS", "10"))
MEASURE = os.environ.get("BENCH_MEASURE", "rate")
WARM_UP = 100
NOTE = "n" * 880
"""Makes each body about 1 KiB."""

BATCH = 500
SECRET_KEY = "a-key-for-measuring-only-" * 3
DEADLINE_SECONDS = 300
POLL_SECONDS = 0.1 if MEASURE == "rate" else 0.5  # to count costs CPU as well

Publication = tuple[str, dict[str, Any]]


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
    publish: Callable[[Sequence[Publication]], None],
    recorded: Callable[[], int],
) -> None:
    """Measure one program as the command line asks, and print the number.

    `subscribe(event_type, url)` makes an endpoint, `publish([(event_type, data), ...])` a message for each
    in one transaction, and `recorded()` counts the deliveries whose success stands in the database.
    """
    mode, count = sys.argv[1], int(sys.argv[2])
    with ExitStack() as stack:
        stack.enter_context(fresh_database())
        port, receiver_pid = stack.enter_context(receiver())
        for number in range(ENDPOINTS):
            subscribe(f"bench.event{number}", f"http://127.0.0.1:{port}/hook/{number}")

        if mode == "backlog":
            publish_all(count, publish, together=BATCH)
            already = count // 10
            begin_at, end_at = already, count
        else:
            begin_at, end_at = WARM_UP, WARM_UP + count

        process = stack.enter_context(running([sys.executable, *worker]))
        costs = {
            "worker": lambda: _cpu_seconds(process.pid),
            "receiver": lambda: _cpu_seconds(receiver_pid),
            # Without the questions whether it is done yet.
            "database": partial(database_cpu_seconds, own=False),
            "rate": time.perf_counter,
        }
        if mode == "publishing":
            publish_all(WARM_UP, publish, together=1)
        begun = _wait_for(begin_at, recorded)
        before = costs[MEASURE]()
        if mode == "publishing":
            publish_all(count, publish, together=1)
        done = _wait_for(end_at, recorded)
        spent = costs[MEASURE]() - before
        print((done - begun) / spent if MEASURE == "rate" else spent / (done - begun) * 1e6)


def publish_all(count: int, publish: Callable[[Sequence[Publication]], None], *, together: int) -> None:
    for first in range(0, count, together):
        publish(
            [
                (f"bench.event{number % ENDPOINTS}", {"order_id": number, "total": "12.50", "note": NOTE})
                for number in range(first, min(first + together, count))
            ]
        )


def _wait_for(count: int, recorded: Callable[[], int]) -> int:
    started = time.monotonic()
    while (done := recorded()) < count:
        if time.monotonic() - started > DEADLINE_SECONDS:
            raise SystemExit(f"{done} of {count} deliveries were recorded in {DEADLINE_SECONDS} s")
        time.sleep(POLL_SECONDS)
    return done


def _cpu_seconds(pid: int) -> float:
    """What a process and those below it have used of the CPU; of the dead ones what their parents know."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            facts = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # gone while we looked
        parents[int(entry.parent.name)] = int(facts[1])
        used[int(entry.parent.name)] = sum(map(int, facts[11:15])) / os.sysconf("SC_CLK_TCK")
    family = {pid}
    while found := {child for child, parent in parents.items() if parent in family} - family:
        family |= found
    return sum(used.get(each, 0.0) for each in family)


def database_cpu_seconds(*, own: bool = True) -> float:
    """Of the whole server, if it runs on this machine; with what it did for this connection, or without."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (backend,) = cursor.fetchone()
    server = int(Path(f"/proc/{backend}/stat").read_text().rpartition(")")[2].split()[1])
    return _cpu_seconds(server) - (0 if own else _cpu_seconds(backend))


@contextmanager
def fresh_database() -> Iterator[None]:
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
def receiver() -> Iterator[tuple[int, int]]:
    """The receiver in a process of its own: its port and its process id."""
    command = [sys.executable, "-m", "benchmarks.deliveries.receiver"]
    with running(command, stdout=subprocess.PIPE) as process:
        assert process.stdout
        yield int(process.stdout.readline()), process.pid


@contextmanager
def running(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with the block."""
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
