"""Jobs that do nothing, through our queue and through its peers, on one machine and one PostgreSQL.

Each contender first has all its jobs in its table; its one worker process is then started, and measured from
the tenth part of them to the last. Latency is from before the enqueueing of a single job to inside its body,
on a worker with nothing else to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic

from benchmarks.harness import ROUNDS, Case, Contender, is_chosen, judged
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
CELERY = Contender("celery_plain", "benchmarks.jobs.peers.celery_plain", ("celery[redis]==5.7.0", PSYCOPG))

MANY, MOST, FEW, HISTORY = "20000", "120000", "600", "1000000"
JOBS = "jobs per second"
Measure = Callable[[], float]


@dataclass(frozen=True)
class Row:
    """A row of the result, by the names of two measures."""

    case: str
    ours: str
    peer: str
    bar: float
    unit: str = JOBS
    is_better_higher: bool = True


def in_turn(
    part: str, measures: Mapping[str, Measure], rows: Sequence[Row], *, rounds: int = ROUNDS
) -> Iterator[Case]:
    """Take what the chosen rows need, `rounds` times in turn. A measure that fails is told and left out."""
    rounds = min(rounds, ROUNDS)
    rows = [row for row in rows if is_chosen(row.case, row.peer)]
    needed = {name for row in rows for name in (row.ours, row.peer)}
    found: dict[str, list[float]] = {name: [] for name in measures if name in needed}
    failed: dict[str, str] = {}
    for number in range(1, rounds + 1):
        for name, values in found.items():
            if name in failed:
                continue
            started = monotonic()
            try:
                values.append(measures[name]())
                told = f"{values[-1]:.1f}"
            except Exception as error:  # a peer that fails costs its own rows and no other
                failed[name] = str(error).strip().splitlines()[-1]
                told = f"FAILED, and is left out:\n{error}"
            seconds = monotonic() - started
            print(f"  {part}, round {number} of {rounds}, {name}: {told} ({seconds:.0f} s)", flush=True)
    for row in rows:
        if reason := failed.get(row.ours) or failed.get(row.peer):
            yield Case(row.case, 0, 0, row.peer, row.unit, 0, 0, row.bar, met=False, left_out=reason)
        else:
            yield judged(
                row.case, list(zip(found[row.ours], found[row.peer], strict=True)),
                unit=row.unit, bar=row.bar, peer_name=row.peer, higher_is_better=row.is_better_higher,
            )  # fmt: skip


def drained(contender: Contender, concurrency: str, *, jobs: str = FEW, **environment: str) -> Measure:
    return partial(contender.measure, "drain", jobs, concurrency, BENCH_PEER=contender.name, **environment)


def one_at_a_time() -> Iterator[Case]:
    case = "PostgreSQL, concurrency 1"
    measures = {
        "ours": drained(OURS, "1", jobs=MANY),
        "procrastinate": drained(PROCRASTINATE, "1"),
        "django-tasks-db": drained(TASKS_DB, "1"),
        "django-ox": drained(OX, "1"),
    }
    yield from in_turn(case, measures, [Row(case, "ours", name, 25.0) for name in measures if name != "ours"])


def ten_at_a_time() -> Iterator[Case]:
    case = "PostgreSQL, concurrency 10"
    measures = {
        "ours": drained(OURS, "10", jobs=MANY),
        "procrastinate": drained(PROCRASTINATE, "10"),
        "django-ox": drained(OX, "10"),
        "django-q2": drained(Q2, "10"),
        "oban-py": drained(OBAN, "10", jobs="5000"),
        "PgQueuer": drained(PGQUEUER, "10", jobs="2000"),
    }
    bars = {"procrastinate": 25.0, "django-ox": 25.0, "django-q2": 1.0, "oban-py": 1.0, "PgQueuer": 1.0}
    yield from in_turn(case, measures, [Row(case, "ours", name, bar) for name, bar in bars.items()])


def sqlite() -> Iterator[Case]:
    case = "SQLite, concurrency 1"
    measures = {
        "ours": drained(OURS, "1", jobs=MANY, BENCH_DATABASE="sqlite"),
        "django-tasks-db": drained(TASKS_DB, "1", jobs="300", BENCH_DATABASE="sqlite"),
    }
    yield from in_turn(case, measures, [Row(case, "ours", "django-tasks-db", 50.0)])


def latency() -> Iterator[Case]:
    contenders = {"ours": OURS, "procrastinate": PROCRASTINATE, "oban-py": OBAN, "PgQueuer": PGQUEUER}
    runs = {name: Latencies(contender) for name, contender in contenders.items()}
    measures: dict[str, Measure] = {"10 ms": lambda: 10.0, "50 ms": lambda: 50.0}
    rows = []
    for percentile, limit in ((50, "10 ms"), (99, "50 ms")):
        named = {name: f"{name}, percentile {percentile}" for name in runs}
        measures |= {named[name]: partial(run, percentile) for name, run in runs.items()}
        case, unit = f"idle worker, percentile {percentile}", "milliseconds to the body"
        mine, *theirs = named.values()
        rows += [Row(case, mine, peer, 1.0, unit, is_better_higher=False) for peer in (limit, *theirs)]
    yield from in_turn("latency", measures, rows)


class Latencies:
    """The percentiles of one run: who asks for the same one again has another run."""

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._left: dict[int, float] = {}

    def __call__(self, percentile: int) -> float:
        if percentile not in self._left:
            numbers = self._contender.measure_all("latency", "40")
            self._left = dict(zip((50, 99), numbers, strict=True))
        return self._left.pop(percentile)


def celery() -> Iterator[Case]:
    engine = {"BENCH_ENGINE": "celery"}
    peer = "plain Celery, Redis, one process"
    measures = {
        peer: drained(CELERY, "1", jobs="4000"),
        "single": drained(OURS, "1", jobs="4000", BENCH_SINGLE="1", **engine),
        "chunks": drained(OURS, "1", jobs="10000", **engine),
    }
    rows = [
        Row("Celery engine, single ids", "single", peer, 0.8),
        Row("Celery engine, ids in chunks", "chunks", peer, 4.0),
    ]
    yield from in_turn("Celery", measures, rows)


def tables() -> Iterator[Case]:
    """What lies in the table beside the jobs, and the limit of what the database can do."""
    raw, empty = "raw psycopg, 100 at a time", "an empty table"
    tens = partial(drained, OURS, "10")
    measures = {
        empty: tens(jobs=MANY),
        raw: partial(OURS.measure, "raw-rate", MANY),
        "history": tens(jobs=MANY, BENCH_HISTORY=HISTORY),
        "scheduled": tens(jobs=MANY, BENCH_HISTORY="10001", BENCH_WAITING="1"),
        "blocked": tens(jobs=MANY, BENCH_LIMITED="10000"),
    }
    rows = [
        Row("against a loop that only claims and acknowledges", empty, raw, 0.25),
        Row("a million finished rows in the table", "history", empty, 0.8),
        Row("ten thousand scheduled jobs in the table", "scheduled", empty, 0.8),
        Row("ten thousand blocked jobs with limits in the table", "blocked", empty, 0.8),
    ]
    yield from in_turn("tables", measures, rows)


def snapshot() -> Iterator[Case]:
    case, closed = "an old snapshot held open over 120,000 jobs", "none open"
    measures = {
        closed: drained(OURS, "10", jobs=MOST),
        "snapshot": drained(OURS, "10", jobs=MOST, BENCH_SNAPSHOT="1"),
    }
    yield from in_turn("snapshot", measures, [Row(case, "snapshot", closed, 0.5)], rounds=3)


def enqueueing() -> Iterator[Case]:
    unnest, create = "INSERT ... unnest", "Model.objects.create"
    measures = {
        "enqueue_many": partial(OURS.measure, "enqueue-rate", MANY),
        unnest: partial(OURS.measure, "unnest-rate", MANY),
        "enqueue": partial(OURS.measure, "enqueue-ms", "1000"),
        create: partial(OURS.measure, "create-ms", "1000"),
    }
    rows = [
        Row("enqueue_many", "enqueue_many", unnest, 0.4),
        Row("a single enqueue", "enqueue", create, 1 / 1.3, "milliseconds", is_better_higher=False),
    ]
    yield from in_turn("enqueueing", measures, rows)


@contextmanager
def one_run() -> Iterator[None]:
    """Let the contenders migrate their databases once, and copy them from then on."""
    run = os.environ["BENCH_RUN"] = str(os.getpid())
    try:
        yield
    finally:
        drive.drop_copies(run)


def compare() -> Iterator[Case]:
    with one_run():
        for measured in (
            one_at_a_time, ten_at_a_time, celery, tables, snapshot, enqueueing, latency, sqlite
        ):  # fmt: skip
            yield from measured()
