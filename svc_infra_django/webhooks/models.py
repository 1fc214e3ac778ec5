"""Event types, endpoints and their keys, messages, deliveries and attempts."""

from __future__ import annotations

from datetime import datetime, timedelta
from fnmatch import translate
from functools import lru_cache
from re import Pattern, compile
from typing import Any

import orjson
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from ..rows import OwnedQuerySet, id_field, owner_field, tenant_field
from ..sealing import seal, unseal
from .conf import settings
from .examples import example_of
from .querysets import DeliveryQuerySet, EndpointQuerySet, MessageQuerySet
from .retries import allowance, breaker_rest, paid_until
from .signing import public_key

EVENT_TYPE_LENGTH = 128
MAX_RATE = 1_000
MAX_TRIPS = 100
REPLAY_STEP_SECONDS = 5.0


class EventType(models.Model):
    """A kind of event that endpoints may ask for."""

    class Source(models.TextChoices):
        CODE = "code", "declared in code"
        ADMIN = "admin", "written in the admin"

    name = models.CharField(max_length=EVENT_TYPE_LENGTH, primary_key=True)
    description = models.TextField(blank=True, default="")
    schema = models.JSONField(blank=True, default=dict)
    """JSON Schema (draft 2020-12) of `data`; empty if nobody described it."""
    version = models.PositiveIntegerField(default=1, editable=False)
    """Grows when the schema changes; what it was before is in `versions`."""
    examples = models.JSONField(blank=True, default=list)
    """A list of `data` as receivers may get it; each fits the schema."""
    retry_schedule = models.JSONField(null=True, blank=True)
    """Instead of the setting of that name: seconds after each failure. An endpoint's own goes before it."""
    source = models.CharField(max_length=8, choices=Source, default=Source.ADMIN)
    is_archived = models.BooleanField(default=False)
    """No longer declared in code; kept because endpoints and messages may still name it."""
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["name"]
        verbose_name = "event type"
        constraints = [
            models.CheckConstraint(
                condition=Q(source__in=["code", "admin"]), name="svc_webhooks_event_source"
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def example(self) -> Any:
        """`data` as receivers may get it: the first of the examples, else one made from the schema."""
        return self.examples[0] if self.examples else example_of(self.schema) or {}


class EventTypeVersion(models.Model):
    """A schema that an event type has or had. Written once."""

    id = id_field()
    event_type = models.ForeignKey(EventType, on_delete=models.CASCADE, related_name="versions")
    version = models.PositiveIntegerField()
    schema = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-version"]
        constraints = [models.UniqueConstraint("event_type", "version", name="svc_webhooks_schema_version")]

    def __str__(self) -> str:
        return f"{self.event_type_id} {self.version}"


class Endpoint(models.Model):
    """A receiver: where it is, what it wants, and how it is."""

    class State(models.TextChoices):
        ENABLED = "enabled", "enabled"
        PAUSED = "paused", "paused: its queue is kept"
        DISABLED = "disabled", "disabled: it gets nothing"

    id = id_field()
    owner = owner_field(on_delete=models.CASCADE)
    tenant = tenant_field()
    url = models.CharField("URL", max_length=2000)
    description = models.CharField(max_length=200, blank=True, default="")
    event_types = models.JSONField(default=list)
    """Patterns such as `order.placed`, `order.*` or `*`."""
    sealed_headers = models.TextField(blank=True, default="", editable=False)
    """The endpoint's own headers as a sealed JSON object: they may hold credentials."""
    timeout_seconds = models.FloatField(null=True, blank=True)
    """Instead of the setting of that name."""
    retry_schedule = models.JSONField(null=True, blank=True)
    """Instead of the event type's and the setting of that name: seconds after each failure."""
    rate_limit = models.FloatField(null=True, blank=True)
    """At most so many requests a second, of all deliverers together; null is as fast as it goes."""
    max_in_flight = models.PositiveSmallIntegerField(null=True, blank=True)
    """At most so many requests under way, of all deliverers together."""

    state = models.CharField(max_length=8, choices=State, default=State.ENABLED)
    reason = models.CharField(max_length=200, blank=True, default="")
    disabled_at = models.DateTimeField(null=True, blank=True)
    held_until = models.DateTimeField(null=True, blank=True)
    """Nothing is sent before: the receiver asked for rest (429, 503), or the breaker is open."""
    breaker_trips = models.PositiveSmallIntegerField(default=0)
    """How often in a row the breaker opened; 0 is closed. Above, one request at a time tries it."""
    paced_until = models.DateTimeField(null=True, blank=True, editable=False)
    """When what was sent lately is paid for at `rate_limit`."""
    replays_paid_until = models.DateTimeField(null=True, blank=True, editable=False)
    """When what was replayed lately, one by one, is paid for at the setting's rate."""
    first_failure_at = models.DateTimeField(null=True, blank=True)
    """Since when nothing has succeeded."""
    consecutive_failures = models.PositiveIntegerField(default=0)
    last_success_at = models.DateTimeField(null=True, blank=True)
    last_failure_at = models.DateTimeField(null=True, blank=True)
    last_notice_at = models.DateTimeField(null=True, blank=True)
    last_alarm_at = models.DateTimeField(null=True, blank=True, editable=False)
    """When its owner was last told that it fails."""
    is_alarmed = models.BooleanField(default=False, editable=False)
    """Its owner was told that it fails, and not yet that it works again."""
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    updated_at = models.DateTimeField(auto_now=True)

    objects = EndpointQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["enabled", "paused", "disabled"]), name="svc_webhooks_endpoint_state"
            ),
            models.CheckConstraint(
                condition=Q(state="disabled", disabled_at__isnull=False)
                | (~Q(state="disabled") & Q(disabled_at__isnull=True)),
                name="svc_webhooks_endpoint_disabled_at",
            ),
            models.CheckConstraint(
                condition=Q(timeout_seconds__isnull=True) | Q(timeout_seconds__gt=0, timeout_seconds__lte=30),
                name="svc_webhooks_endpoint_timeout",
            ),
            models.CheckConstraint(
                condition=Q(rate_limit__isnull=True) | Q(rate_limit__gt=0, rate_limit__lte=MAX_RATE),
                name="svc_webhooks_endpoint_rate",
            ),
            models.CheckConstraint(
                condition=Q(max_in_flight__isnull=True) | Q(max_in_flight__gte=1),
                name="svc_webhooks_endpoint_in_flight",
            ),
        ]
        indexes = [
            models.Index(
                fields=["tenant", "owner"],
                name="svc_webhooks_listening",
                condition=Q(state__in=["enabled", "paused"]),
            ),
            models.Index(
                fields=["paced_until"],
                name="svc_webhooks_paced",
                condition=Q(state="enabled")
                & (Q(rate_limit__isnull=False) | Q(max_in_flight__isnull=False) | Q(breaker_trips__gt=0)),
            ),
            models.Index(fields=["owner", "-created_at", "-id"], name="svc_webhooks_endpoint_list"),
        ]

    def __str__(self) -> str:
        return self.description or self.url.partition("?")[0]

    def wants(self, event_type: str) -> bool:
        """Whether one of the endpoint's patterns matches the name."""
        return wants(self.event_types, event_type)

    @property
    def headers(self) -> dict[str, str]:
        """The endpoint's own headers, unsealed."""
        if not self.sealed_headers:
            return {}
        return dict(orjson.loads(unseal(self.sealed_headers, context=self._headers_context)))

    @headers.setter
    def headers(self, headers: dict[str, str]) -> None:
        text = orjson.dumps(headers).decode()
        self.sealed_headers = seal(text, context=self._headers_context) if headers else ""

    @property
    def _headers_context(self) -> str:
        return f"webhooks.endpoint_headers:{self.pk}"

    def note(self, *, is_success: bool, hold_until: datetime | None, now: datetime) -> None:
        """Take an attempt into the endpoint's health; whoever calls saves."""
        if is_success:
            if self.breaker_trips:
                self.breaker_trips, self.held_until = 0, None
            self.consecutive_failures, self.first_failure_at, self.last_success_at = 0, None, now
        else:
            self.consecutive_failures += 1
            self.first_failure_at = self.first_failure_at or now
            self.last_failure_at = now
            # What was sent before the breaker opened and fails now tells nothing new.
            is_resting = self.held_until is not None and self.held_until > now
            if self.consecutive_failures >= settings.breaker_after and not is_resting:
                self.breaker_trips = min(self.breaker_trips + 1, MAX_TRIPS)
                rest = breaker_rest(
                    self.breaker_trips, first=settings.breaker_seconds, limit=settings.breaker_limit_seconds
                )
                self.held_until = now + timedelta(seconds=rest)
        if hold_until is not None:
            self.held_until = max(hold_until, self.held_until or hold_until)
        self.updated_at = now

    def room(self, *, sending: int, now: datetime) -> int:
        """How many more may be sent now, while `sending` are under way anywhere."""
        room = settings.endpoint_concurrency
        if self.breaker_trips:
            room = min(room, 1 - sending)
        if self.max_in_flight is not None:
            room = min(room, self.max_in_flight - sending)
        if self.rate_limit is not None:
            room = min(room, allowance(self.rate_limit, paid_until=self.paced_until, now=now))
        return max(room, 0)

    def spend(self, count: int, *, now: datetime) -> None:
        """Take what was sent into the rate; whoever calls saves."""
        self.paced_until = paid_until(self.rate_limit, count, paid_until=self.paced_until, now=now)

    def mark_enabled(self) -> None:
        self._mark(self.State.ENABLED, "", None)

    def mark_paused(self, *, reason: str = "") -> None:
        self._mark(self.State.PAUSED, reason, None)

    def mark_disabled(self, *, reason: str, now: datetime) -> None:
        self._mark(self.State.DISABLED, reason, now)

    def _mark(self, state: State, reason: str, disabled_at: datetime | None) -> None:
        self.state, self.reason, self.disabled_at = state, reason, disabled_at
        self.held_until = self.first_failure_at = None
        self.consecutive_failures = self.breaker_trips = 0
        self.save(
            update_fields=[
                "state", "reason", "disabled_at", "held_until", "first_failure_at", "consecutive_failures",
                "breaker_trips", "updated_at",
            ]
        )  # fmt: skip


