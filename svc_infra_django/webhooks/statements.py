"""Tables, moments and ids as SQL that is written by hand needs them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from re import sub
from time import monotonic
from typing import Any
from uuid import UUID
from weakref import WeakKeyDictionary

from django.db import connections, router
from django.utils import timezone

from ..observability.logging import get_logger

PLAN_SECONDS = 5.0
"""A plan that is older is made anew: tables grow faster than PostgreSQL's statistics of them."""

LOSSES = 3

logger = get_logger("svc_infra_django.webhooks")


def connection_of(model: Any) -> Any:
    """Where rows of this model are written."""
    return connections[router.db_for_write(model)]


def table_of(model: Any) -> str:
    """The quoted name of the table."""
    return f'"{model._meta.db_table}"'


def stored_moment(connection: Any, moment: datetime) -> Any:
    """A moment as this database compares it."""
    return connection.ops.adapt_datetimefield_value(moment)


def stored_id(connection: Any, value: UUID) -> Any:
    """An id as this database holds it."""
    return value if connection.features.has_native_uuid_field else value.hex


def read_id(value: Any) -> UUID:
    """An id as Python has it."""
    return value if isinstance(value, UUID) else UUID(value)


def clock_ahead(connection: Any) -> timedelta:
    """How far the database's clock is ahead of this host's; SQLite's is this host's."""
    if connection.vendor != "postgresql":
        return timedelta()
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
    return moment - timezone.now()


def fetched(connection: Any, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """The rows that a statement returns whose text is the same each time.

    Outside of transactions PostgreSQL plans it once for each connection and PLAN_SECONDS, and answers in
    binary: a fifth less of its work. A plan that is refused, as after a migration, is given up and the
    statement asked in the ordinary way. In a transaction the refusal would break what the caller did, so
    nothing is planned there; nor where somebody listens, or the settings tell of a pooler.
    """
    if (
        connection.vendor == "postgresql"
        and connection.get_autocommit()
        and not (connection.in_atomic_block or connection.queries_logged or connection.execute_wrappers)
        and not connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    ):
        with connection.wrap_database_errors:
            rows = _plans.fetched(connection.connection, sql, values)
        if rows is not None:
            return rows
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


class _Plans:
    """Which statements which connection has planned, and when.

    Their names are made of their texts, so that a name stands for one text, whatever connections a pooler
    mixes up. Where the server keeps losing them nothing is planned any more.
    """

    def __init__(self) -> None:
        self._made_at: WeakKeyDictionary[Any, dict[bytes, float]] = WeakKeyDictionary()
        self.losses = 0

    def fetched(self, opened: Any, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]] | None:
        """The rows; None if the statement has to be asked in the ordinary way, which tells why."""
        from psycopg import adapt, pq  # only PostgreSQL's users have it

        if self.losses >= LOSSES:
            return None
        name, text = _numbered(sql)
        server, made_at = opened.pgconn, self._made_at.setdefault(opened, {})
        if monotonic() - made_at.get(name, float("-inf")) > PLAN_SECONDS:
            if made_at.pop(name, None):
                server.exec_(b"DEALLOCATE " + name)
            server.prepare(name, text)
            made_at[name] = monotonic()
        written = adapt.Transformer(opened).dump_sequence(values, [adapt.PyFormat.TEXT] * len(values))
        result = server.exec_prepared(name, written, result_format=pq.Format.BINARY)
        if result.status == pq.ExecStatus.TUPLES_OK:
            reader = adapt.Transformer(opened)
            reader.set_pgresult(result)
            return reader.load_rows(0, result.ntuples, tuple)
        del made_at[name]
        if result.error_field(pq.DiagnosticField.SQLSTATE) == UNKNOWN_STATEMENT:
            self.losses += 1
            if self.losses == LOSSES:
                logger.warning("PostgreSQL does not keep prepared statements; deliveries go on without")
        else:
            server.exec_(b"DEALLOCATE " + name)
        return None


UNKNOWN_STATEMENT = b"26000"
"""SQLSTATE of a name that the server has no statement for."""

_plans = _Plans()


@lru_cache
def _numbered(sql: str) -> tuple[bytes, bytes]:
    """A name for the statement, and its text with the marks that PostgreSQL itself reads."""
    numbers = count(1)
    text = sub("%s", lambda _: f"${next(numbers)}", sql).encode()
    return b"svc_" + blake2b(text, digest_size=16).hexdigest().encode(), text
