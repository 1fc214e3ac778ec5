"""Runs a worker on jobs that do nothing, and says how many a second it ran or how soon it began one.

Runs in the peers' environments too, so it knows nothing but psycopg, perhaps Django, and the standard
library. A job that is asked to writes down when it ran: nobody looks at the tables meanwhile.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SECRET_KEY = "a-key-for-measuring-only-" * 3
DEADLINE_SECONDS = 60


def postgresql(name: str) -> dict[str, Any]:
    """Settings for a database of its own on the server of DATABASE_URL."""
    server = urlsplit(os.environ["DATABASE_URL"])
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": f"bench_jobs_{name}",
        "USER": server.username,
        "PASSWORD": server.password or "",
        "HOST": server.hostname,
        "PORT": server.port,
        "CONN_MAX_AGE": None,
    }


def sqlite(name: str) -> dict[str, Any]:
    """Settings for a database file, as each project's documentation wants it."""
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(Path(tempfile.gettempdir()) / f"bench_jobs_{name}.sqlite3"),
        # Whoever closes the last connection of a file moves its whole log, and some do so at every job.
        "CONN_MAX_AGE": 0 if "BENCH_DEFAULTS" in os.environ else None,
        "OPTIONS": {
            "timeout": 20,
            "transaction_mode": "IMMEDIATE",
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }


def database(name: str) -> dict[str, Any]:
    return {"default": sqlite(name) if os.environ.get("BENCH_DATABASE") == "sqlite" else postgresql(name)}


NOTED = {int(number) for number in os.environ.get("BENCH_NOTED", "").split(",") if number}


def note(number: int) -> None:
    """The body of every contender's job."""
    if number in NOTED or number < 0:
        Path(os.environ["BENCH_NOTES"], str(number)).write_text(repr(time.time()), encoding="utf-8")


def main(
    *,
    worker: Callable[[int], Sequence[str]],
    enqueue_many: Callable[[range], object],
    enqueue: Callable[[int], object],
    prepare: Callable[[], None] = lambda: None,
    fresh: Callable[[], None] | None = None,
) -> None:
    """`python -m <program> drain <jobs> <concurrency>` prints jobs a second, after a tenth of them.

    `latency <jobs>` prints the median and the 99th percentile of the milliseconds from before the enqueueing
    to inside the body.
    """
    what, count = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as notes:
        first, last = count // 10, count - 1
        os.environ |= {"BENCH_NOTES": notes, "BENCH_NOTED": f"{first},{last}"}
        (fresh or fresh_database)()
        prepare()
        if what == "drain":
            enqueue_many(range(count))
            if os.environ.get("BENCH_DATABASE") != "sqlite":
                # What was written until now is not to reach the disk while the jobs run.
                with _server() as server:
                    server.execute("CHECKPOINT")
            with running(worker(int(sys.argv[3]))) as process:
                begun, ended = noted(notes, first, process), noted(notes, last, process)
            print((last - first) / (ended - begun))
            return
        with running(worker(10)) as process:
            enqueue(-1)
            noted(notes, -1, process)
            waits = []
            for number in range(2, count + 2):
                time.sleep(0.05 + number % 7 / 100)
                started = time.time()
                enqueue(-number)
                waits.append((noted(notes, -number, process) - started) * 1000)
        print(statistics.median(waits), statistics.quantiles(waits, n=100, method="inclusive")[98])


def noted(notes: str, number: int, process: subprocess.Popen[bytes]) -> float:
    """When job `number` ran, waiting for it."""
    path = Path(notes, str(number))
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (path.exists() and (text := path.read_text(encoding="utf-8"))):
        if process.poll() is not None:
            raise SystemExit(f"the worker ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise SystemExit(f"job {number} did not run in {DEADLINE_SECONDS} s")
        time.sleep(0.002)
    return float(text)


def fresh_database() -> None:
    """Django's default database, empty and migrated. The first of a run is kept, and copied afterwards."""
    from django.core.management import call_command
    from django.db import connections

    settings = connections["default"].settings_dict
    name, run = settings["NAME"], os.environ.get("BENCH_RUN", "")
    if settings["ENGINE"].endswith("sqlite3"):
        for ending in ("", "-wal", "-shm"):
            Path(f"{name}{ending}").unlink(missing_ok=True)
    elif run and _exists(f"{name}_{run}"):
        fresh_postgresql(name, template=f"{name}_{run}")
        return
    else:
        fresh_postgresql(name)
    call_command("migrate", run_syncdb=True, verbosity=0)
    if run and not settings["ENGINE"].endswith("sqlite3"):
        connections["default"].close()
        fresh_postgresql(f"{name}_{run}", template=name)


def fresh_postgresql(name: str, *, template: str = "template1") -> None:
    with _server() as server:
        server.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')


def drop_copies(run: str) -> None:
    """Drop the databases that a run kept to copy."""
    with _server() as server:
        for (name,) in server.execute("SELECT datname FROM pg_database").fetchall():
            if name.startswith("bench_jobs_") and name.endswith(f"_{run}"):
                server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _exists(name: str) -> bool:
    with _server() as server:
        return bool(server.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone())


def _server() -> Any:
    import psycopg

    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True)


@contextmanager
def running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        yield process
    finally:
        # With all its children, and not gracefully, which takes some contenders longer than to be measured.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