class SigningKey(models.Model):
    """A secret that signs for an endpoint. After a rotation the old one goes on until it expires."""

    class Kind(models.TextChoices):
        HMAC_SHA256 = "v1", "v1 (HMAC-SHA256)"
        ED25519 = "v1a", "v1a (Ed25519)"

    id = id_field()
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, related_name="signing_keys")
    kind = models.CharField(max_length=4, choices=Kind, default=Kind.HMAC_SHA256)
    sealed_secret = models.TextField(editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(condition=Q(kind__in=["v1", "v1a"]), name="svc_webhooks_key_kind"),
            models.UniqueConstraint(
                "endpoint", "kind", name="svc_webhooks_one_lasting_key", condition=Q(expires_at__isnull=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} key of {self.created_at:%Y-%m-%d}"

    @property
    def secret(self) -> str:
        """The `whsec_…` secret or the `whsk_…` private key, unsealed."""
        return unseal(self.sealed_secret, context=self.sealing_context)

    @secret.setter
    def secret(self, secret: str) -> None:
        self.sealed_secret = seal(secret, context=self.sealing_context)

    @property
    def public_key(self) -> str:
        """The `whpk_…` key that the receiver of a v1a signature needs; empty for v1."""
        return public_key(self.secret) if self.kind == self.Kind.ED25519 else ""

    @property
    def sealing_context(self) -> str:
        """What the sealed secret is bound to: it opens in no other row."""
        return f"webhooks.signing_key:{self.pk}"


class Message(models.Model):
    """What happened, once: the bytes that every endpoint gets in every attempt."""

    id = id_field()
    uid = models.CharField(max_length=40, unique=True, editable=False)
    """The `webhook-id` that receivers see: `msg_` and the id."""
    owner = owner_field(on_delete=models.SET_NULL)
    tenant = tenant_field()
    event_type = models.CharField(max_length=EVENT_TYPE_LENGTH)
    schema_version = models.PositiveIntegerField(null=True, editable=False)
    """The version of the event type's schema that the data was checked against, if it has a record."""
    body = models.BinaryField()
    idempotency_key = models.CharField(max_length=255, null=True, blank=True)  # noqa: DJ001 -- many may have none
    idempotency_digest = models.CharField(max_length=64, null=True, unique=True, editable=False)  # noqa: DJ001 -- as above
    """Of tenant, owner and key: nobody can take another's key, and it stays when the owner goes."""
    context = models.JSONField(default=dict)
    """Request id and trace of the request that published it."""
    expunged_at = models.DateTimeField(null=True, blank=True, editable=False)
    """When the body was taken out; the rest stays."""
    occurred_at = models.DateTimeField()
    deliver_at = models.DateTimeField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = MessageQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [
            models.Index(fields=["owner", "-created_at", "-id"], name="svc_webhooks_message_list"),
            models.Index(fields=["-created_at", "-id"], name="svc_webhooks_message_newest"),
        ]

    def __str__(self) -> str:
        return self.uid

    def mark_expunged(self, *, now: datetime) -> None:
        self.body, self.expunged_at = b"", now
        self.save(update_fields=["body", "expunged_at"])


class Delivery(models.Model):
    """One message on its way to one endpoint."""

    class State(models.TextChoices):
        PENDING = "pending", "pending"
        SENDING = "sending", "sending"
        SUCCEEDED = "succeeded", "succeeded"
        DEAD = "dead", "dead"
        CANCELLED = "cancelled", "cancelled"

    class Lane(models.IntegerChoices):
        FIRST = 0, "first attempts"
        LATER = 1, "retries and replays"
        WAITING = 2, "not due yet"

    class Trigger(models.TextChoices):
        PUBLISH = "publish", "first attempt"
        RETRY = "retry", "retry"
        REPLAY = "replay", "replay"
        TEST = "test", "test"

    id = id_field()
    # Every index is written three times for a delivery, so none answers what another answers.
    message = models.ForeignKey(Message, on_delete=models.CASCADE, related_name="deliveries", db_index=False)
    endpoint = models.ForeignKey(
        Endpoint, on_delete=models.CASCADE, related_name="deliveries", db_index=False
    )
    state = models.CharField(max_length=9, choices=State, default=State.PENDING)
    lane = models.SmallIntegerField(choices=Lane, default=Lane.FIRST)
    trigger = models.CharField(max_length=8, choices=Trigger, default=Trigger.PUBLISH)
    """Why the next attempt is made, or why the last one was."""
    due_at = models.DateTimeField()
    attempts = models.PositiveIntegerField(default=0)
    attempts_before = models.PositiveIntegerField(default=0)
    """Attempts made before the last replay; the retry schedule begins anew there."""
    lease_until = models.DateTimeField(null=True, blank=True)
    epoch = models.PositiveIntegerField(default=0)
    """Grows with every claim: what was sent under an older epoch settles nothing."""
    last_status = models.PositiveSmallIntegerField(null=True, blank=True)
    last_error = models.CharField(max_length=16, blank=True, default="")
    settled_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    objects = DeliveryQuerySet.as_manager()

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "deliveries"
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["pending", "sending", "succeeded", "dead", "cancelled"]),
                name="svc_webhooks_delivery_state",
            ),
            models.CheckConstraint(
                condition=Q(state="sending", lease_until__isnull=False)
                | (~Q(state="sending") & Q(lease_until__isnull=True)),
                name="svc_webhooks_delivery_lease",
            ),
            models.CheckConstraint(condition=Q(lane__in=[0, 1, 2]), name="svc_webhooks_delivery_lane"),
            models.CheckConstraint(
                condition=Q(attempts_before__lte=F("attempts")), name="svc_webhooks_delivery_attempts"
            ),
            models.UniqueConstraint("message", "endpoint", name="svc_webhooks_once_an_endpoint"),
        ]
        indexes = [
            # The deliverer's queue: endpoint after endpoint, the oldest due first.
            models.Index(
                fields=["lane", "endpoint", "due_at"], name="svc_webhooks_queue", condition=Q(state="pending")
            ),
            # What waits for its time, so that a claim need not pass it by.
            models.Index(
                fields=["due_at"], name="svc_webhooks_waiting", condition=Q(state="pending", lane=2)
            ),
            models.Index(fields=["lease_until"], name="svc_webhooks_leases", condition=Q(state="sending")),
            models.Index(fields=["endpoint", "-created_at", "-id"], name="svc_webhooks_delivery_list"),
            models.Index(fields=["-id"], name="svc_webhooks_dead", condition=Q(state="dead")),
        ]

    def __str__(self) -> str:
        return str(self.pk)


