"""What happens to roles."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from ..events import EventType


class RoleGranted(BaseModel):
    """A user or a group was given a role, or the end of their grant was moved."""

    user_id: str | None
    group: str | None = None
    role: str
    object: str = ""
    expires_at: datetime | None
    reason: str
    actor_id: str | None


class RoleWithdrawn(BaseModel):
    """A role was taken from a user or a group."""

    user_id: str | None
    group: str | None = None
    role: str
    object: str = ""
    reason: str
    actor_id: str | None


class RoleEdited(BaseModel):
    """A role was made, changed or removed."""

    role: str
    actor_id: str | None


ROLE_GRANTED = EventType("role.granted", RoleGranted)
ROLE_WITHDRAWN = EventType("role.withdrawn", RoleWithdrawn)
ROLE_DEFINED = EventType("role.defined", RoleEdited, summary="A role was made.")
ROLE_CHANGED = EventType(
    "role.changed", RoleEdited, summary="The permissions of a role, or what it includes, were changed."
)
ROLE_REMOVED = EventType("role.removed", RoleEdited, summary="A role was deleted.")
