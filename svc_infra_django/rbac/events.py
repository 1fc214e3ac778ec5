"""What happens to roles."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from ..events import EventType


class RoleGranted(BaseModel):
    """A user was given a role, or the end of their grant was moved."""

    user_id: str
    role: str
    expires_at: datetime | None
    reason: str
    actor_id: str | None


class RoleWithdrawn(BaseModel):
    """A role was taken from a user."""

    user_id: str
    role: str
    reason: str
    actor_id: str | None


ROLE_GRANTED = EventType("role.granted", RoleGranted)
ROLE_WITHDRAWN = EventType("role.withdrawn", RoleWithdrawn)
