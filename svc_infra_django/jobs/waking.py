"""How workers hear of new work: in the same process, by NOTIFY, or by the commits that SQLite counts."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event
from time import monotonic
from typing import Any

from django.db import Error as DatabaseFailure
from django.db import connections

from ..observability.logging import get_logger
from .database import database

logger = get_logger("svc_infra_django.jobs")

CHANNEL = "svc_jobs"
NOTIFY_SECONDS = 0.01
LISTEN_SECONDS = 0.5

_listeners: set[Event] = set()
_notified: dict[str, float] = {}


def commits() -> int:
    """A number that changes with every commit of another connection. SQLite only."""
    connection: Any = connections[database()]
    connection.ensure_connection()
    # Asked so often that Django's cursor would cost more than the answer.
    with connection.wrap_database_errors:
        return int(connection.connection.execute("PRAGMA data_version").fetchone()[0])


def listen(event: Event) -> None:
    """Set `event` whenever this process commits new work."""
    _listeners.add(event)


def unlisten(event: Event) -> None:
    _listeners.discard(event)


def wake(queue: str = "") -> None:
    """Wake the workers: those of this process, and on PostgreSQL, by NOTIFY, those of all others.

    Call it after the commit. Inside a transaction NOTIFY takes a lock that all commits of the database wait
    for. A worker that was woken looks again soon by itself, so one call in ten milliseconds is enough.
    """
    for event in tuple(_listeners):
        event.set()
    connection = connections[database()]
    now = monotonic()
    if connection.vendor != "postgresql" or now - _notified.get(queue, 0.0) < NOTIFY_SECONDS:
        return
    _notified[queue] = now
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_notify(%s, %s)", [CHANNEL, queue])
    except DatabaseFailure as error:
        # The work is committed, and workers look for it by themselves too.
        logger.warning("workers could not be woken", error=repr(error))


def notifications(stopping: Event) -> Iterator[str]:
    """The queues that other processes tell of, over a connection of its own, until `stopping` is set.

    An empty string stands for any queue, and comes first: what was told before is lost. Raises
    psycopg.Error when the connection breaks. PostgreSQL only.
    """
    connection: Any = connections[database()]
    parameters = {**connection.get_connection_params(), "autocommit": True}
    with connection.Database.connect(**parameters) as listening:
        listening.execute(f"LISTEN {CHANNEL}")
        yield ""
        while not stopping.is_set():
            for told in listening.notifies(timeout=LISTEN_SECONDS, stop_after=1):
                yield told.payload
