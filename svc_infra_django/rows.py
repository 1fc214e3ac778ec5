"""Columns that many tables share, so that they mean the same everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from django.conf import settings
from django.core.signals import setting_changed
from django.db import connections, models

from .identifiers import uuid7
from .principals import Principal

RowT = TypeVar("RowT", bound=models.Model, covariant=True)

TENANT_LENGTH = 128

# The statement, the field of its one parameter, and how to read which columns of the answer.
Compiled = tuple[str, "models.Field[Any, Any]", list[tuple[int, list[Any], Any]]]


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


class PreparedLookup:
    """One row by its primary key, as a tuple, by SQL that Django builds once for each database.

    Building a query costs more than a database needs to answer it. `build` makes the queryset, by
    `values_list`; it is called when the first row is asked for, and again when settings change.
    """

    def __init__(self, build: Callable[[], models.QuerySet[Any, tuple[Any, ...]]]) -> None:
        self._build = build
        self._compiled: dict[str, Compiled] = {}
        setting_changed.connect(self._forget)

    def get(self, pk: Any, *, using: str) -> tuple[Any, ...] | None:
        """The columns of the row with the key `pk` in the database `using`, or None."""
        sql, key, conversions = self._compiled.get(using) or self._compile(pk, using)
        connection = connections[using]
        with connection.cursor() as cursor:
            cursor.execute(sql, (key.get_db_prep_value(pk, connection),))
            found = cursor.fetchone()
        if found is None:
            return None
        row = list(found)
        for place, converters, column in conversions:
            for convert in converters:
                row[place] = convert(row[place], column, connection)
        return tuple(row)

    def _compile(self, pk: Any, using: str) -> Compiled:
        rows = self._build().using(using)
        key = rows.model._meta.pk
        # A connection of its own: what is compiled is used by every thread, and outlives this one.
        connection = connections.create_connection(using)
        compiler = rows.filter(pk=pk).order_by().query.get_compiler(connection=connection)
        sql, _ = compiler.as_sql()
        converters = compiler.get_converters([column for column, *_ in compiler.select])
        connection.close()
        conversions = [(place, list(calls), column) for place, (calls, column) in converters.items()]
        self._compiled[using] = (sql, key, conversions)
        return self._compiled[using]

    def _forget(self, **_: Any) -> None:
        self._compiled.clear()
