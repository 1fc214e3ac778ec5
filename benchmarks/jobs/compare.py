"""Jobs that do nothing, through our queue and through its peers, on one machine and one PostgreSQL.

Each contender first has all its jobs in its table; its one worker process is then started, and measured from
the tenth part of them to the last. Latency is from before the enqueueing of a single job to inside its body,
on a worker with nothing else to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks.harness import Case, Contender
from benchmarks.harness import compare as measured
from benchmarks.jobs import drive

DJANGO = "django>=6.0,<6.1"
TASKS_PYTHON = (3, 12)
"""What Django needs from 6.0 on, where it has the Tasks that some peers stand on."""

PSYCOPG = "psycopg[binary,pool]==3.3.9"

OURS = Contender("ours", "benchmarks.jobs.ours")
PROCRASTINATE = Contender(
    "procrastinate", "benchmarks.jobs.peers.procrastinate_app", ("procrastinate==3.10.0", PSYCOPG)
)
TASKS_DB = Contender(
    "tasks_db", "benchmarks.jobs.peers.django_tasks", (DJANGO, PSYCOPG, "django-tasks-db==0.13.0"),
    python=TASKS_PYTHON,
)  # fmt: skip
OX = Contender(
    "ox", "benchmarks.jobs.peers.django_tasks", (DJANGO, PSYCOPG, "django-ox==1.9.1"), python=TASKS_PYTHON
)
Q2 = Contender(
    "q2", "benchmarks.jobs.peers.django_q2", (DJANGO, PSYCOPG, "django-q2==1.11.1"), python=TASKS_PYTHON
)
OBAN = Contender("oban", "benchmarks.jobs.peers.oban_app", ("oban==0.7.0", PSYCOPG), python=(3, 12))
PGQUEUER = Contender(
    "pgqueuer", "benchmarks.jobs.peers.pgqueuer_app", ("pgqueuer==1.6.0", "asyncpg", PSYCOPG)
)
CELERY = Contender(
    "celery_plain", "benchmarks.jobs.peers.celery_plain", ("celery[redis]==5.7.0", "hiredis", PSYCOPG)
)

MANY, MOST, FEW, HISTORY = "20000", "120000", "600", "1000000"

# Each starts its worker anew, and does not count what runs while that gets warm.
in_turn = partial(measured, unit="jobs per second", higher_is_better=True, warm_up=False)


def compare() -> Iterator[Case]:
    with one_run():
        yield from _one_at_a_time()
        yield from _ten_at_a_time()
        yield from _sqlite()
        yield from _celery()
        yield from _tables()
        yield from _enqueueing()
        yield from _latency()


@contextmanager
def one_run() -> Iterator[None]:
    """Let the contenders migrate their databases once, and copy them from then on."""
    run = os.environ["BENCH_RUN"] = str(os.getpid())
    try:
        yield
    finally:
        drive.drop_copies(run)


def _one_at_a_time() -> Iterator[Case]:
    for name, peer in (("procrastinate", PROCRASTINATE), ("django-tasks-db", TASKS_DB), ("django-ox", OX)):
        yield in_turn(
            "PostgreSQL, concurrency 1", bar=25.0, peer_name=name,
            ours=OURS.each_round("drain", MANY, "1"),
            peer=peer.each_round("drain", FEW, "1", BENCH_PEER=peer.name),
        )  # fmt: skip


def _ten_at_a_time() -> Iterator[Case]:
    for name, peer, jobs, bar, rounds in (
        ("procrastinate", PROCRASTINATE, FEW, 25.0, 5),
        ("django-ox", OX, FEW, 25.0, 5),
        ("django-q2", Q2, FEW, 1.0, 3),
        ("oban-py", OBAN, "5000", 1.0, 3),
        ("PgQueuer", PGQUEUER, "5000", 1.0, 3),
    ):
        yield in_turn(
            "PostgreSQL, concurrency 10", bar=bar, peer_name=name, rounds=rounds,
            ours=OURS.each_round("drain", MANY, "10"),
            peer=peer.each_round("drain", jobs, "10", BENCH_PEER=peer.name),
        )  # fmt: skip


def _sqlite() -> Iterator[Case]:
    """Against the peer as it is with Django's defaults, and helped by a connection that is kept open.

    So many jobs that each is measured for about four seconds: in less, it is luck whether the log of the file
    is moved meanwhile, and what the disk needs for a write changes from one second to the next.
    """
    environment = {"BENCH_DATABASE": "sqlite", "BENCH_PEER": TASKS_DB.name}
    ours = OURS.each_round("drain", "80000", "1", **environment)
    for name, bar, more in (
        ("django-tasks-db", 50.0, {"BENCH_DEFAULTS": "1"}),
        ("django-tasks-db, its connection kept open", 25.0, {}),
    ):
        yield in_turn(
            "SQLite, concurrency 1", bar=bar, peer_name=name,
            ours=ours,
            peer=TASKS_DB.each_round("drain", "2000", "1", **environment, **more),
        )  # fmt: skip


def _celery() -> Iterator[Case]:
    """Both by messages of one id and by messages of many, as a backlog that is enqueued at once has them."""
    for what, jobs, environment, bar in (
        ("Celery engine, single ids", "12000", {"BENCH_SINGLE": "1"}, 0.8),
        ("Celery engine, ids in chunks", "20000", {}, 4.0),
    ):
        yield in_turn(
            what, bar=bar, peer_name="plain Celery, Redis, one process",
            ours=OURS.each_round("drain", jobs, "1", BENCH_ENGINE="celery", **environment),
            peer=CELERY.each_round("drain", "5000", "1"),
        )  # fmt: skip


def _tables() -> Iterator[Case]:
    """What lies in the table beside the jobs, and the limit of what the database can do."""
    alone = {"BENCH_ALONE": "1"}  # measured here once more, so that it is measured in the same minutes
    for beside, environment in (
        ("a million finished rows in the table", {"BENCH_HISTORY": HISTORY}),
        ("ten thousand scheduled jobs in the table", {"BENCH_HISTORY": "10001", "BENCH_WAITING": "1"}),
        ("ten thousand blocked jobs with limits in the table", {"BENCH_LIMITED": "10000"}),
    ):
        yield in_turn(
            beside, bar=0.8, peer_name="an empty table",
            ours=partial(OURS.measure, "drain", MANY, "10", **environment),
            peer=OURS.each_round("drain", MANY, "10", **alone),
        )  # fmt: skip
    yield in_turn(
        "against a loop that only claims and acknowledges", bar=0.25, peer_name="raw psycopg, 100 at a time",
        ours=OURS.each_round("drain", MANY, "10", **alone), peer=partial(OURS.measure, "raw-rate", MANY),
    )  # fmt: skip
    yield in_turn(
        "an old snapshot held open over 120,000 jobs", bar=0.5, peer_name="none open",
        ours=partial(OURS.measure, "drain", MOST, "10", BENCH_SNAPSHOT="1"),
        peer=partial(OURS.measure, "drain", MOST, "10"),
    )  # fmt: skip


def _enqueueing() -> Iterator[Case]:
    yield in_turn(
        "enqueue_many", bar=0.4, peer_name="INSERT ... unnest",
        ours=partial(OURS.measure, "enqueue-rate", MANY), peer=partial(OURS.measure, "unnest-rate", MANY),
    )  # fmt: skip
    yield in_turn(
        "a single enqueue", unit="milliseconds", bar=1 / 1.3, peer_name="Model.objects.create",
        ours=partial(OURS.measure, "enqueue-ms", "1000"), peer=partial(OURS.measure, "create-ms", "1000"),
        higher_is_better=False,
    )  # fmt: skip


def _latency() -> Iterator[Case]:
    run = ("latency", "30")
    for place, percentile, limit in ((0, 50, 10.0), (1, 99, 50.0)):
        peers: dict[str, Callable[[], float]] = {
            f"{limit:.0f} ms": partial(float, limit),
            "procrastinate": PROCRASTINATE.each_round(*run, place=place),
            "PgQueuer": PGQUEUER.each_round(*run, place=place),
        }
        for name, peer in peers.items():
            yield in_turn(
                f"idle worker, percentile {percentile}", unit="milliseconds to the body", bar=1.0,
                peer_name=name, ours=OURS.each_round(*run, place=place), peer=peer, higher_is_better=False,
            )  # fmt: skip
