"""What happens to API keys. No payload holds a key or its digest."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from ..events import EventType


class KeyIssued(BaseModel):
    """A user got an API key."""

    key_id: str
    name: str
    hint: str
    scopes: list[str] | None
    expires_at: datetime | None
    actor_id: str | None


class KeyRevoked(BaseModel):
    """An API key was stopped for good."""

    key_id: str
    name: str
    hint: str
    actor_id: str | None


class KeyRotated(BaseModel):
    """An API key was followed by another; the old one works until `expires_at`."""

    key_id: str
    successor_id: str
    name: str
    expires_at: datetime
    actor_id: str | None


KEY_ISSUED = EventType("api_key.issued", KeyIssued)
KEY_REVOKED = EventType("api_key.revoked", KeyRevoked)
KEY_ROTATED = EventType("api_key.rotated", KeyRotated)
