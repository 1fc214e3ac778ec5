"""What happens at the door."""

from __future__ import annotations

from pydantic import BaseModel

from ..events import EventType


class AccessRefused(BaseModel):
    """Somebody who is signed in was answered with 403: a permission, a scope or a CSRF token was missing."""

    user_id: str
    credential: str
    """How they had signed in: `session`, `jwt` or `api_key`."""

    method: str
    route: str
    code: str
    """That of the problem, such as `permission_denied`."""

    permission: str
    """What was missing, if a permission was."""

    client_address: str


ACCESS_REFUSED = EventType("access.refused", AccessRefused)
