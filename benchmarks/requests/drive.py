"""Sends requests to a WSGI application and says what one costs: µs of CPU, in this process or a server's.

Runs in the peers' environments too, so it knows nothing but Django and the standard library.
"""

from __future__ import annotations

import http.client
import io
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TURNS = 15
TURN_REQUESTS = 100
IN_PROCESS_REQUESTS = 1500
SERVED_REQUESTS = 1500
CONNECTIONS = 4
THREADS = 4
SECRET_KEY = "a-key-for-measuring-only-" * 3


def database() -> dict[str, Any]:
    """SQLite in the folder that `main` made; PostgreSQL at BENCH_DATABASE_URL, in a database of its own."""
    if url := os.environ.get("BENCH_DATABASE_URL"):
        server = urlsplit(url)
        return {
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": f"bench_{os.environ.setdefault('BENCH_NAME', str(os.getpid()))}",
                "USER": server.username,
                "PASSWORD": server.password,
                "HOST": server.hostname,
                "PORT": server.port,
                "CONN_MAX_AGE": None,
            }
        }
    return {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(Path(os.environ.get("BENCH_FOLDER", tempfile.gettempdir())) / "bench.sqlite3"),
            "CONN_MAX_AGE": None,
            # As a service that lives on SQLite has it, whoever is measured.
            "OPTIONS": {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"},
        }
    }


def main(module: str, token: Callable[[], str | dict[str, str]]) -> None:
    """`python -m <module> path way`: way is `wsgi`, `wall` or `granian`; `share` for a path compares two.

    `wall` is `wsgi` by the clock on the wall, for a database that works in a process of its own.

    `token` makes an Authorization header, or whatever headers the peer takes a token in.
    """
    path, way = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["BENCH_FOLDER"] = folder
        from django.conf import settings
        from django.core.management import call_command

        with made_database(settings.DATABASES["default"], folder):
            call_command("migrate", verbosity=0)
            made = {} if path.startswith("/api/open") else token()
            headers = {"Authorization": made} if isinstance(made, str) else made
            print(share(module, way, headers) if path == "share" else WAYS[way](module, path, headers))


def share(module: str, way: str, headers: dict[str, str]) -> float:
    """Per cent of the open operation's speed that the one with a credential has.

    The open one stands before the other among the routes, and behind it: the search for a route costs both
    the same.

    The way `threads` is `wall` with as many requests at once as a server's threads send.
    """
    clock = time.process_time if way == "wsgi" else time.perf_counter
    application = sys.modules["__main__"].application
    threads = THREADS if way == "threads" else 1
    pool = ThreadPoolExecutor(threads)

    def some(path: str, headers: dict[str, str], requests: int) -> None:
        sent = _in_environ(headers)
        for _ in range(requests):
            _call(application, path, sent)

    def turn(path: str, headers: dict[str, str], requests: int) -> float:
        started = clock()
        for each in [pool.submit(some, path, headers, requests) for _ in range(threads)]:
            each.result()
        return clock() - started

    with served(module) if way == "granian" else nullcontext(turn) as asked:

        def ratio() -> float:
            without, wanted = 0.0, 0.0
            for path in ("/api/open", "/api/open/last"):
                without += asked(path, {}, TURN_REQUESTS)
                wanted += asked("/api/mine", headers, TURN_REQUESTS)
            return without / wanted

        return 100 * statistics.median([ratio() for _ in range(TURNS + 2)][2:])


@contextmanager
def made_database(database: dict[str, Any], folder: str) -> Iterator[None]:
    if "postgresql" not in database["ENGINE"]:
        database["NAME"] = f"{folder}/bench.sqlite3"
        yield
        return
    import psycopg
    from django.db import connections

    with psycopg.connect(os.environ["BENCH_DATABASE_URL"], autocommit=True) as server:
        server.execute(f"CREATE DATABASE {database['NAME']}")  # a name of our own making
        try:
            yield
        finally:
            connections.close_all()
            server.execute(f"DROP DATABASE {database['NAME']} WITH (FORCE)")


def in_process(
    module: str, path: str, headers: dict[str, str], clock: Callable[[], float] = time.process_time
) -> float:
    """Call the application as a server would, with nothing between."""
    application, sent = sys.modules["__main__"].application, _in_environ(headers)
    for count in (IN_PROCESS_REQUESTS // 5, IN_PROCESS_REQUESTS):
        started = clock()
        for _ in range(count):
            _call(application, path, sent)
        spent = clock() - started
    return spent / IN_PROCESS_REQUESTS * 1e6


def _in_environ(headers: dict[str, str]) -> dict[str, str]:
    return {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()}


def _call(application: Any, path: str, sent: dict[str, str]) -> None:
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": path,
        "QUERY_STRING": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        **sent,
    }
    statuses: list[str] = []
    response = application(environ, lambda status, headers, error=None: statuses.append(status))
    b"".join(response)
    response.close()
    _expect(path, int(statuses[0].split()[0]))


def over_granian(module: str, path: str, headers: dict[str, str]) -> float:
    """Serve the application with one worker; only the server's own CPU time counts."""
    with served(module) as asked:
        asked(path, headers, SERVED_REQUESTS // 5)
        return asked(path, headers, SERVED_REQUESTS) / SERVED_REQUESTS * 1e6


@contextmanager
def served(module: str) -> Iterator[Callable[[str, dict[str, str], int], float]]:
    """Serve the application; gives what sends so many requests and says how many CPU seconds they took."""
    port = _free_port()
    command = [
        sys.executable,
        "-m",
        "granian",
        "--interface",
        "wsgi",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    command += ["--workers", "1", "--blocking-threads", "2", "--no-access-log", "--log-level", "warning"]
    server = subprocess.Popen([*command, f"{module}:application"], stdout=subprocess.DEVNULL)
    try:
        connections = [_connected(port) for _ in range(CONNECTIONS)]

        def asked(path: str, headers: dict[str, str], requests: int) -> float:
            started = _cpu_seconds(server.pid)
            for number in range(requests):
                connection = connections[number % CONNECTIONS]
                connection.request("GET", path, headers=headers)
                response = connection.getresponse()
                response.read()
                _expect(path, response.status)
            return _cpu_seconds(server.pid) - started

        yield asked
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(10)


WAYS = {"wsgi": in_process, "wall": partial(in_process, clock=time.perf_counter), "granian": over_granian}


def _expect(path: str, status: int) -> None:
    if status != (404 if path.endswith("missing") else 200):
        raise SystemExit(f"{path} answered {status}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _connected(port: int) -> http.client.HTTPConnection:
    for _ in range(600):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        with suppress(OSError):
            connection.connect()
            return connection
        time.sleep(0.05)
    raise SystemExit("granian did not start")


def _cpu_seconds(pid: int) -> float:
    """Of the process and its children (Linux), to the nanosecond, which `stat` does not know."""
    seconds = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text(encoding="utf-8").rpartition(")")[2].split()[1])
            one = int(stat.parent.name)
            if pid in (one, parent):
                seconds += time.clock_gettime(
                    ~one << 3 | 2
                )  # the clock of its CPU time, as the kernel names it
    return seconds
