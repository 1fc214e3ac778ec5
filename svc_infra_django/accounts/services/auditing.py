"""Keep what matters to security, so that nobody changes it unseen."""

from __future__ import annotations

from typing import Any

from ...events import Event
from ...observability.context import current
from ...principals import covered
from ..conf import settings
from ..models import AuditEvent


def record_event(event: Event[Any]) -> None:
    """Write a row for an event that `audited` names, in the transaction of the event."""
    if not covered(event.type.name, settings.audited):
        return
    data = event.payload.model_dump(mode="json")
    about = current()
    AuditEvent.objects.create(
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
