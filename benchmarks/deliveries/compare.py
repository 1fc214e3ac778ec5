"""Deliveries a second from the row that asks for it to the row that says it was delivered.

The same PostgreSQL, receiver and bodies of 1 KiB for everybody, one machine. Ours is one worker process, and
so are the peers; rows without a bar tell what one of ours does against several of theirs, one for each core
or sixteen. "while published" publishes each message in a transaction of its own while the worker is already
delivering, so the publisher is part of it; "a backlog" waits in the database (and the peer's broker) before
the worker starts, and the first tenth is not counted. Run it by `make bench`: its PostgreSQL keeps what it
committed, as in production. A sender that commits several times for a delivery is then as fast as the disk,
and no steadier: it gets seconds enough for a middle value.

The peers: one Celery task for each delivery, which signs, posts with `requests` and writes three rows, as
such code does; and django-outbound-webhooks, the best of the senders on PyPI. The bare client signs and
posts like ours and touches no database: what is between it and ours is what recording costs. The fair claim
goes round the endpoints; beside it stands one that takes what is due longest. The last rows are CPU: what a
delivery costs our worker beside what the receiver needs to answer it, what it costs the database beside what
we allow ourselves, and what it costs both where much has happened before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.harness import Case, Contender
from benchmarks.harness import compare as measured

DJANGO = ("django>=5.2,<6.1", "psycopg[binary]==3.3.9")
OURS = Contender("ours", "benchmarks.deliveries.ours")
SIGNATURES = Contender("signatures", "benchmarks.deliveries.signatures")
RAW = Contender("raw", "benchmarks.deliveries.raw")
PER_TASK = Contender(
    "per_task", "benchmarks.deliveries.per_task.run", (*DJANGO, "celery[redis]==5.7.0", "requests")
)
OUTBOUND = Contender(
    "outbound", "benchmarks.deliveries.outbound.run", (*DJANGO, "django-outbound-webhooks==0.4.0")
)

CELERY = "a Celery task per delivery"
RELAYS = "django-outbound-webhooks"
DATABASE_MICROSECONDS = 60.0

HANGING = Contender("hanging", "benchmarks.deliveries.hanging")
CLAIMS = Contender("claims", "benchmarks.deliveries.claims")
GROWTH = Contender("growth", "benchmarks.deliveries.growth")

AT_ONCE = {"BENCH_DELAY": "0", "BENCH_ENDPOINTS": "10"}
SLOWLY = {"BENCH_DELAY": "0.05", "BENCH_ENDPOINTS": "200"}

WHERE = (("answered at once", AT_ONCE), ("50 ms, 200 endpoints", SLOWLY))
ROUNDS = 3
DISK_ROUNDS = 5
"""For a peer that commits several times for a delivery: it is as fast as the disk, and disks are moody."""

# the peer, its name, deliveries a round where they are answered at once and slowly, the ratio to reach
PEERS = ((PER_TASK, CELERY, 1500, 150, 60.0), (OUTBOUND, RELAYS, 200, 100, 30.0))
CORES = os.cpu_count() or 1


def compare() -> Iterator[Case]:
    for peer, name, quick, slow, ratio in PEERS:
        for what, receiver, processes, mine, theirs, bar, rounds in (
            ("answered at once", AT_ONCE, 1, 20_000, quick, ratio, DISK_ROUNDS),
            ("answered at once", AT_ONCE, CORES, 20_000, quick, 0.0, 1),
            ("50 ms, 200 endpoints", SLOWLY, 1, 10_000, slow, ratio, ROUNDS),
            ("50 ms, 200 endpoints", SLOWLY, 16, 10_000, slow, 0.0, 1),
        ):
            yield measured(
                f"a backlog, {what}",
                unit="deliveries per second",
                bar=bar,
                peer_name=f"{name}, processes: {processes}",
                ours=_measuring(OURS, "backlog", mine, **receiver),
                peer=_measuring(peer, "backlog", theirs, **receiver, BENCH_WORKERS=str(processes)),
                rounds=rounds,
                higher_is_better=True,
            )
    for what, receiver in WHERE:
        yield measured(
            f"a backlog, {what}",
            unit="deliveries per second",
            bar=0.25,
            peer_name="the bare client: pycurl, no database",
            ours=_measuring(OURS, "backlog", 10_000, **receiver),
            peer=partial(RAW.measure, "10000", **receiver),
            rounds=ROUNDS,
            higher_is_better=True,
        )
    yield measured(
        "while published, answered at once",
        unit="deliveries per second",
        bar=2.0,
        peer_name=CELERY,
        ours=_measuring(OURS, "publishing", 1000, **AT_ONCE),
        peer=_measuring(PER_TASK, "publishing", 500, **AT_ONCE, BENCH_WORKERS=str(CORES)),
        rounds=1,
        higher_is_better=True,
    )
    yield measured(
        "50 quick endpoints beside one that hangs, p99",
        unit="milliseconds",
        bar=round(1 / 1.5, 2),
        peer_name="the same without the one that hangs",
        ours=partial(HANGING.measure, "beside"),
        peer=partial(HANGING.measure, "alone"),
        rounds=1,
        higher_is_better=False,
    )
    for what in ("sign", "verify"):
        yield measured(
            f"{what} 1 KiB: the speed that is left",
            unit="%",
            bar=round(1 / 1.2, 2),
            peer_name="HMAC-SHA256 and base64 alone",
            ours=partial(SIGNATURES.measure, what),
            peer=lambda: 100.0,
            higher_is_better=True,
        )
    yield measured(
        "a fair claim, 50 endpoints",
        unit="microseconds a delivery",
        bar=round(1 / 1.6, 2),
        peer_name="a claim of what is due longest",
        ours=partial(CLAIMS.measure, "fair", BENCH_ENDPOINTS="50"),
        peer=partial(CLAIMS.measure, "fifo", BENCH_ENDPOINTS="50"),
        rounds=ROUNDS,
        higher_is_better=False,
    )
    yield measured(
        "CPU of the worker",
        unit="microseconds a delivery",
        bar=0.0,
        peer_name="CPU of the receiver that answers it",
        ours=_measuring(OURS, "backlog", 10_000, **AT_ONCE, BENCH_MEASURE="worker"),
        peer=_measuring(OURS, "backlog", 10_000, **AT_ONCE, BENCH_MEASURE="receiver"),
        rounds=1,
        higher_is_better=False,
    )
    yield measured(
        "CPU of PostgreSQL",
        unit="microseconds a delivery",
        bar=1.0,
        peer_name="what we allow ourselves",
        ours=_measuring(OURS, "backlog", 20_000, **AT_ONCE, BENCH_MEASURE="database"),
        peer=lambda: DATABASE_MICROSECONDS,
        rounds=ROUNDS,
        higher_is_better=False,
    )
    yield measured(
        "CPU of both, a million deliveries past, 10,000 endpoints",
        unit="microseconds a delivery",
        bar=0.8,
        peer_name="the same in an empty database",
        ours=partial(GROWTH.measure, "grown"),
        peer=partial(GROWTH.measure, "fresh"),
        rounds=1,
        higher_is_better=False,
    )


def _measuring(program: Contender, mode: str, count: int, **environment: str) -> Callable[[], float]:
    return partial(program.measure, mode, str(count), **environment)
