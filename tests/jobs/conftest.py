from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, suppress
from datetime import timedelta
from pathlib import Path
from threading import Event, Thread
from types import MappingProxyType
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import Group
from django.db import DatabaseError, connection, connections
from django.utils import timezone

from svc_infra_django.jobs import enqueue_many
from svc_infra_django.jobs.models import Job, Worker
from tests import servers
from tests.jobs import forked, work

GIB = 1 << 30
FAST = {
    # No test waits for a lease: see `presume_dead`. Nor may one run out while a busy machine pauses.
    "lease_seconds": 600.0,
    "heartbeat_seconds": 0.3,
    "rescue_seconds": 0.3,
    "stage_seconds": 0.05,
    "schedule_seconds": 0.1,
    "idle_poll_seconds": 0.05,
    "grace_seconds": 5.0,
    "concurrency": 4,
}


def wait_until(condition: Callable[[], Any], *, seconds: float = 90.0, what: str = "") -> Any:
    """Poll until `condition` is true; fail loudly if it never is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"never came: {what or condition}")


def presume_dead(pid: int, *, silent_for: float = 86_400.0) -> None:
    """Make the lease of a worker that was killed or frozen run out now."""
    heard_of_at = timezone.now() - timedelta(seconds=silent_for)
    Worker.objects.filter(pid=pid).update(heartbeat_at=heard_of_at)


def is_writable() -> bool:
    """Whether nobody holds the write lock that all writers of a SQLite database share."""
    if connection.vendor != "sqlite":
        return True
    other = sqlite3.connect(str(connection.settings_dict["NAME"]), timeout=0, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    finally:
        other.close()
    return True


def stop_still(group: int) -> bool:
    """SIGSTOP to all processes of a group, at a moment when none of them holds a lock, or else not.

    SQLite's lock of all writers would hold up everybody for ever. A system call that was begun comes to its
    end first, and may be the one that takes the lock.
    """
    os.killpg(group, signal.SIGSTOP)
    wait_until(lambda: stands_still(group), what="the end of their system calls")
    if is_writable():
        return True
    os.killpg(group, signal.SIGCONT)
    return False


def stands_still(group: int) -> bool:
    for thread in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, its_group = thread.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state not in "TZX":
                return False
    return True


def accepted(ledger: str) -> list[str]:
    """Jobs of all kinds. One holds its worker until there is a file, see `held_by`."""
    return [
        work.keep_books.using(priority=1).enqueue(ledger, "held", 0.0).id,
        *enqueue_many(work.keep_books, [[ledger, "plain", 0.02]] * 60),
        *enqueue_many(work.keep_books_atomically, [[ledger, number, 0.02] for number in range(30)]),
        *enqueue_many(work.keep_books, [[ledger, "shaky", 0.0]] * 10),
        *enqueue_many(work.keep_books_by_twos, [[ledger, 0.02]] * 12),
    ]


def held_by(ledger: str) -> int:
    """The process that is in the middle of something, for sure."""
    return int(wait_until(lambda: work.read(f"{ledger}.held"))[0])


def let_go(ledger: str) -> None:
    Path(f"{ledger}.flag").touch()


def the_laws_hold(ids: list[str], ledger: str) -> None:
    """For the jobs that were accepted, though somebody was killed in the middle of something."""
    lines = [line.split() for line in work.read(ledger)]
    starts = Counter(job for job, what, _ in lines if what == "start")
    ends = Counter(job for job, what, _ in lines if what == "end")
    jobs = {str(job.pk): job for job in Job.objects.all()}
    assert set(jobs) == set(ids), "what was rolled back does not exist"
    assert {job.state for job in jobs.values()} == {Job.State.SUCCEEDED}
    assert Counter(Group.objects.values_list("name", flat=True)) == {f"book {n}": 1 for n in range(30)}
    for pk, job in jobs.items():
        assert 1 <= ends[pk] <= starts[pk] <= job.attempt <= job.max_attempts, job.args
        # A crash between two attempts of a claim counts an attempt that nobody saw begin.
        assert job.attempt - starts[pk] <= job.crashes
        assert job.attempts.filter(outcome="crashed").count() == job.crashes
    assert sum(job.crashes for job in jobs.values()) > 0
    assert most_at_once(lines, [pk for pk in jobs if jobs[pk].concurrency_key]) <= 2


def most_at_once(lines: list[list[str]], jobs: Collection[str]) -> int:
    """How many of these jobs were under way together. One whose worker died is, until it was run again."""
    under_way, most = set[str](), 0
    for job, what, _ in lines:
        if job in jobs:
            (under_way.add if what == "start" else under_way.discard)(job)
            most = max(most, len(under_way))
    return most


# Workers are forked from a process that has imported everything already: a start costs milliseconds.
multiprocessing.set_forkserver_preload(["tests.jobs.forked"])
forking = multiprocessing.get_context("forkserver")


class Process:
    """A worker process on the test database."""

    def __init__(
        self,
        log: Path,
        *args: str,
        under_parent: Path | None = None,
        around: Mapping[str, Any] = MappingProxyType({}),
        **overrides: object,
    ) -> None:
        """`overrides` are settings of the jobs app, `around` fields of `forked.Surroundings`.

        With `under_parent` it is the parent of a worker, which goes with it; the worker's id is in that file.
        """
        self.log = log
        log.touch()
        database = {name: connection.settings_dict[name] for name in ("NAME", "HOST", "PORT", "USER")}
        surroundings = forked.Surroundings(
            **{"database": database, "settings": {**FAST, **overrides}, "log": str(log), **around}
        )
        if under_parent is None:
            self._process = forking.Process(target=forked.run_worker, args=(surroundings, list(args)))
        else:
            self._process = forking.Process(
                target=forked.run_worker_under_a_parent, args=(surroundings, str(under_parent))
            )
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    def ready(self) -> Process:
        wait_until(lambda: "worker ready (pid" in self.output() or not self.is_alive(), what="a ready worker")
        assert self.is_alive(), self.output()
        return self

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def output(self) -> str:
        return self.log.read_text()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and its lease is over."""
        self.signal(signal.SIGKILL)
        self.wait()
        presume_dead(self.pid)

    def freeze(self) -> None:
        """SIGSTOP; SIGCONT lets it go on."""
        wait_until(lambda: stop_still(self.pid), what="a moment to freeze in")

    def wait(self, seconds: float = 90.0) -> int | None:
        self._process.join(seconds)
        return self._process.exitcode

    def end(self) -> None:
        """SIGKILL to it and to all that it started: they would take the jobs of the next test."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join(60)
        self._process.close()


@pytest.fixture
def worker(transactional_db: None, tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Start worker processes: `worker("--queues", "mail", grace_seconds=3)`. All are killed at the end."""
    started: list[Process] = []

    def start(*args: str, **options: Any) -> Process:
        process = Process(tmp_path / f"worker-{len(started)}.log", *args, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        process.end()


REWRITTEN = {
    "postgresql": """
        CREATE TABLE rewritten (job_id uuid);
        CREATE FUNCTION note_rewritten() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO rewritten VALUES (OLD.id); RETURN NULL; END';
        CREATE TRIGGER rewritten AFTER UPDATE ON svc_jobs_job FOR EACH ROW
            WHEN (OLD.state IN (2, 3, 4)) EXECUTE FUNCTION note_rewritten();
    """,
    "sqlite": """
        CREATE TABLE rewritten (job_id text);
        CREATE TRIGGER rewritten AFTER UPDATE ON svc_jobs_job WHEN OLD.state IN (2, 3, 4)
            BEGIN INSERT INTO rewritten VALUES (OLD.id); END;
    """,
}
UNDO_REWRITTEN = {
    "postgresql": "DROP FUNCTION note_rewritten CASCADE; DROP TABLE rewritten;",
    "sqlite": "DROP TRIGGER rewritten; DROP TABLE rewritten;",
}


@pytest.fixture
def rewritten(transactional_db: None) -> Iterator[Callable[[], int]]:
    """How often anybody wrote to a job that was finished already. The database itself keeps count."""

    def run(script: Mapping[str, str]) -> None:
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                cursor.connection.executescript(script["sqlite"])
            else:
                cursor.execute(script["postgresql"])

    def count() -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM rewritten")
            return int(cursor.fetchone()[0])

    run(REWRITTEN)
    yield count
    run(UNDO_REWRITTEN)


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger")


@pytest.fixture
def fast_settings(svc_settings: Callable[..., None]) -> None:
    svc_settings(jobs=FAST)


def states() -> Counter[str]:
    return Counter(Job.State(state).label for state in Job.objects.values_list("state", flat=True))


class Database:
    """A PostgreSQL of the test's own, which it may crash."""

    def __init__(self, cluster: servers.Cluster) -> None:
        self.url = cluster.url
        self._cluster = cluster
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        self._running.enter_context(self._cluster.running(stop=signal.SIGQUIT))

    def crash(self) -> None:
        self._running.close()


@pytest.fixture
def database(transactional_db: None) -> Iterator[Database]:
    """Put in the place of the test database, with the tables of the jobs, until the test has ended."""
    with servers.cluster() as cluster:
        made = Database(cluster)
        usual = dict(connection.settings_dict)
        connection.close()
        connection.settings_dict |= {
            "HOST": "127.0.0.1", "PORT": cluster.port, "NAME": "postgres", "USER": "test", "PASSWORD": ""
        }  # fmt: skip
        try:
            with connection.schema_editor() as editor:
                for label in ("contenttypes", "auth", "svc_jobs"):
                    for model in apps.get_app_config(label).get_models():
                        editor.create_model(model)
            yield made
        finally:
            connection.close()
            connection.settings_dict |= usual
            made.crash()


def accepted_through_crashes(database: Database, ledger: str) -> list[str]:
    """The jobs that were accepted while the database crashed three times."""
    accepted, stop = list[str](), Event()

    def produce() -> None:
        number = 0
        while not stop.wait(0.01):
            number += 1
            task, args = work.keep_books, [ledger, "plain", 0.01]
            if number % 3 == 0:
                task, args = work.keep_books_atomically, [ledger, number, 0.01]
            try:
                accepted.append(task.enqueue(*args).id)
            except DatabaseError:
                connections.close_all()
        connections.close_all()

    producer = Thread(target=produce)
    producer.start()
    for crash in range(1, 4):
        wait_until(lambda most=crash * 25: len(accepted) >= most, what="jobs")
        database.crash()
        database.start()
    wait_until(lambda: len(accepted) >= 100)
    stop.set()
    producer.join()
    connection.close()
    return accepted


def all_come_to_a_good_end(accepted: list[str], ledger: str) -> None:
    final = Job.objects.filter(state__in=Job.FINAL)
    wait_until(lambda: final.count() == Job.objects.count(), what="the end of all jobs")
    assert set(accepted) <= {str(pk) for pk in Job.objects.values_list("pk", flat=True)}
    assert states().keys() == {"succeeded"}
    atomic = Job.objects.filter(task=work.keep_books_atomically.module_path)
    books = [f"book {job.args['args'][1]}" for job in atomic]
    assert Counter(Group.objects.values_list("name", flat=True)) == Counter(books), "each once"
    starts = Counter(line.split()[0] for line in work.read(ledger) if " start " in line)
    for job in Job.objects.all():
        # A claim whose answer was lost with the connection is handed back, and nobody began it.
        assert 1 <= starts[str(job.pk)] <= job.attempt + job.crashes + 3
        assert job.crashes == 0, "nobody died but the database"


@pytest.fixture
def pooled(transactional_db: None) -> Iterator[None]:
    """The test and its workers reach their database by a pooler that shares connections."""
    usual = dict(connection.settings_dict)
    with servers.pooler(usual) as port:
        connection.close()
        connection.settings_dict |= {"HOST": "127.0.0.1", "PORT": port}
        yield
        connection.close()
        connection.settings_dict |= usual


def switch(setting: str, value: str) -> None:
    """Change a setting of the test database; everybody has to connect anew, as to one that was promoted."""
    name = connection.ops.quote_name(str(connection.settings_dict["NAME"]))
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")
        cursor.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def advisory_locks() -> int:
    """How many are held in the test database; the tests beside this one hold theirs on the same server."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database "
            "WHERE locktype = 'advisory' AND datname = current_database()"
        )
        (count,) = cursor.fetchone()
    return int(count)


class Cutter:
    """Between workers and PostgreSQL: loses a connection when a success was written, before it says so."""

    MARK = b"state = 2, finished_at"

    def __init__(self, target: tuple[str, int]) -> None:
        self.has_cut = False
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        to_cut = Event()
        with client, socket.create_connection(self._target) as server, suppress(OSError):
            Thread(target=self._ask, args=(client, server, to_cut), daemon=True).start()
            while (data := server.recv(1 << 16)) and not to_cut.is_set():
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)

    def _ask(self, client: socket.socket, server: socket.socket, to_cut: Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if self.MARK in data and not self.has_cut:
                    self.has_cut = True
                    to_cut.set()
                server.sendall(data)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def cutter(transactional_db: None) -> Iterator[Cutter]:
    made = Cutter((connection.settings_dict["HOST"], int(connection.settings_dict["PORT"] or 5432)))
    yield made
    made.close()
