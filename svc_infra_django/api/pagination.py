"""Pages by key: each starts after the last row of the one before, however many rows there are."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import ninja
import orjson
from asgiref.sync import sync_to_async
from django.core.signing import BadSignature, Signer
from django.db.models import F, Model, Q, QuerySet
from django.db.models.fields.tuple_lookups import TupleGreaterThan, TupleLessThan
from pydantic import Field

from ..errors import ConfigurationError, FieldProblem, ValidationError

DEFAULT_LIMIT = 50
MAX_LIMIT = 100


class PageQuery(ninja.Schema):
    """The query parameters of a list: `page: Query[PageQuery]`."""

    limit: int = Field(DEFAULT_LIMIT, ge=1, le=MAX_LIMIT, description="Most rows to return.")
    cursor: str | None = Field(None, max_length=4096, description="`next_cursor` of the page before.")


class BadCursor(ValidationError):
    """This cursor is not one that this list gave."""

    code = "bad_cursor"


class NoKey(ConfigurationError):
    """A list can only be paged by columns that are never null."""

    code = "api.no_key"


def paginated(
    queryset: QuerySet[Any], page: PageQuery, *, order: Sequence[str] = ("-created_at", "-id")
) -> dict[str, Any]:
    """One page of `queryset` as a dict for `Page[...]`: one query, no COUNT, no OFFSET.

    `order` names columns that are never null, `-` before those that descend; the primary key is added
    to break ties if it is not there. Rows that come or go between two calls make no other row appear
    twice or not at all. The cursor is signed and fits this model and order only. Raises BadCursor.
    """
    keys = _complete(queryset.model, order)
    signer = Signer(salt=f"svc_infra_django.api.cursor:{queryset.model._meta.label}:{','.join(keys)}")
    rows = queryset.order_by(*keys)
    if page.cursor is not None:
        rows = rows.filter(_after(keys, _decoded(page.cursor, signer)))
    found = list(rows[: page.limit + 1])
    more = len(found) > page.limit
    items = found[: page.limit]
    return {"items": items, "next_cursor": _encoded(items[-1], keys, signer) if more else None}


apaginated = sync_to_async(paginated)


def _complete(model: type[Model], order: Sequence[str]) -> tuple[str, ...]:
    names = {key.lstrip("-") for key in order}
    if names & {"pk", "id", getattr(model._meta.pk, "name", "pk")}:
        return tuple(order)
    return (*order, "-pk" if order and order[-1].startswith("-") else "pk")


def _after(keys: Sequence[str], values: Sequence[Any]) -> Any:
    columns = [F(key.lstrip("-")) for key in keys]
    descending = {key.startswith("-") for key in keys}
    if len(descending) == 1 and len(keys) > 1:
        # One comparison of rows, which one index on these columns answers.
        return (TupleLessThan if True in descending else TupleGreaterThan)(tuple(columns), tuple(values))
    after = Q()
    for key, value in reversed(list(zip(keys, values, strict=True))):
        column = key.lstrip("-")
        beyond = Q((f"{column}__{'lt' if key.startswith('-') else 'gt'}", value))
        after = beyond | (Q((column, value)) & after) if after else beyond
    return after


def _encoded(row: Any, keys: Sequence[str], signer: Signer) -> str:
    values = [_tagged(_value(row, key.lstrip("-"))) for key in keys]
    return urlsafe_b64encode(signer.sign(orjson.dumps(values).decode()).encode()).decode().rstrip("=")


def _decoded(cursor: str, signer: Signer) -> list[Any]:
    try:
        signed = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        return [_untagged(each) for each in orjson.loads(signer.unsign(signed))]
    except (ValueError, BadSignature):
        raise BadCursor(errors=[FieldProblem("/query/cursor", "bad_cursor", BadCursor().message)]) from None


def _value(row: Any, path: str) -> Any:
    for name in path.split("__"):
        row = getattr(row, name)
    if row is None:
        raise NoKey()
    return row


def _tagged(value: Any) -> list[Any]:
    for tag, kind, write, _ in CODECS:
        if isinstance(value, kind):
            return [tag, write(value)]
    return ["", value]


def _untagged(pair: list[Any]) -> Any:
    tag, value = pair
    return next((read(value) for known, _, _, read in CODECS if known == tag), value)


# JSON has no such types, and a date and time must keep its microseconds. Order matters: a datetime is a date.
CODECS: tuple[tuple[str, type, Callable[[Any], Any], Callable[[Any], Any]], ...] = (
    ("t", datetime, datetime.isoformat, datetime.fromisoformat),
    ("d", date, date.isoformat, date.fromisoformat),
    ("u", UUID, str, UUID),
    ("n", Decimal, str, Decimal),
)
