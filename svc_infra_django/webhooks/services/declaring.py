"""Declaring: the outward events of the code become records that endpoints can ask for."""

from __future__ import annotations

from django.db import transaction

from ...events import catalog
from ..models import EventType


@transaction.atomic
def sync_event_types() -> int:
    """Write every outward event of the catalogue as a record; what is no longer declared is archived.

    Records that were written in the admin stay as they are unless code now declares their name.
    Returns how many are declared.
    """
    declared = [
        EventType(
            name=event.name,
            description=event.summary,
            schema=event.payload.model_json_schema(),
            source=EventType.Source.CODE,
            is_archived=False,
        )
        for event in catalog.values()
        if event.outward
    ]
    EventType.objects.bulk_create(
        declared,
        update_conflicts=True,
        unique_fields=["name"],
        update_fields=["description", "schema", "source", "is_archived"],
    )
    gone = EventType.objects.filter(source=EventType.Source.CODE).exclude(
        name__in=[each.name for each in declared]
    )
    gone.update(is_archived=True)
    return len(declared)