class Attempt(models.Model):
    """One request that was made, and what came back. Written once, never changed."""

    id = id_field()
    # Written with the delivery's own row locked, so a check of the key would find what is known.
    delivery = models.ForeignKey(
        Delivery,
        on_delete=models.CASCADE,
        related_name="attempt_set",
        db_index=False,
        db_constraint=False,
    )
    n = models.PositiveIntegerField()
    at = models.DateTimeField()
    trigger = models.CharField(max_length=8, choices=Delivery.Trigger)
    status_code = models.PositiveSmallIntegerField(null=True, blank=True)
    error = models.CharField(max_length=16, blank=True, default="")
    duration_ms = models.PositiveIntegerField()
    response_head = models.TextField(blank=True, default="")
    """The beginning of the answer's body, NUL taken out."""
    response_headers = models.JSONField(blank=True, default=dict)
    """The answer's headers as far as they are short, without cookies."""

    class Meta:
        ordering = ["-at", "-id"]
        constraints = [models.UniqueConstraint("delivery", "n", name="svc_webhooks_attempt_n")]

    def __str__(self) -> str:
        return f"attempt {self.n}"


class Replay(models.Model):
    """Many deliveries that are sent again, so many a second, in the background."""

    class State(models.TextChoices):
        RUNNING = "running", "running"
        DONE = "done", "done"
        CANCELLED = "cancelled", "cancelled"

    id = id_field()
    owner = owner_field(on_delete=models.CASCADE)
    """Whose endpoints are meant; null where staff asked, for one endpoint or one message."""
    tenant = tenant_field()
    endpoint = models.ForeignKey(Endpoint, on_delete=models.CASCADE, null=True, related_name="replays")
    message = models.ForeignKey(Message, on_delete=models.CASCADE, null=True, related_name="replays")
    since = models.DateTimeField(null=True)
    only_failed = models.BooleanField(default=True)
    """Only what is dead or cancelled; else what succeeded too."""
    per_second = models.FloatField()
    state = models.CharField(max_length=9, choices=State, default=State.RUNNING)
    total = models.PositiveIntegerField()
    """How many there were to send when it began."""
    done = models.PositiveIntegerField(default=0)
    steps = models.PositiveIntegerField(default=0)
    reached_at = models.DateTimeField(null=True, editable=False)
    """Everything published before is done."""
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        ordering = ["-created_at", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=Q(state="running", finished_at__isnull=True)
                | Q(state__in=["done", "cancelled"], finished_at__isnull=False),
                name="svc_webhooks_replay_state",
            ),
            models.CheckConstraint(condition=Q(per_second__gt=0), name="svc_webhooks_replay_rate"),
        ]
        indexes = [models.Index(fields=["owner", "-created_at", "-id"], name="svc_webhooks_replay_list")]

    def __str__(self) -> str:
        return f"{self.done} of {self.total}"

    @property
    def step_size(self) -> int:
        """How many deliveries one step makes due."""
        return max(round(self.per_second * REPLAY_STEP_SECONDS), 1)

    def advance(self, count: int, *, reached_at: datetime | None) -> None:
        self.done, self.steps, self.reached_at = self.done + count, self.steps + 1, reached_at
        self.save(update_fields=["done", "steps", "reached_at"])

    def finish(self, state: State, *, now: datetime) -> None:
        self.state, self.finished_at = state, now
        self.save(update_fields=["state", "finished_at"])


def wants(patterns: list[str], event_type: str) -> bool:
    """Whether one of `patterns` matches: the name itself, `*`, or words with `*` for some of their parts."""
    return any(_matcher(pattern).fullmatch(event_type) for pattern in patterns)


@lru_cache(maxsize=4096)
def _matcher(pattern: str) -> Pattern[str]:
    return compile(translate(pattern))
