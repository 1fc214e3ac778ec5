"""What goes in and out of the API of webhooks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from pydantic import Field

from ..api import Moment, Schema, Text
from .conf import settings
from .pictures import success_rate

ADDRESS_ERRORS = frozenset(("blocked", "dns"))
NETWORK_ERRORS = frozenset(("refused", "tls", "timeout", "protocol"))

Url = Annotated[
    str, Field(min_length=1, max_length=2000, description="Where to deliver: https:// and a public host.")
]
Description = Text(max_length=200)
Patterns = Annotated[
    list[Annotated[str, Field(max_length=128)]],
    Field(
        min_length=1, max_length=100, description="Names or patterns such as `order.*`; `*` is everything."
    ),
]
Headers = Annotated[
    dict[str, Annotated[str, Field(max_length=4096)]],
    Field(max_length=20, description="Sent with every request; sealed and never shown again."),
]
Timeout = Annotated[
    float | None, Field(gt=0, le=30, description="Seconds for one attempt; null is the default.")
]
Schedule = Annotated[
    list[Annotated[float, Field(gt=0, le=604_800)]] | None,
    Field(max_length=20, description="Seconds to wait after each failure; null is the default."),
]


Rate = Annotated[
    float | None, Field(gt=0, le=1000, description="Requests a second at most; null is as fast as it goes.")
]
InFlight = Annotated[
    int | None, Field(ge=1, le=2000, description="Requests under way at most; null is the default.")
]


class NewEndpoint(Schema):
    url: Url
    description: Description = ""  # type: ignore[valid-type]  # Text() makes the type
    event_types: Patterns = ["*"]
    headers: Headers = {}
    timeout_seconds: Timeout = None
    retry_schedule: Schedule = None
    rate_limit: Rate = None
    max_in_flight: InFlight = None


class EndpointChange(Schema):
    """What is left out stays as it is."""

    url: Url = Field(default_factory=str)
    description: Description = Field(default_factory=str)  # type: ignore[valid-type]  # Text() makes the type
    event_types: Patterns = Field(default_factory=list)
    headers: Headers = Field(default_factory=dict)
    timeout_seconds: Timeout = Field(default_factory=lambda: None)
    retry_schedule: Schedule = Field(default_factory=lambda: None)
    rate_limit: Rate = Field(default_factory=lambda: None)
    max_in_flight: InFlight = Field(default_factory=lambda: None)


class Disabling(Schema):
    reason: Text(max_length=200) = "Disabled by its owner."  # type: ignore[valid-type]  # Text() makes the type


class Rotation(Schema):
    grace_hours: Annotated[
        float | None,
        Field(ge=0, le=168, description="How long the old secret signs too; null is the default."),
    ] = None


class EndpointOut(Schema):
    id: UUID
    url: str
    description: str
    tenant: str
    event_types: list[str]
    has_headers: bool
    timeout_seconds: float | None
    retry_schedule: list[float] | None
    rate_limit: float | None
    max_in_flight: int | None
    breaker_trips: int
    state: Literal["enabled", "paused", "disabled"]
    reason: str
    disabled_at: datetime | None
    held_until: datetime | None
    consecutive_failures: int
    first_failure_at: datetime | None
    last_success_at: datetime | None
    last_failure_at: datetime | None
    created_at: datetime
    updated_at: datetime

    @staticmethod
    def resolve_has_headers(endpoint: Any) -> bool:
        return bool(endpoint.sealed_headers)


class NewEndpointOut(Schema):
    endpoint: EndpointOut
    secret: Annotated[str, Field(description="The signing secret. It is shown this once.")]


class KeyOut(Schema):
    id: UUID
    kind: Annotated[Literal["v1", "v1a"], Field(description="HMAC-SHA256, or Ed25519.")]
    public_key: Annotated[str, Field(description="What a receiver verifies v1a with; empty for v1.")]
    created_at: datetime
    expires_at: Annotated[datetime | None, Field(description="Null signs until it is replaced.")]


class PublicKeyOut(Schema):
    public_key: str


class EventTypeOut(Schema):
    name: str
    description: str
    data_schema: Annotated[
        dict[str, Any], Field(description="JSON Schema of `data`; empty if not described.")
    ]
    version: Annotated[int, Field(description="Grows when the schema changes.")]
    examples: list[Any]
    is_archived: bool

    @staticmethod
    def resolve_data_schema(event_type: Any) -> Any:
        return event_type.schema


class EventTypeVersionOut(Schema):
    version: int
    data_schema: dict[str, Any]
    created_at: datetime

    @staticmethod
    def resolve_data_schema(version: Any) -> Any:
        return version.schema


class EventTypeDetail(EventTypeOut):
    example: Annotated[Any, Field(description="The `data` of a test of this type.")]


class HealthOut(Schema):
    deliveries: Annotated[int, Field(description="How many of the newest this is about, at most 50.")]
    succeeded: int
    dead: int
    retrying: Annotated[int, Field(description="Failed so far, and will be tried again.")]
    waiting: int
    cancelled: int
    success_rate: Annotated[float | None, Field(description="Of those settled; null if none is.")]
    consecutive_failures: int

    @classmethod
    def of(cls, endpoint: Any, outcomes: Sequence[str]) -> HealthOut:
        return cls(
            deliveries=len(outcomes),
            succeeded=outcomes.count("succeeded"),
            dead=outcomes.count("dead"),
            retrying=outcomes.count("retrying"),
            waiting=outcomes.count("waiting"),
            cancelled=outcomes.count("cancelled"),
            success_rate=success_rate(outcomes),
            consecutive_failures=endpoint.consecutive_failures,
        )


class NewMessage(Schema):
    event_type: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*$")]
    data: dict[str, Any]
    idempotency_key: Annotated[str | None, Field(min_length=1, max_length=255)] = None
    deliver_at: Moment | None = None


class NewMessages(Schema):
    messages: Annotated[list[NewMessage], Field(min_length=1, max_length=100)]


class MessageOut(Schema):
    id: UUID
    uid: str
    event_type: str
    tenant: str
    idempotency_key: str | None
    schema_version: int | None
    expunged_at: datetime | None
    occurred_at: datetime
    deliver_at: datetime
    created_at: datetime


class MessageDetail(MessageOut):
    body: Annotated[Any, Field(description="What receivers get, read as JSON; null if it was expunged.")]

    @staticmethod
    def resolve_body(message: Any) -> Any:
        return orjson.loads(bytes(message.body) or b"null")


class DeliveryOut(Schema):
    id: UUID
    message_id: UUID
    message_uid: str
    event_type: str
    endpoint_id: UUID
    state: Literal["pending", "sending", "succeeded", "dead", "cancelled"]
    attempts: int
    due_at: datetime
    last_status: int | None
    last_error: str
    settled_at: datetime | None
    created_at: datetime

    @staticmethod
    def resolve_message_uid(delivery: Any) -> str:
        return str(delivery.message.uid)

    @staticmethod
    def resolve_event_type(delivery: Any) -> str:
        return str(delivery.message.event_type)

    @staticmethod
    def resolve_last_error(delivery: Any) -> str:
        return told(delivery.last_error)


class AttemptOut(Schema):
    id: UUID
    n: int
    at: datetime
    trigger: Literal["publish", "retry", "replay", "test"]
    status_code: int | None
    error: str
    duration_ms: Annotated[int | None, Field(description="Null where it would tell of a private network.")]
    response_head: Annotated[str, Field(description="The beginning of the answer's body.")]
    response_headers: dict[str, str]

    @staticmethod
    def resolve_error(attempt: Any) -> str:
        return told(attempt.error)

    @staticmethod
    def resolve_at(attempt: Any) -> Any:
        # When it ended stands elsewhere to the microsecond, so its begin would say how long it took.
        took = timedelta(milliseconds=attempt.duration_ms if hides_duration(attempt.error) else 0)
        return attempt.at + took

    @staticmethod
    def resolve_duration_ms(attempt: Any) -> Any:
        return None if hides_duration(attempt.error) else attempt.duration_ms

    @staticmethod
    def resolve_response_head(attempt: Any) -> str:
        # Where private networks may be dialled, an answer may be none of the caller's business.
        return "" if settings.allowed_networks else str(attempt.response_head)

    @staticmethod
    def resolve_response_headers(attempt: Any) -> Any:
        return {} if settings.allowed_networks else attempt.response_headers


class WhatToReplay(Schema):
    """All that is given must fit; give at least one of the first three."""

    endpoint_id: UUID | None = None
    message_id: UUID | None = None
    since: Annotated[Moment | None, Field(description="Published since then.")] = None
    only_failed: Annotated[bool, Field(description="Only what is dead or cancelled.")] = True


class NewReplay(WhatToReplay):
    per_second: Annotated[
        float | None, Field(gt=0, le=1000, description="How many in a second; null is the default.")
    ] = None


class ReplayOut(Schema):
    id: UUID
    endpoint_id: UUID | None
    message_id: UUID | None
    since: datetime | None
    only_failed: bool
    per_second: float
    state: Literal["running", "done", "cancelled"]
    total: int
    done: int
    created_at: datetime
    finished_at: datetime | None


class Replayed(Schema):
    deliveries: int


def hides_duration(error: str) -> bool:
    """Whether the time that an attempt took would tell what its owner must not know.

    A name of ours is known from the last look-up, one that does not resolve is looked up again; a port that
    is closed answers sooner than one that is filtered.
    """
    return error in ADDRESS_ERRORS or (error in NETWORK_ERRORS and bool(settings.allowed_networks))


def told(error: str) -> str:
    """An error class as its owner may know it: a name of ours that resolves looks like one that does not."""
    if error in ADDRESS_ERRORS:
        return "address"
    if error in NETWORK_ERRORS and settings.allowed_networks:
        return "unreachable"
    return error
