"""Where the jobs are kept, and how it is written to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django.db import connections, router, transaction
from django.utils import timezone

from .models import Job


def database() -> str:
    """The alias of the database that holds the jobs."""
    return router.db_for_write(Job)


@contextmanager
def immediate(alias: str) -> Iterator[None]:
    """A transaction that has the right to write from its first statement on.

    SQLite gives that only when it is asked for; asked later, it refuses with `database is locked`.
    """
    connection: Any = connections[alias]
    if connection.vendor == "sqlite" and not connection.in_atomic_block:
        connection.ensure_connection()
        usual, connection.transaction_mode = connection.transaction_mode, "IMMEDIATE"
        try:
            with transaction.atomic(using=alias):
                yield
        finally:
            connection.transaction_mode = usual
    else:
        with transaction.atomic(using=alias):
            yield


def database_now() -> datetime:
    """The time by the clock that all workers share."""
    connection = connections[database()]
    if connection.vendor != "postgresql":
        return timezone.now()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
        return moment
