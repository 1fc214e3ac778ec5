"""What the inbox tells. None of it goes outward."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel

from ...events import EventType


class MessageFailed(BaseModel):
    """The handler of an inbound webhook raised. The webhook is kept and can be replayed."""

    message_id: UUID
    source: str
    event_type: str
    attempts: int
    error: str


MESSAGE_FAILED = EventType("inbound.message.failed", MessageFailed)
