"""Questions about keys, and the one way into the audit log."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import connection, models
from django.db.models import Q

from ..chains import ChainedQuerySet
from ..observability.context import current, request_id
from ..principals import Principal
from ..rows import OwnedQuerySet

if TYPE_CHECKING:
    from .models import ApiKey, AuditEntry, UsageHour


class ApiKeyQuerySet(OwnedQuerySet["ApiKey"]):
    def usable(self, *, now: datetime) -> ApiKeyQuerySet:
        """Keys that are accepted now, if their owner is."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None)


class UsageQuerySet(models.QuerySet["UsageHour"]):
    def add(self, rows: Iterable[UsageHour]) -> None:
        """Add the numbers of `rows` to those that are there, in one statement."""
        fields: list[Any] = [self.model._meta.get_field(name) for name in ("key", "hour", "used", "refused")]
        values = [
            field.get_db_prep_save(getattr(row, field.attname), connection)
            for row in rows
            for field in fields
        ]
        place = f"({', '.join(['%s'] * len(fields))})"
        table = connection.ops.quote_name(self.model._meta.db_table)
        with connection.cursor() as cursor:
            # Not the ORM: it cannot add to the row that is there.
            cursor.execute(
                f"INSERT INTO {table} (key_id, hour, used, refused)"  # noqa: S608  # names of our own, values apart
                f" VALUES {', '.join([place] * (len(values) // len(fields)))}"
                " ON CONFLICT (key_id, hour) DO UPDATE SET"
                f" used = {table}.used + excluded.used, refused = {table}.refused + excluded.refused",
                values,
            )


class AuditQuerySet(ChainedQuerySet["AuditEntry"]):
    def append(
        self, key: ApiKey, action: str, *, actor: Any = None, now: datetime, **details: Any
    ) -> AuditEntry:
        """Write what happened to the key, in the caller's transaction: what is undone leaves no entry."""
        user = actor.user if isinstance(actor, Principal) else actor
        return self.create(
            created_at=now,
            action=action,
            key_id=key.pk,
            key_name=key.name,
            key_hint=key.hint,
            owner=str(key.owner_id),
            tenant=key.tenant,
            # Where no actor is named, as when a user is deleted: whoever is signed in.
            actor=str(current().get("user_id", "") if user is None else user.pk)[:64],
            actor_method=actor.method if isinstance(actor, Principal) else "",
            request_id=request_id()[:128],
            details=details,
        )
