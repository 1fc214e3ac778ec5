"""What goes in and out of the API of keys."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from django.utils import timezone
from pydantic import Field

from ..api import Moment, Schema
from ..principals import PATTERN, PATTERN_LENGTH
from .limits import QUOTA, RATE
from .models import LIMIT_LENGTH, MAX_NETWORKS, NAME_LENGTH


def without_names(pattern: str) -> str:
    """The pattern for readers of JSON Schema, whose groups have no names."""
    return re.sub(r"\?P<\w+>", "", pattern)


Scope = Annotated[str, Field(max_length=PATTERN_LENGTH, pattern=f"^({PATTERN.pattern})$")]


Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH, description="What you will know it by.")]
Networks = Annotated[
    list[Annotated[str, Field(min_length=2, max_length=50)]],
    Field(
        max_length=MAX_NETWORKS,
        description="Addresses and networks, such as 192.0.2.0/24; empty is anywhere.",
    ),
]
RateText = Annotated[
    str,
    Field(
        max_length=LIMIT_LENGTH,
        pattern=f"^({without_names(RATE.pattern)})?$",
        description="Uses, such as `600/minute`; empty is the default.",
    ),
]
QuotaText = Annotated[
    str,
    Field(
        max_length=LIMIT_LENGTH,
        pattern=f"^({without_names(QUOTA.pattern)})?$",
        description="Uses in a period of the calendar, such as `10000/month`; empty is the default.",
    ),
]


class NewApiKey(Schema):
    name: Name
    scopes: Annotated[
        list[Scope] | None,
        Field(max_length=100, description="Permissions or wildcards; null is all that you may."),
    ] = None
    expires_at: Moment | None = None
    allowed_networks: Networks = []
    rate: RateText = ""
    quota: QuotaText = ""
    environment: Annotated[
        Literal["", "live", "test"], Field(description="If the service has both; empty is the usual one.")
    ] = ""


class ApiKeyChange(Schema):
    """What is left out stays as it is."""

    name: Name | None = None
    allowed_networks: Networks | None = None
    rate: RateText | None = None
    quota: QuotaText | None = None


class ApiKeyRotation(Schema):
    grace_seconds: Annotated[
        int | None,
        Field(
            ge=0, le=31_536_000, description="How long the old key goes on working; cut down to the limit."
        ),
    ] = None


class ApiKeyOut(Schema):
    id: UUID
    name: str
    prefix: str
    last4: str
    environment: str
    tenant: str
    scopes: list[str] | None
    allowed_networks: list[str]
    rate: str
    quota: str
    state: Literal["active", "rotated", "expired", "revoked"]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    successor_id: UUID | None

    @staticmethod
    def resolve_state(key: Any) -> str:
        return str(key.state(now=timezone.now()))


class IssuedApiKey(Schema):
    api_key: ApiKeyOut
    key: Annotated[str, Field(description="The key itself. It is shown this once.")]


class ApiKeyHour(Schema):
    hour: Annotated[datetime, Field(description="When the hour began, in UTC.")]
    used: int
    refused: int


class ApiKeyUsagePeriod(Schema):
    """The last so many days."""

    days: Annotated[int, Field(ge=1, le=90)] = 7


class ApiKeyUsage(Schema):
    used: int
    refused: int
    hours: Annotated[list[ApiKeyHour], Field(description="Hours in which the key was sent, oldest first.")]
