"""What happens in a shop, and what the world is told of it."""

from __future__ import annotations

from decimal import Decimal
from uuid import UUID

from pydantic import BaseModel

from svc_infra_django.events import EventType


class OrderPlaced(BaseModel):
    """Somebody placed an order."""

    order_id: UUID
    customer_email: str
    item: str
    quantity: int
    total: Decimal


ORDER_PLACED = EventType("order.placed", OrderPlaced, outward=True)
