"""Questions about keys, and the one way into the audit log."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.db import connection, models, transaction
from django.db.models import Q

from ..observability.context import request_id
from ..principals import Principal
from ..rows import OwnedQuerySet
from .hashing import audit_keys, chained

if TYPE_CHECKING:
    from .models import ApiKey, AuditEntry, AuditHead, UsageHour


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


class AuditQuerySet(models.QuerySet["AuditEntry"]):
    def append(
        self, key: ApiKey, action: str, *, actor: Any = None, now: datetime, **details: Any
    ) -> AuditEntry:
        """Write what happened to the key, chained to the entry before.

        In the caller's transaction: an act that is undone was never written down. Until that
        transaction ends, everybody else who appends waits.
        """
        user = actor.user if isinstance(actor, Principal) else actor
        with transaction.atomic(savepoint=False):
            head = self._locked_head()
            entry = self.model(
                sequence=head.sequence + 1,
                at=now,
                action=action,
                key_id=key.pk,
                key_name=key.name,
                key_hint=key.hint,
                owner=str(key.owner_id),
                tenant=key.tenant,
                actor="" if user is None else str(user.pk),
                actor_method=actor.method if isinstance(actor, Principal) else "",
                request_id=request_id()[:128],
                details=details,
            )
            entry.digest = chained(bytes(head.digest), entry.told(), key=audit_keys()[0])
            entry.save(force_insert=True)
            head.sequence, head.digest = entry.sequence, entry.digest
            head.save(update_fields=["sequence", "digest"])
        return entry

    def _locked_head(self) -> AuditHead:
        heads = self.model.head_model()._default_manager
        head = heads.select_for_update().first()
        if head is None:
            # Of two firsts at once the database lets one in, and both then wait for the lock.
            heads.bulk_create([heads.model(pk=1)], ignore_conflicts=True)
            head = heads.select_for_update().get()
        return head
