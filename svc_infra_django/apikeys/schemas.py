"""What goes in and out of the API of keys."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from django.utils import timezone
from pydantic import Field

from ..api import Moment, Schema
from ..principals import PATTERN, PATTERN_LENGTH
from .models import NAME_LENGTH

Scope = Annotated[str, Field(max_length=PATTERN_LENGTH, pattern=f"^({PATTERN.pattern})$")]


class NewKey(Schema):
    name: Annotated[str, Field(min_length=1, max_length=NAME_LENGTH, description="What you will know it by.")]
    scopes: Annotated[
        list[Scope] | None,
        Field(max_length=100, description="Permissions or wildcards; null is all that you may."),
    ] = None
    expires_at: Moment | None = None


class Rotation(Schema):
    grace_seconds: Annotated[
        int | None,
        Field(
            ge=0, le=31_536_000, description="How long the old key goes on working; cut down to the limit."
        ),
    ] = None


class KeyOut(Schema):
    id: UUID
    name: str
    prefix: str
    last4: str
    environment: str
    tenant: str
    scopes: list[str] | None
    state: Literal["active", "rotated", "expired", "revoked"]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    successor_id: UUID | None

    @staticmethod
    def resolve_state(key: Any) -> str:
        return str(key.state(now=timezone.now()))


class IssuedKey(Schema):
    api_key: KeyOut
    key: Annotated[str, Field(description="The key itself. It is shown this once.")]
