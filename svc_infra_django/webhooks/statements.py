"""Tables, moments and ids as SQL that is written by hand needs them."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections, router


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
