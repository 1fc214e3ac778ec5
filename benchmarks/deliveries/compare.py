"""Deliveries a second from `publish` to the row that says it was delivered, against one Celery task for each.

The same PostgreSQL, receiver and messages, ten endpoints, one machine. Each message is published in a
transaction of its own while the worker is already delivering. The peer does what such code does: a task
signs, posts with `requests` and writes three rows; it runs with as many processes as it is fastest with.
The receiver answers from memory: with 50 ms of thought it shows what waiting costs.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.harness import Case, Contender
from benchmarks.harness import compare as measured

OURS = Contender("ours", "benchmarks.deliveries.ours")
PER_TASK = Contender(
    "per_task",
    "benchmarks.deliveries.per_task.run",
    ("django>=5.2,<6.1", "psycopg[binary]==3.3.9", "celery[redis]==5.7.0", "requests"),
)

# what the receiver does, its delay in seconds, deliveries a round, processes of the peer, the ratio to reach
CASES = (
    ("receiver answers at once", "0", 2000, "4", 2.0),
    ("receiver thinks for 50 ms", "0.05", 1000, "16", 2.0),
)


def compare() -> Iterator[Case]:
    for what, delay, count, workers, bar in CASES:

        def rate(program: Contender, delay: str = delay, count: int = count, workers: str = workers) -> float:
            return program.measure(str(count), BENCH_DELAY=delay, BENCH_WORKERS=workers)

        yield measured(
            what,
            unit="deliveries per second",
            bar=bar,
            peer_name="a Celery task per delivery (requests, prefork)",
            ours=lambda: rate(OURS),
            peer=lambda: rate(PER_TASK),
            higher_is_better=True,
        )
