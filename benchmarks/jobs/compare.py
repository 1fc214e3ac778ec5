"""Jobs that do nothing, through our queue and through its peers, on one machine and one PostgreSQL.

Each contender first has all its jobs in its table; its one worker process is then started, and measured from
the tenth part of them to the last. Latency is from before the enqueueing of a single job to inside its body,
on a worker with nothing else to do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from benchmarks.harness import Case, Contender
from benchmarks.harness import compare as measured

DJANGO = "django>=6.0,<6.1" if sys.version_info >= (3, 12) else "django>=5.2,<6.0"
PSYCOPG = "psycopg[binary,pool]==3.3.9"

OURS = Contender("ours", "benchmarks.jobs.ours")
PROCRASTINATE = Contender(
    "procrastinate", "benchmarks.jobs.peers.procrastinate_app", ("procrastinate==3.10.0", PSYCOPG)
)
TASKS_DB = Contender(
    "tasks_db", "benchmarks.jobs.peers.django_tasks", (DJANGO, PSYCOPG, "django-tasks-db==0.13.0")
)
OX = Contender("ox", "benchmarks.jobs.peers.django_tasks", (DJANGO, PSYCOPG, "django-ox==1.9.1"))
CELERY = Contender("celery_plain", "benchmarks.jobs.peers.celery_plain", ("celery[redis]==5.7.0", PSYCOPG))

MANY, FEW, MOST, HISTORY = 20_000, 600, 120_000, "1000000"


def compare() -> Iterator[Case]:
    yield from _against_the_field()
    yield from _against_sqlite()
    yield from _latency()
    yield from _celery()
    yield from _ourselves()


def _against_the_field() -> Iterator[Case]:
    peers = [("procrastinate", PROCRASTINATE, ("1", "10"))]
    if sys.version_info >= (3, 12):
        # Both stand on the Tasks that Django itself has from 6.0 on.
        peers += [("django-tasks-db", TASKS_DB, ("1",)), ("django-ox", OX, ("1", "10"))]
    for name, peer, concurrencies in peers:
        for concurrency in concurrencies:

            def theirs(peer: Contender = peer, concurrency: str = concurrency) -> float:
                return peer.measure("drain", str(FEW), concurrency, BENCH_PEER=peer.name)

            yield measured(
                f"PostgreSQL, concurrency {concurrency}", unit="jobs per second", bar=25.0, peer_name=name,
                ours=lambda concurrency=concurrency: OURS.measure("drain", str(MANY), concurrency),
                peer=theirs, higher_is_better=True,
            )  # fmt: skip


def _against_sqlite() -> Iterator[Case]:
    if sys.version_info < (3, 12):
        return
    environment = {"BENCH_DATABASE": "sqlite", "BENCH_PEER": "tasks_db"}
    yield measured(
        "SQLite, concurrency 1", unit="jobs per second", bar=50.0, peer_name="django-tasks-db",
        ours=lambda: OURS.measure("drain", str(MANY), "1", **environment),
        peer=lambda: TASKS_DB.measure("drain", str(FEW), "1", **environment), higher_is_better=True,
    )  # fmt: skip


def _latency() -> Iterator[Case]:
    for percentile in ("50", "99"):
        yield measured(
            f"idle worker, percentile {percentile}", unit="milliseconds to the body", bar=1.0,
            peer_name="procrastinate",
            ours=lambda percentile=percentile: OURS.measure("latency", "60", percentile),
            peer=lambda percentile=percentile: PROCRASTINATE.measure("latency", "60", percentile),
            higher_is_better=False,
        )  # fmt: skip


def _celery() -> Iterator[Case]:
    for what, environment, bar in (
        ("Celery engine, ids in chunks", {}, 4.0),
        ("Celery engine, single ids", {"BENCH_SINGLE": "1"}, 0.8),
    ):

        def ours(environment: dict[str, str] = environment) -> float:
            return OURS.measure("drain", "5000", "1", BENCH_ENGINE="celery", **environment)

        yield measured(
            what, unit="jobs per second", bar=bar, peer_name="plain Celery, Redis, one process",
            ours=ours, peer=lambda: CELERY.measure("drain", "5000", "1"), higher_is_better=True,
        )  # fmt: skip


def _ourselves() -> Iterator[Case]:
    yield measured(
        "against a loop that only claims and acknowledges", unit="jobs per second", bar=0.25,
        peer_name="raw psycopg, 100 at a time",
        ours=lambda: OURS.measure("drain", str(MANY), "10"),
        peer=lambda: OURS.measure("raw-rate", str(MANY)), higher_is_better=True,
    )  # fmt: skip
    yield measured(
        "a million finished rows in the table", unit="jobs per second", bar=0.8, peer_name="an empty table",
        ours=lambda: OURS.measure("drain", str(MANY), "10", BENCH_HISTORY=HISTORY),
        peer=lambda: OURS.measure("drain", str(MANY), "10"), higher_is_better=True,
    )  # fmt: skip
    yield measured(
        "ten thousand scheduled jobs in the table", unit="jobs per second", bar=0.8,
        peer_name="an empty table",
        ours=lambda: OURS.measure("drain", str(MANY), "10", BENCH_HISTORY="10001", BENCH_WAITING="1"),
        peer=lambda: OURS.measure("drain", str(MANY), "10"), higher_is_better=True,
    )  # fmt: skip
    yield measured(
        "an old snapshot held open over 120,000 jobs", unit="jobs per second", bar=0.5, peer_name="none open",
        ours=lambda: OURS.measure("drain", str(MOST), "10", BENCH_SNAPSHOT="1"),
        peer=lambda: OURS.measure("drain", str(MOST), "10"), higher_is_better=True,
    )  # fmt: skip
    yield measured(
        "ten thousand blocked jobs with limits in the table", unit="jobs per second", bar=0.8,
        peer_name="an empty table",
        ours=lambda: OURS.measure("drain", str(MANY), "10", BENCH_LIMITED="10000"),
        peer=lambda: OURS.measure("drain", str(MANY), "10"), higher_is_better=True,
    )  # fmt: skip
    yield measured(
        "enqueue_many", unit="jobs per second", bar=0.4, peer_name="INSERT ... unnest",
        ours=lambda: OURS.measure("enqueue-rate", str(MANY)),
        peer=lambda: OURS.measure("unnest-rate", str(MANY)), higher_is_better=True,
    )  # fmt: skip
    yield measured(
        "a single enqueue", unit="milliseconds", bar=1 / 1.3, peer_name="Model.objects.create",
        ours=lambda: OURS.measure("enqueue-ms", "1000"),
        peer=lambda: OURS.measure("create-ms", "1000"), higher_is_better=False,
    )  # fmt: skip
