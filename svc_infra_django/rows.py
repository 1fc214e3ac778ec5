"""Columns that many tables share, so that they mean the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from secrets import token_bytes
from typing import Any, TypeVar

import orjson
from django.conf import settings
from django.core.signals import setting_changed
from django.db import connections, models

from .identifiers import uuid7
from .principals import Principal

RowT = TypeVar("RowT", bound=models.Model, covariant=True)

TENANT_LENGTH = 128
FINGERPRINT_SIZE = 32


def id_field() -> models.UUIDField[Any, Any]:
    """A primary key that sorts by birth (UUIDv7)."""
    return models.UUIDField(primary_key=True, default=uuid7, editable=False)


def owner_field(*, on_delete: Any) -> models.ForeignKey[Any, Any]:
    """The user that a row belongs to; null where it belongs to the project itself.

    CASCADE for what must die with the user (keys, endpoints), SET_NULL for what must outlive them.
    """
    return models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=on_delete, related_name="+"
    )


def tenant_field() -> models.CharField[str, str]:
    """An opaque name of the tenant; blank where there is only one."""
    return models.CharField(max_length=TENANT_LENGTH, blank=True, default="", db_index=True)


class OwnedQuerySet(models.QuerySet[RowT]):
    """Rows with `owner` and `tenant`."""

    def owned_by(self, principal: Principal) -> OwnedQuerySet[RowT]:
        """What the principal may know of: their own rows in their own tenant. The rest is a 404.

        Whoever has no primary key owns nothing; rows without an owner belong to the project.
        """
        if principal.user.pk is None:
            return self.none()
        return self.filter(owner_id=principal.user.pk, tenant=principal.tenant)


class Row:
    """What was read of one object: its columns as attributes, and the object when one is asked for."""

    def __init__(self, columns: _Columns, values: Sequence[Any], connection: Any) -> None:
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
            text = orjson.dumps(self._values, default=_as_hex)
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

    def read(self, place: int, values: Sequence[Any], connection: Any) -> Any:
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

    @cached_property
    def for_sqlite(self) -> str:
        return self.sql.replace("%s", "?").replace("%%", "%")


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
        )
        self._composed[using, len(keys)] = statement
        return statement

    def _forget(self, **_: Any) -> None:
        self._composed.clear()


def _fetched(connection: Any, statement: _Statement, parameters: list[Any]) -> Any:
    """The first row of the answer, or None."""
    if connection.vendor != "sqlite" or connection.queries_logged or connection.execute_wrappers:
        with connection.cursor() as cursor:
            cursor.execute(statement.sql, parameters)
            return cursor.fetchone()
    # What Django's cursor does to the text of a statement takes longer than SQLite needs to answer it.
    connection.ensure_connection()
    connection.validate_thread_sharing()
    connection.validate_no_broken_transaction()
    with connection.wrap_database_errors, closing(connection.connection.cursor()) as cursor:
        return cursor.execute(statement.for_sqlite, parameters).fetchone()


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
