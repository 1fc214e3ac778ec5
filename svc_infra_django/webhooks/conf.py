"""Settings of the webhooks app."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field, IPvAnyNetwork

from ..config.sections import Section, section_settings

Seconds = Annotated[float, Field(gt=0, le=604_800)]


class WebhooksSettings(Section):
    section: ClassVar[str] = "webhooks"

    retry_schedule: tuple[Seconds, ...] = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
    """Seconds to wait after each failed attempt; after the last one the delivery is dead."""

    retry_jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Each wait is stretched or shrunk at random by up to this share, so that retries spread out."""

    retry_after_limit_seconds: Annotated[int, Field(ge=0, le=604_800)] = 43_200
    """The longest Retry-After that a receiver may ask for; more is cut to this."""

    timeout_seconds: Annotated[float, Field(gt=0, le=30)] = 15.0
    """How long one attempt may take in all: name, connection, TLS, head and body."""

    connect_timeout_seconds: Annotated[float, Field(gt=0, le=30)] = 5.0
    """How long the name, the connection and TLS may take together."""

    max_response_bytes: Annotated[int, Field(ge=0, le=1_048_576)] = 16_384
    """How much of an answer's body is read; then the connection is closed."""

    kept_response_bytes: Annotated[int, Field(ge=0, le=16_384)] = 1_024
    """How much of an answer's body is kept with the attempt."""

    max_payload_bytes: Annotated[int, Field(gt=0)] = 262_144
    """The largest body that `publish` takes."""

    concurrency: Annotated[int, Field(ge=1, le=2_000)] = 400
    """How many requests one deliverer has under way at once."""

    endpoint_concurrency: Annotated[int, Field(ge=1, le=2_000)] = 20
    """How many of those may go to one endpoint, so that no endpoint takes them all."""

    lease_seconds: Annotated[int, Field(ge=1)] = 90
    """How long a deliverer may keep a delivery before another may take it."""

    poll_seconds: Annotated[float, Field(gt=0, le=60)] = 0.2
    """How long an idle deliverer waits before it looks again."""

    breaker_after: Annotated[int, Field(ge=1)] = 10
    """So many failures in a row open an endpoint's breaker: it rests, then one request at a time tries it."""

    breaker_seconds: Annotated[float, Field(gt=0)] = 30.0
    """How long it rests the first time; each failed trial doubles it."""

    breaker_limit_seconds: Annotated[float, Field(gt=0)] = 900.0
    """The longest such rest."""

    throttled_seconds: Annotated[float, Field(ge=0)] = 10.0
    """How long an endpoint rests that answers 429 without saying how long (Retry-After)."""

    disable_after_days: Annotated[float, Field(gt=0)] = 5.0
    """An endpoint that has only failed for this long is disabled."""

    failing_after: Annotated[int, Field(ge=1)] = 5
    """So many failures in a row make an endpoint failing, and its owner is told."""

    notice_interval_seconds: Annotated[int, Field(ge=0)] = 3_600
    """At most one mail about dead deliveries, and one about failing, for each endpoint in this time."""

    retention_days: Annotated[float, Field(gt=0)] = 30.0
    """Messages that are settled are deleted when they are this old, with deliveries and attempts."""

    payload_retention_days: Annotated[float, Field(gt=0)] | None = None
    """If set, the bodies of settled messages are taken out at this age; the rest stays till the retention."""

    replay_per_second: Annotated[float, Field(gt=0, le=1_000)] = 50.0
    """How many deliveries a replay in the background sends again in a second, unless it says otherwise, and
    how many of one endpoint may be replayed one by one."""

    secret_grace_hours: Annotated[float, Field(ge=0, le=168)] = 24.0
    """How long the old secret still signs beside the new one after a rotation."""

    max_endpoints_per_owner: Annotated[int, Field(ge=1)] = 50
    """How many endpoints one user may have in a tenant."""

    challenge_endpoints: bool = False
    """An endpoint that a user makes or moves is paused until it has answered a challenge."""

    allow_http: bool = False
    """Take `http://` endpoints too. Never in production."""

    allowed_networks: tuple[IPvAnyNetwork, ...] = ()
    """Networks that may be dialled although they are private, say `10.20.0.0/16`."""

    allowed_ports: tuple[int, ...] = ()
    """If set, the only ports that endpoints may use."""

    ca_bundle: Path | None = None
    """A file of certificate authorities to trust instead of the system's."""

    user_agent: str = "svc-infra-django-webhooks/1.0"
    """What receivers see as User-Agent."""


settings = section_settings(WebhooksSettings)
