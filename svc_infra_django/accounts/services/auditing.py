"""Keep what matters to security, so that nobody changes it unseen."""

from __future__ import annotations

import json
from datetime import timedelta
from hashlib import sha256
from typing import Any

from django.db.models import F

from ...events import Event
from ...observability.context import current
from ...principals import covered
from ..conf import settings
from ..models import AuditEvent, RepeatedEvent

# What a caller can bring about as often as they like, and what of it makes two of them the same: there is a
# row at once, and when the minute is over another one with how often it came again.
REPEATABLE = {
    "access.refused": ("user_id", "credential", "code", "permission"),
    "login.stopped": ("scope", "subject"),
}
MINUTE = timedelta(minutes=1)


def record_event(event: Event[Any]) -> None:
    """Write a row for an event that `audited` names, in the transaction of the event."""
    if not covered(event.type.name, settings.audited):
        return
    data = event.payload.model_dump(mode="json")
    about = current()
    row = AuditEvent(
        id=event.id,
        name=event.type.name,
        subject=str(event.owner.pk) if event.owner is not None else str(data.get("user_id", ""))[:64],
        actor=str(about.get("user_id", ""))[:64],
        tenant=event.tenant,
        client_address=data.pop("client_address", "") or None,
        request_id=str(about.get("request_id", ""))[:128],
        data=data,
        created_at=event.occurred_at,
    )
    same = REPEATABLE.get(row.name)
    if same is None or _is_first(row, [data.get(name) for name in same]):
        row.save()


def _is_first(row: AuditEvent, same: list[Any]) -> bool:
    digest = sha256(json.dumps([row.name, row.tenant, *same]).encode()).hexdigest()
    known = RepeatedEvent.objects.filter(digest=digest)
    if known.filter(ends_at__gt=row.created_at).update(count=F("count") + 1):
        return False
    for repeated in known.filter(ends_at__lte=row.created_at):
        repeated.tell(now=row.created_at)
    told = {name: getattr(row, name) for name in ("name", "subject", "actor", "tenant", "data")}
    fresh = RepeatedEvent(digest=digest, told=told, ends_at=row.created_at + MINUTE)
    RepeatedEvent.objects.bulk_create([fresh], ignore_conflicts=True)
    return True
