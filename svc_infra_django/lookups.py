"""One row by a unique column, as fast as its database can find it."""

from __future__ import annotations

import marshal
import re
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from itertools import count
from logging import getLogger
from secrets import token_bytes
from typing import Any
from weakref import WeakSet

import orjson
from django.core.signals import setting_changed
from django.db import connections, models

FINGERPRINT_SIZE = 32

logger = getLogger("svc_infra_django.lookups")


class Row:
    """What was read of one object: its columns as attributes, and the object when one is asked for."""

    def __init__(self, columns: _Columns, values: Sequence[Any] | _Unread, connection: Any) -> None:
        self._columns, self._values, self._connection = columns, values, connection

    def __getattr__(self, name: str) -> Any:
        place = self._columns.places.get(name)
        if place is None:  # something of the project's own that is no column
            return getattr(self.made(), name)
        value = self.__dict__[name] = self._columns.read(place, self._values, self._connection)
        return value

    @property
    def fingerprint(self) -> bytes:
        """A digest of all that was read, of the objects it was selected with too.

        Who worked something out of columns alone may keep it under this name: it is found again as long
        as no column has changed. Of what cannot be written down it is another one each time.
        """
        try:
            text = _written(self._values)
        except TypeError:
            return token_bytes(FINGERPRINT_SIZE)
        return blake2b(text, digest_size=FINGERPRINT_SIZE).digest()

    def made(self) -> Any:
        """The object, as Django makes it."""
        columns = self._columns
        values = [columns.read(place, self._values, self._connection) for place in columns.made_of]
        return columns.model.from_db(self._connection.alias, columns.names, values)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which columns of an answer are of one model, and how each is read."""

    model: type[models.Model]
    names: list[str]
    made_of: range
    places: dict[str, int]
    converters: dict[int, tuple[list[Any], Any]]

    def read(self, place: int, values: Sequence[Any] | _Unread, connection: Any) -> Any:
        value = values[place]
        if place in self.converters:
            calls, column = self.converters[place]
            for convert in calls:
                value = convert(value, column, connection)
        return value


@dataclass(frozen=True)
class _Statement:
    """What Django composed: the text, its parameters, and whose the columns of the answer are."""

    sql: str
    parameters: tuple[Any, ...]
    places: tuple[int, ...]
    """Where among the parameters the keys belong."""

    field: models.Field[Any, Any]
    columns: tuple[_Columns, ...]
    declared: tuple[str, ...]
    """The type of each column of the answer, as its table has it."""

    @cached_property
    def for_sqlite(self) -> _PlainSelect:
        return _PlainSelect(self.sql, self.declared)

    @cached_property
    def for_postgresql(self) -> _Plan:
        numbers = count(1)
        return _Plan(_placed(self.sql, lambda: f"${next(numbers)}"))


class PreparedLookup:
    """One row by a unique column, by SQL that Django composes once for each database.

    To compose a query, and to make objects of the answer, costs more than a database needs to find it.
    `build` makes the queryset, with `select_related` perhaps; it is called when the first row is asked
    for, and again when settings change. `by` names the column.
    """

    def __init__(self, build: Callable[[], models.QuerySet[Any, Any]], *, by: str = "pk") -> None:
        self._build = build
        self._by = by
        self._composed: dict[tuple[str, int], _Statement] = {}
        setting_changed.connect(self._forget)

    def get(self, *keys: Any, using: str) -> tuple[Row, ...] | None:
        """The row with one of `keys` in the database `using`, and those it was selected with; or None."""
        statement = self._composed.get((using, len(keys))) or self._compose(keys, using)
        connection = connections[using]
        parameters = list(statement.parameters)
        for place, key in zip(statement.places, keys, strict=True):
            parameters[place] = statement.field.get_db_prep_value(key, connection)
        found = _fetched(connection, statement, parameters)
        return found and tuple(Row(columns, found, connection) for columns in statement.columns)

    def _compose(self, keys: Sequence[Any], using: str) -> _Statement:
        rows = self._build().using(using).filter(**{f"{self._by}__in": keys}).order_by()
        # A connection of its own: what is composed is used by every thread, and outlives this one.
        connection = connections.create_connection(using)
        compiler = rows.query.get_compiler(connection=connection)
        sql, parameters = compiler.as_sql()
        selected = [column for column, *_ in compiler.select]
        converters = {
            place: (list(calls), column)
            for place, (calls, column) in compiler.get_converters(selected).items()
        }
        infos = [compiler.klass_info, *compiler.klass_info.get("related_klass_infos", ())]
        field: Any = rows.model._meta.pk if self._by == "pk" else rows.model._meta.get_field(self._by)
        written = [_inside(field.get_db_prep_value(key, connection)) for key in keys]
        connection.close()
        inner = [_inside(parameter) for parameter in parameters]
        statement = _Statement(
            sql=sql,
            parameters=tuple(parameters),
            places=tuple(inner.index(key) for key in written),
            field=field,
            columns=tuple(_columns(info, selected, converters) for info in infos),
            declared=tuple(column.output_field.db_type(connection) or "" for column in selected),
        )
        self._composed[using, len(keys)] = statement
        return statement

    def _forget(self, **_: Any) -> None:
        self._composed.clear()


def _fetched(connection: Any, statement: _Statement, parameters: list[Any]) -> Any:
    """The first row of the answer, or None.

    Unless somebody listens, past Django's cursor: what that does to the text of a statement, and to the
    columns of an answer, takes longer than a database needs to find it.
    """
    if not (connection.queries_logged or connection.execute_wrappers):
        connection.ensure_connection()
        connection.validate_thread_sharing()
        connection.validate_no_broken_transaction()
        try:
            if connection.vendor == "sqlite":
                return statement.for_sqlite.fetched(connection, parameters)
            if connection.vendor == "postgresql" and statement.for_postgresql.suits(connection):
                result = statement.for_postgresql.executed(connection, parameters)
                if result is not None:
                    return _Unread.of_postgresql(result, connection) if result.ntuples else None
        except connection.Database.Error:
            with connection.wrap_database_errors:
                raise
    with connection.cursor() as cursor:
        cursor.execute(statement.sql, parameters)
        return cursor.fetchone()


class _Unread:
    """A row as the database wrote it: a column is read when it is asked for."""

    def __init__(self, written: tuple[Any, ...], read: Callable[[int, Any], Any]) -> None:
        self.written, self._read = written, read

    @classmethod
    def of_postgresql(cls, result: Any, connection: Any) -> _Unread:
        # Not the connection itself, which may be gone when a column is read.
        adapters = connection.connection.adapters

        def read(place: int, text: bytes) -> Any:
            from psycopg.adapt import Transformer  # only PostgreSQL's users have it

            loader = Transformer(adapters).get_loader(result.ftype(place), result.fformat(place))
            return loader.load(text)

        return cls(tuple(result.get_value(0, place) for place in range(result.nfields)), read)

    def __getitem__(self, place: int) -> Any:
        value = self.written[place]
        return None if value is None else self._read(place, value)


class _PlainSelect:
    """A statement for SQLite whose answer sqlite3 hands over as it is.

    A column with a sign before it is an expression, and has no declared type for which sqlite3 would look
    up a converter each time, and call it.
    """

    COLUMN = re.compile(r'("[^"]+"\."[^"]+")(?=, | FROM )')

    def __init__(self, sql: str, declared: Sequence[str]) -> None:
        selected, word, rest = sql.partition(" FROM ")
        plain = self.COLUMN.sub(r"+\1", selected + word) + rest
        self._sql = _placed(plain, lambda: "?")
        self._declared = [kind.partition("(")[0].partition(" ")[0].upper() for kind in declared]

    def fetched(self, connection: Any, parameters: list[Any]) -> _Unread | None:
        # To the end, for a statement that stands at a row keeps others from writing.
        rows = connection.connection.execute(self._sql, parameters).fetchall()
        return _Unread(rows[0], self._read) if rows else None

    def _read(self, place: int, value: Any) -> Any:
        convert = sqlite3.converters.get(self._declared[place])
        if convert is None:
            return value
        return convert(value if isinstance(value, bytes) else str(value).encode())


class _Plan:
    """A statement that PostgreSQL plans once for each connection, by libpq itself.

    Its name is made of its text: whatever else a pooler of connections mixes up, a name stands for one
    text. Where the server keeps losing statements they are given up.
    """

    LOSSES = 3

    def __init__(self, sql: str) -> None:
        from psycopg import adapt, pq  # only PostgreSQL's users have it

        self._adapt, self._pq = adapt, pq
        self._sql = sql.encode()
        self._name = b"svc_" + blake2b(self._sql, digest_size=16).hexdigest().encode()
        self._known_to: WeakSet[Any] = WeakSet()
        self._losses = 0

    def suits(self, connection: Any) -> bool:
        """Not in a transaction, which the refusal of a plan that became old would break.

        Nor behind a pooler that the project's settings tell of.
        """
        return (
            connection.autocommit
            and not connection.in_atomic_block
            and not connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
            and self._losses < self.LOSSES
        )

    def executed(self, connection: Any, parameters: list[Any]) -> Any:
        """The result; None if the statement has to be asked in the ordinary way, which tells why."""
        opened = connection.connection
        adapters = self._adapt.Transformer(opened)
        written = adapters.dump_sequence(parameters, [self._adapt.PyFormat.AUTO] * len(parameters))
        if opened not in self._known_to:
            opened.pgconn.prepare(self._name, self._sql, adapters.types)
            self._known_to.add(opened)
        result = opened.pgconn.exec_prepared(self._name, written, adapters.formats)
        if result.status == self._pq.ExecStatus.TUPLES_OK:
            return result
        self._known_to.discard(opened)
        if result.error_field(self._pq.DiagnosticField.SQLSTATE) == UNKNOWN_STATEMENT:
            self._lost()
        else:
            opened.pgconn.exec_(b"DEALLOCATE " + self._name)
        return None

    def _lost(self) -> None:
        self._losses += 1
        if self._losses == self.LOSSES:
            logger.warning(
                "PostgreSQL does not keep prepared statements, as behind a pooler of connections: lookups go "
                "on without. With DISABLE_SERVER_SIDE_CURSORS it is not tried."
            )


UNKNOWN_STATEMENT = b"26000"
"""SQLSTATE of a name that the server has no statement for."""

_PLACE = re.compile("%[%s]")


def _placed(sql: str, mark: Callable[[], str]) -> str:
    """The text with a mark of the driver's own for each of Django's, and its percent signs single again."""
    return _PLACE.sub(lambda found: "%" if found[0] == "%%" else mark(), sql)


def _written(values: Sequence[Any] | _Unread) -> bytes:
    """All that was read, as text. Raises TypeError if something cannot be written down."""
    if isinstance(values, _Unread):
        # Texts, bytes and numbers; of the form that knows no references, the same for the same values.
        return marshal.dumps(values.written, 0)
    return orjson.dumps(values, default=_as_hex)


def _as_hex(value: Any) -> str:
    if isinstance(value, bytes | memoryview):
        return value.hex()
    raise TypeError


def _inside(parameter: Any) -> Any:
    # Drivers wrap bytes: psycopg in an object of its own, sqlite3 in a memoryview. Both tell what is inside.
    return getattr(parameter, "obj", parameter)


def _columns(
    info: dict[str, Any], selected: Sequence[Any], converters: dict[int, tuple[list[Any], Any]]
) -> _Columns:
    made_of = range(info["select_fields"][0], info["select_fields"][-1] + 1)
    names = [selected[place].target.attname for place in made_of]
    places = dict(zip(names, made_of, strict=True))
    return _Columns(
        model=info["model"],
        names=names,
        made_of=made_of,
        places={"pk": places[info["model"]._meta.pk.attname], **places},
        converters={place: converters[place] for place in made_of if place in converters},
    )
