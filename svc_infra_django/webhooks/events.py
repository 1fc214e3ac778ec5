"""What the webhooks app itself tells. None of it goes outward, or the house would talk to itself."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel

from ..events import EventType


class DeliveryDied(BaseModel):
    """The last attempt of a delivery failed, or the receiver asked for no more."""

    delivery_id: UUID
    endpoint_id: UUID
    message_uid: str
    event_type: str
    attempts: int
    error: str


class EndpointHealth(BaseModel):
    """An endpoint fails, or works again."""

    endpoint_id: UUID
    consecutive_failures: int


class EndpointDisabled(BaseModel):
    """An endpoint gets nothing more until somebody enables it."""

    endpoint_id: UUID
    reason: str


DELIVERY_DEAD = EventType("webhooks.delivery.dead", DeliveryDied)
ENDPOINT_FAILING = EventType(
    "webhooks.endpoint.failing", EndpointHealth, summary="An endpoint fails again and again."
)
ENDPOINT_RECOVERED = EventType(
    "webhooks.endpoint.recovered", EndpointHealth, summary="A failing endpoint works again."
)
ENDPOINT_DISABLED = EventType("webhooks.endpoint.disabled", EndpointDisabled)
