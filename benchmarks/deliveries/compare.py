"""Deliveries a second from the row that asks for it to the row that says it was delivered.

The same PostgreSQL, receiver and bodies of 1 KiB for everybody, one machine. Ours is one worker process;
the peers have as many as they are fastest with. "while published" publishes each message in a transaction
of its own while the worker is already delivering, so the publisher is part of it; "a backlog" waits in the
database (and the peer's broker) before the worker starts, and the first tenth is not counted.

The peers: one Celery task for each delivery, which signs, posts with `requests` and writes three rows, as
such code does; and django-outbound-webhooks, the best of the senders on PyPI. The bare client signs and
posts like ours and touches no database: what is between it and ours is what recording costs. The last two
rows are CPU: what a delivery costs our worker beside what the receiver needs to answer it, and what it
costs the database beside what we allow ourselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

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

CELERY = "a Celery task per delivery (requests, prefork)"
RELAYS = "django-outbound-webhooks"
DATABASE_MICROSECONDS = 60.0

HANGING = Contender("hanging", "benchmarks.deliveries.hanging")

AT_ONCE = {"BENCH_DELAY": "0", "BENCH_ENDPOINTS": "10"}
SLOWLY = {"BENCH_DELAY": "0.05", "BENCH_ENDPOINTS": "200"}

# what is measured, how the receiver is, the peer, its processes, deliveries a round of ours and of the
# peer, the ratio to reach
CASES = (
    ("while published, answered at once", "publishing", AT_ONCE, PER_TASK, CELERY, "4", 2000, 1000, 2.0),
    ("while published, 50 ms, 200 endpoints", "publishing", SLOWLY, PER_TASK, CELERY, "16", 2000, 1000, 2.0),
    ("a backlog, answered at once", "backlog", AT_ONCE, PER_TASK, CELERY, "4", 10_000, 1000, 60.0),
    ("a backlog, 50 ms, 200 endpoints", "backlog", SLOWLY, PER_TASK, CELERY, "16", 10_000, 1000, 60.0),
    ("a backlog, answered at once", "backlog", AT_ONCE, OUTBOUND, RELAYS, "2", 10_000, 400, 30.0),
    ("a backlog, 50 ms, 200 endpoints", "backlog", SLOWLY, OUTBOUND, RELAYS, "16", 10_000, 400, 30.0),
)  # fmt: skip


def compare() -> Iterator[Case]:
    for what, mode, receiver, peer, peer_name, workers, count, peer_count, bar in CASES:
        yield measured(
            what,
            unit="deliveries per second",
            bar=bar,
            peer_name=peer_name,
            ours=_measuring(OURS, mode, count, **receiver),
            peer=_measuring(peer, mode, peer_count, **receiver, BENCH_WORKERS=workers),
            higher_is_better=True,
        )
    for what, receiver in (("answered at once", AT_ONCE), ("50 ms, 200 endpoints", SLOWLY)):
        yield measured(
            f"a backlog, {what}",
            unit="deliveries per second",
            bar=0.25,
            peer_name="the bare client: pycurl, no database",
            ours=_measuring(OURS, "backlog", 10_000, **receiver),
            peer=lambda receiver=receiver: RAW.measure("10000", **receiver),  # type: ignore[misc]
            higher_is_better=True,
        )
    yield measured(
        "50 quick endpoints beside one that hangs, p99",
        unit="milliseconds",
        bar=round(1 / 1.5, 2),
        peer_name="the same without the one that hangs",
        ours=lambda: HANGING.measure("beside"),
        peer=lambda: HANGING.measure("alone"),
        higher_is_better=False,
    )
    for what in ("sign", "verify"):
        yield measured(
            f"{what} 1 KiB",
            unit="microseconds",
            bar=round(1 / 1.2, 2),
            peer_name="HMAC-SHA256 and base64 alone",
            ours=lambda what=what: SIGNATURES.measure(what),  # type: ignore[misc]
            peer=lambda: SIGNATURES.measure("bare"),
            higher_is_better=False,
        )
    yield measured(
        "CPU of the worker",
        unit="microseconds a delivery",
        bar=0.0,
        peer_name="CPU of the receiver that answers it",
        ours=_measuring(OURS, "backlog", 10_000, **AT_ONCE, BENCH_MEASURE="worker"),
        peer=_measuring(OURS, "backlog", 10_000, **AT_ONCE, BENCH_MEASURE="receiver"),
        higher_is_better=False,
    )
    yield measured(
        "CPU of PostgreSQL",
        unit="microseconds a delivery",
        bar=1.0,
        peer_name="what we allow ourselves",
        ours=_measuring(OURS, "backlog", 10_000, **AT_ONCE, BENCH_MEASURE="database"),
        peer=lambda: DATABASE_MICROSECONDS,
        higher_is_better=False,
    )


def _measuring(program: Contender, mode: str, count: int, **environment: str) -> Callable[[], float]:
    return lambda: program.measure(mode, str(count), **environment)
