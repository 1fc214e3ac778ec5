"""Keep what matters to security, so that nobody changes it unseen."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Iterator
from typing import Any

from ...events import Event
from ...observability.context import current
from ...principals import covered
from ..conf import settings
from ..models import AuditEvent
from ..signing import audit_digests

BATCH = 500


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


def exported_lines(events: Iterable[AuditEvent]) -> Iterator[str]:
    """The rows as JSON, one a line, with number and digests where they are chained."""
    for row in events:
        link = {"number": row.number, "previous": row.previous, "digest": row.digest}
        yield json.dumps(row.record | (link if row.number is not None else {})) + "\n"


def broken_links() -> Iterator[str]:
    """What is wrong with the chain, in its order: changed rows, missing rows. Nothing if it is whole.

    Rows that were pruned from its beginning are not missed. That its end was cut off shows only to
    whoever noted the last number and digest.
    """
    before: AuditEvent | None = None
    for row in AuditEvent.objects.chained().iterator(chunk_size=BATCH):
        number = row.number or 0
        if before is not None and number != (before.number or 0) + 1:
            yield f"Rows {(before.number or 0) + 1} to {number - 1} are missing."
        elif before is not None and row.previous != before.digest:
            yield f"Row {number} does not follow row {before.number}."
        if not any(hmac.compare_digest(row.digest, good) for good in _good_digests(row)):
            yield f"Row {number} ({row.pk}) was changed."
        before = row


def _good_digests(row: AuditEvent) -> list[str]:
    return audit_digests(row.number or 0, row.previous, row.record)
