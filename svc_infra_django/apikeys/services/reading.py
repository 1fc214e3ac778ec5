"""A key and its owner are read by one statement, composed once: composing costs ten times the query."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache as once
from typing import Any

from django.core.signals import setting_changed
from django.db import connections, router
from django.db.models import Model

from ..models import ApiKey


@dataclass(frozen=True, slots=True)
class Statement:
    """What Django composed: the text, its parameters, and how columns become fields."""

    sql: str
    parameters: tuple[Any, ...]
    places: tuple[int, ...]
    """Where among the parameters the digests belong."""

    compiler: Any
    converters: dict[int, Any]
    models: tuple[tuple[type[Model], int, tuple[str, ...]], ...]
    """Of the key and of its owner: the model, the first column, and the names of the fields."""


def read_key(digests: Collection[bytes], *, environment: str) -> ApiKey | None:
    """The key with one of these digests, with its owner. One query."""
    # Where the rows are written: a copy that lags behind would be believed for longer than we promise.
    alias = router.db_for_write(ApiKey)
    statement = composed(alias, len(digests), environment)
    connection: Any = connections[alias]
    parameters = list(statement.parameters)
    for place, digest in zip(statement.places, digests, strict=True):
        parameters[place] = connection.Database.Binary(digest)
    with connection.cursor() as cursor:
        cursor.execute(statement.sql, parameters)
        found = cursor.fetchone()
    if found is None:
        return None
    (row,) = statement.compiler.apply_converters([found], statement.converters)
    key, owner = (
        model.from_db(alias, names, row[start : start + len(names)])
        for model, start, names in statement.models
    )
    key.owner = owner  # type: ignore[attr-defined]
    return key  # type: ignore[return-value]


@once
def composed(alias: str, count: int, environment: str) -> Statement:
    """The statement for so many digests."""
    stand_ins = [number.to_bytes(32, "big") for number in range(count)]
    rows = ApiKey.objects.using(alias).select_related("owner").order_by()
    compiler = rows.filter(digest__in=stand_ins, environment=environment).query.get_compiler(alias)
    sql, parameters = compiler.as_sql()
    # Drivers wrap bytes: psycopg in an object of its own, sqlite3 in a memoryview. Both tell what is inside.
    inner = [getattr(parameter, "obj", parameter) for parameter in parameters]
    places = tuple(inner.index(stand_in) for stand_in in stand_ins)
    columns = [column for column, *_ in compiler.select]
    infos = [compiler.klass_info, *compiler.klass_info["related_klass_infos"]]
    return Statement(
        sql=sql,
        parameters=tuple(parameters),
        places=places,
        compiler=compiler,
        converters=compiler.get_converters(columns),
        models=tuple(
            (
                info["model"],
                info["select_fields"][0],
                tuple(columns[index].target.attname for index in info["select_fields"]),
            )
            for info in infos
        ),
    )


def _forget_statements(*, setting: str, **_: Any) -> None:
    if setting in ("DATABASES", "AUTH_USER_MODEL", "TIME_ZONE", "USE_TZ"):
        composed.cache_clear()


setting_changed.connect(_forget_statements, dispatch_uid="svc_infra_django.apikeys.reading")
