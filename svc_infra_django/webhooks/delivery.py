"""The machine that delivers: claim, prepare, send, settle.

A short transaction claims, another settles; between them, while strangers think, none is open. What
was sent and not settled (the process died) is sent again when its lease has run out: every message
is delivered at least once, and `webhook-id` tells the receiver what it saw before.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from threading import Event
from time import monotonic
from typing import Any, ClassVar
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections, transaction
from django.db.models import Q
from django.utils import timezone

from ..errors import SvcInfraError
from ..jobs.worker import WorkerService
from ..observability.context import carrying, traceparent
from ..observability.logging import get_logger
from ..observability.metrics import metrics
from ..sealing import unseal
from . import events
from .conf import settings
from .errors import NoSigningKey
from .models import Attempt, Delivery, Endpoint, SigningKey
from .querysets import NIL, Settlement
from .retries import delay, retry_after_seconds
from .signing import Key, secret_key, sign
from .transport import Outcome, Request, Transport

logger = get_logger("svc_infra_django.webhooks")

FLUSH_SIZE = 250
FLUSH_SECONDS = 0.05
STOP_SECONDS = 3.0
SETTLE_TRIES = 10
HEALTHY_WRITE_SECONDS = 60
SWEEP_SECONDS = 5.0
CLAIM_AGAIN_SECONDS = 1.0
KNOWN_KEYS = 10_000

CONTROL_HEADER = "webhook-delivery"


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery in this deliverer's hands, with all that sending and judging it needs."""

    retry_schedule: Sequence[float]
    timeout: float
    is_endpoint_well: bool
    body: bytes = field(repr=False)
    id: UUID
    epoch: int
    attempts: int
    attempts_before: int
    trigger: str
    due_at: datetime
    message_uid: str
    event_type: str
    context: dict[str, str]
    endpoint_id: UUID
    url: str = field(repr=False)
    sealed_headers: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from an outcome."""

    state: str
    due_at: datetime
    error: str = ""
    hold_until: datetime | None = None
    disable_reason: str = ""

    @property
    def is_success(self) -> bool:
        return self.state == Delivery.State.SUCCEEDED


def deliver_due(*, limit: int | None = None, now: datetime | None = None) -> int:
    """Deliver what is due, at most `limit`, and return how many attempts were made.

    `now` stands still for the whole call, so a test can look at any moment it likes; without it the
    clock is read as work goes on.
    """
    deliverer = Deliverer(clock=timezone.now if now is None else lambda: now)
    try:
        return deliverer.deliver(limit=limit)
    finally:
        deliverer.close()


class DelivererService(WorkerService):
    """The deliverer that runs in every worker process."""

    name: ClassVar[str] = "webhooks"

    def run(self, stop: Event) -> None:
        deliverer = Deliverer()
        try:
            while not stop.is_set():
                deliverer.deliver(stop=stop)
                stop.wait(settings.poll_seconds)
        finally:
            deliverer.close()
            connections.close_all()


class Deliverer:
    """One claimer, one transport, one set of results waiting to be written.

    Any number of them may run against one database: rows that one is taking the others skip, and the
    epoch of a claim fences out whoever comes back after the lease.
    """

    def __init__(
        self, *, transport: Transport | None = None, clock: Callable[[], datetime] = timezone.now
    ) -> None:
        self.clock = clock
        self.transport = transport or Transport()
        self.results: list[tuple[Claimed, Outcome]] = []
        self.results_since = 0.0
        self.under_way: dict[UUID, Claimed] = {}
        self.by_endpoint: Counter[UUID] = Counter()
        self.after = dict.fromkeys(Delivery.Lane.values, NIL)
        self.keys: dict[str, Key] = {}
        self.swept_at = float("-inf")
        self.empty_until = float("-inf")
        self.claimed_at = float("-inf")
        self.claims_after = float("-inf")

    def deliver(self, *, limit: int | None = None, stop: Event | None = None) -> int:
        """Claim and send until nothing is due, `limit` is reached or `stop` is set; attempts made.

        A slow receiver holds its own slots only: results are written as they come and free slots are
        filled while others are still waiting.
        """
        self.empty_until = float("-inf")
        taken = 0
        stopped_at = None
        while True:
            if stop is not None and stop.is_set() and stopped_at is None:
                stopped_at = monotonic()
            if stopped_at is None and (limit is None or taken < limit):
                taken += self._claim_or_wait(limit=None if limit is None else limit - taken)
            if not self.under_way:
                self.flush()
                return taken
            if stopped_at is not None and monotonic() - stopped_at > STOP_SECONDS:
                self.flush()
                self.let_go()
                return taken
            self.receive(self.transport.turn(wait=FLUSH_SECONDS))
            if len(self.results) >= FLUSH_SIZE or monotonic() - self.results_since > FLUSH_SECONDS:
                self.flush()

    def _claim_or_wait(self, *, limit: int | None) -> int:
        if monotonic() < self.claims_after:
            return 0
        try:
            return self.claim(limit=limit)
        except (DatabaseError, InterfaceError):
            # What was sent has an answer, which must not be lost with the claim.
            if not (self.under_way or self.results) or transaction.get_connection().in_atomic_block:
                raise
            logger.exception("nothing can be claimed yet", under_way=len(self.under_way))
            connections.close_all()
            self.claims_after = monotonic() + CLAIM_AGAIN_SECONDS
            return 0

    def claim(self, *, limit: int | None) -> int:
        """Fill the free slots, first attempts before later ones, and begin to send."""
        free = settings.concurrency - len(self.under_way)
        wanted = free if limit is None else min(free, limit)
        moment = monotonic()
        # A claim for every single slot that gets free would be a statement for every delivery; waiting
        # until many are free would let those that hang hold up the rest.
        is_early = free < settings.concurrency // 4 and moment - self.claimed_at < FLUSH_SECONDS
        if wanted < 1 or moment < self.empty_until or (is_early and limit is None):
            return 0
        self.claimed_at = moment
        now = self.clock()
        if moment - self.swept_at > SWEEP_SECONDS:
            self.swept_at = moment
            if lost := Delivery.objects.release_expired(now=now):
                logger.warning("leases ran out; due again", deliveries=lost)
                metrics.increment("webhooks.lost", lost)
            Delivery.objects.cancel_stranded(now=now)

        # A fifth of the slots is kept from the first attempts, so that retries cannot starve either.
        kept = min(wanted - 1, max(settings.concurrency // 5, 1))
        pairs = self._claim_lane(Delivery.Lane.FIRST, limit=wanted - kept, now=now)
        pairs += self._claim_lane(Delivery.Lane.LATER, limit=wanted - len(pairs), now=now)
        if kept and len(pairs) == wanted - kept:
            pairs += self._claim_lane(Delivery.Lane.FIRST, limit=wanted - len(pairs), now=now)
        if not pairs:
            self.empty_until = moment + settings.poll_seconds
            return 0
        self._start([pk for pk, _ in pairs], now=now)
        return len(pairs)

    def receive(self, outcomes: Iterable[Outcome]) -> None:
        """Take what the transport brings; it is written with the next flush."""
        for outcome in outcomes:
            claimed: Claimed = outcome.tag
            if not self.results:
                self.results_since = monotonic()
            self.results.append((claimed, outcome))
            del self.under_way[claimed.id]
            self.by_endpoint[claimed.endpoint_id] -= 1
            if self.by_endpoint[claimed.endpoint_id] == settings.endpoint_concurrency - _share():
                # This endpoint may be served again, so a claim may find what it passed over.
                self.empty_until = float("-inf")

    def flush(self) -> None:
        """Write the results. A database that fails is tried again for a while: the sending is done."""
        for attempt in range(1, SETTLE_TRIES + 1):
            if not self.results:
                return
            try:
                settle(self.results, now=self.clock())
            except (DatabaseError, InterfaceError):
                if attempt == SETTLE_TRIES or transaction.get_connection().in_atomic_block:
                    raise
                logger.exception("results cannot be written yet", results=len(self.results))
                connections.close_all()
                Event().wait(0.2 * attempt)
            else:
                self.results = []

    def let_go(self) -> None:
        """Give back what is still under way: another deliverer sends it again."""
        given_back = [(claimed.id, claimed.epoch) for claimed in self.under_way.values()]
        logger.warning("stopping; deliveries given back", deliveries=len(given_back))
        Delivery.objects.release(given_back, now=self.clock())
        self.under_way.clear()
        self.by_endpoint.clear()
        self.transport.close()
        self.transport = Transport()

    def close(self) -> None:
        self.transport.close()

    def _claim_lane(self, lane: int, *, limit: int, now: datetime) -> list[tuple[UUID, UUID]]:
        if limit < 1:
            return []
        share = _share()
        most = settings.endpoint_concurrency - share
        full = [endpoint for endpoint, count in self.by_endpoint.items() if count > most]
        begun_at = self.after[lane]
        lease_until = now + timedelta(seconds=settings.lease_seconds)
        pairs = Delivery.objects.claim(
            lane=lane, limit=limit, share=share, full=full, after=begun_at, now=now, lease_until=lease_until
        )
        self.by_endpoint.update(endpoint for _, endpoint in pairs)
        # Go on behind the last one served, or from the beginning once the round is done.
        self.after[lane] = max(endpoint for _, endpoint in pairs) if len(pairs) == limit else NIL
        if len(pairs) < limit and begun_at != NIL:
            pairs += self._claim_lane(lane, limit=limit - len(pairs), now=now)
        return pairs

    def _start(self, ids: Sequence[UUID], *, now: datetime) -> None:
        claimed = load(ids, now=now)
        sealed = _signing_keys({one.endpoint_id for one in claimed}, now=now)
        for one in claimed:
            self.under_way[one.id] = one
            metrics.observe("webhooks.lag", max((now - one.due_at).total_seconds(), 0.0), trigger=one.trigger)
            try:
                request = prepare(one, keys=[self._key(*key) for key in sealed[one.endpoint_id]], now=now)
            except SvcInfraError as error:
                self.receive([Outcome(one, error="config", detail=error.message)])
            else:
                self.transport.start(request)
        # A row that was deleted between claim and load has no slot any more.
        self.by_endpoint = Counter(one.endpoint_id for one in self.under_way.values())

    def _key(self, key_id: UUID, sealed: str) -> Key:
        if sealed not in self.keys:
            if len(self.keys) >= KNOWN_KEYS:
                self.keys.clear()
            self.keys[sealed] = secret_key(unseal(sealed, context=SigningKey(pk=key_id).sealing_context))
        return self.keys[sealed]


def load(ids: Iterable[UUID], *, now: datetime) -> list[Claimed]:
    """The claimed deliveries with their messages and endpoints, in one query."""
    rows = Delivery.objects.filter(pk__in=list(ids), state=Delivery.State.SENDING).values_list(
        "endpoint__retry_schedule", "endpoint__timeout_seconds", "endpoint__consecutive_failures",
        "endpoint__last_success_at", "message__body",
        "id", "epoch", "attempts", "attempts_before", "trigger", "due_at", "message__uid",
        "message__event_type", "message__context", "endpoint_id", "endpoint__url", "endpoint__sealed_headers",
    )  # fmt: skip
    return [_claimed(row, now=now) for row in rows]


def _claimed(row: tuple[Any, ...], *, now: datetime) -> Claimed:
    schedule, timeout, failures, last_success_at, body, *facts = row
    recently = now - timedelta(seconds=HEALTHY_WRITE_SECONDS)
    # No request may outlive its lease.
    longest = max(settings.lease_seconds - 1, 1)
    return Claimed(
        settings.retry_schedule if schedule is None else schedule,
        min(timeout or settings.timeout_seconds, longest),
        failures == 0 and last_success_at is not None and last_success_at > recently,
        bytes(body),
        *facts,
    )


def prepare(claimed: Claimed, *, keys: Sequence[Key], now: datetime) -> Request:
    """The signed request of this attempt.

    Raises NoSigningKey rather than send what nobody can verify, and UnsealingFailed if the endpoint's
    headers cannot be read.
    """
    if not keys:
        raise NoSigningKey()
    timestamp = int(now.timestamp())
    headers = [
        ("Content-Type", "application/json"),
        ("webhook-id", claimed.message_uid),
        ("webhook-timestamp", str(timestamp)),
        (
            "webhook-signature",
            sign(claimed.body, message_id=claimed.message_uid, timestamp=timestamp, keys=keys),
        ),
    ]
    with carrying(claimed.context):
        if trace := traceparent():
            headers.append(("traceparent", trace))
    if claimed.sealed_headers:
        headers += Endpoint(pk=claimed.endpoint_id, sealed_headers=claimed.sealed_headers).headers.items()
    return Request(claimed.url, claimed.body, headers, claimed.timeout, tag=claimed)


def judge(claimed: Claimed, outcome: Outcome, *, now: datetime) -> Verdict:
    """What follows from an outcome, by Standard Webhooks: 2xx is success, 410 is goodbye, the rest waits."""
    status = outcome.status or 0
    control = outcome.headers.get(CONTROL_HEADER, "").strip().lower()
    goodbye = "The receiver answered 410 Gone." if status == 410 else ""
    if control == "disable":
        goodbye = "The receiver asked for no more."
    if 200 <= status < 300:
        return Verdict(Delivery.State.SUCCEEDED, now, disable_reason=goodbye)

    error = outcome.error or "http"
    failures = claimed.attempts - claimed.attempts_before + 1
    wait = delay(claimed.retry_schedule, failures, jitter=settings.retry_jitter)
    if goodbye or control == "abort-message" or wait is None:
        return Verdict(Delivery.State.DEAD, now, error, disable_reason=goodbye)

    hold_until = None
    if status in (429, 503) and "retry-after" in outcome.headers:
        limit = settings.retry_after_limit_seconds
        asked = retry_after_seconds(outcome.headers["retry-after"], now=now, limit=limit)
        hold_until = now + timedelta(seconds=asked)
        wait = max(wait, asked)
    return Verdict(Delivery.State.PENDING, now + timedelta(seconds=wait), error, hold_until)


@transaction.atomic
def settle(results: Sequence[tuple[Claimed, Outcome]], *, now: datetime) -> None:
    """Write results in a few statements: deliveries, attempts, the health of endpoints that changed.

    Results of a claim that is no longer the newest change nothing: the delivery is in other hands.
    """
    judged = [(claimed, outcome, judge(claimed, outcome, now=now)) for claimed, outcome in results]
    attempts = Delivery.objects.settle(
        [
            Settlement(one.id, one.epoch, verdict.state, verdict.due_at, outcome.status, verdict.error)
            for one, outcome, verdict in judged
        ],
        now=now,
    )
    current = [(one, outcome, verdict) for one, outcome, verdict in judged if one.id in attempts]
    Attempt.objects.bulk_create(
        Attempt(
            delivery_id=one.id,
            n=attempts[one.id],
            at=now - timedelta(seconds=outcome.seconds),
            trigger=one.trigger,
            status_code=outcome.status,
            error=verdict.error,
            duration_ms=round(outcome.seconds * 1000),
            response_head=_readable(outcome.body),
        )
        for one, outcome, verdict in current
    )
    _update_health([(one, verdict) for one, _, verdict in current], now=now)
    _announce_deaths([(one, verdict, attempts[one.id]) for one, _, verdict in current])
    for one, outcome, verdict in judged:
        _report(one, outcome, verdict, is_late=one.id not in attempts)


def close_endpoint(endpoint: Endpoint, *, reason: str, now: datetime) -> None:
    """Disable the endpoint, cancel what waits for it, and say so."""
    endpoint.mark_disabled(reason=reason, now=now)
    Delivery.objects.waiting().filter(endpoint=endpoint).update(
        state=Delivery.State.CANCELLED, settled_at=now
    )
    _emit(events.ENDPOINT_DISABLED, events.EndpointDisabled(endpoint_id=endpoint.pk, reason=reason), endpoint)


def _update_health(judged: Sequence[tuple[Claimed, Verdict]], *, now: datetime) -> None:
    by_endpoint: dict[UUID, list[Verdict]] = defaultdict(list)
    for one, verdict in judged:
        if not (verdict.is_success and one.is_endpoint_well and not verdict.disable_reason):
            by_endpoint[one.endpoint_id].append(verdict)
    # In order of id, so that two deliverers cannot wait for each other.
    endpoints = (
        Endpoint.objects.filter(pk__in=list(by_endpoint)).order_by("pk").select_for_update(no_key=True)
    )
    changed = list(endpoints) if by_endpoint else []
    before = {endpoint.pk: endpoint.consecutive_failures for endpoint in changed}
    for endpoint in changed:
        for verdict in by_endpoint[endpoint.pk]:
            endpoint.note(is_success=verdict.is_success, hold_until=verdict.hold_until, now=now)
    Endpoint.objects.bulk_update(
        changed,
        [
            "consecutive_failures", "first_failure_at", "last_failure_at", "last_success_at", "held_until",
            "updated_at",
        ],
    )  # fmt: skip
    for endpoint in changed:
        _follow_up(endpoint, by_endpoint[endpoint.pk], before=before[endpoint.pk], now=now)


def _follow_up(endpoint: Endpoint, verdicts: Sequence[Verdict], *, before: int, now: datetime) -> None:
    health = events.EndpointHealth(
        endpoint_id=endpoint.pk, consecutive_failures=endpoint.consecutive_failures
    )
    if before < settings.failing_after <= endpoint.consecutive_failures:
        _emit(events.ENDPOINT_FAILING, health, endpoint)
    elif before >= settings.failing_after and endpoint.consecutive_failures == 0:
        _emit(events.ENDPOINT_RECOVERED, health, endpoint)
    if endpoint.state == Endpoint.State.DISABLED:
        return
    reason = next((verdict.disable_reason for verdict in verdicts if verdict.disable_reason), "")
    since = endpoint.first_failure_at
    is_failing = endpoint.consecutive_failures >= settings.failing_after
    if not reason and is_failing and since and now - since >= timedelta(days=settings.disable_after_days):
        reason = f"Nothing succeeded for {settings.disable_after_days:g} days."
    if reason:
        close_endpoint(endpoint, reason=reason, now=now)


def _announce_deaths(settled: Iterable[tuple[Claimed, Verdict, int]]) -> None:
    dead = [each for each in settled if each[1].state == Delivery.State.DEAD]
    if not dead:
        return
    endpoints = Endpoint.objects.select_related("owner").in_bulk({one.endpoint_id for one, *_ in dead})
    for claimed, verdict, attempts in dead:
        payload = events.DeliveryDied(
            delivery_id=claimed.id,
            endpoint_id=claimed.endpoint_id,
            message_uid=claimed.message_uid,
            event_type=claimed.event_type,
            attempts=attempts,
            error=verdict.error,
        )
        with carrying(claimed.context):
            _emit(events.DELIVERY_DEAD, payload, endpoints[claimed.endpoint_id])


def _emit(event: Any, payload: Any, endpoint: Endpoint) -> None:
    # The request is made and cannot be undone, so a receiver that raises must not undo its record.
    try:
        with transaction.atomic():
            event.emit(payload, owner=endpoint.owner, tenant=endpoint.tenant)
    except Exception:  # frontier: whatever a receiver of ours or the project's raises
        logger.exception("a receiver of an event failed", event_type=event.name, endpoint_id=str(endpoint.pk))


def _report(claimed: Claimed, outcome: Outcome, verdict: Verdict, *, is_late: bool) -> None:
    result = "late" if is_late else verdict.state if verdict.state != Delivery.State.PENDING else "retry"
    metrics.increment("webhooks.deliveries", outcome=result, error=verdict.error or "none")
    metrics.observe(
        "webhooks.attempt", outcome.seconds, outcome="success" if verdict.is_success else "failure"
    )
    with carrying(
        claimed.context,
        message_id=claimed.message_uid,
        delivery_id=str(claimed.id),
        endpoint_id=str(claimed.endpoint_id),
    ):
        write = logger.info if verdict.is_success else logger.warning
        write(
            "webhook attempt",
            event_type=claimed.event_type,
            outcome=result,
            trigger=claimed.trigger,
            n=claimed.attempts + 1,
            status=outcome.status,
            error=verdict.error,
            detail=outcome.detail,
            duration_ms=round(outcome.seconds * 1000),
        )


def _share() -> int:
    """How many deliveries one claim takes for one endpoint: half of its slots, so that a claim can follow."""
    return max(settings.endpoint_concurrency // 2, 1)


def _signing_keys(endpoint_ids: Iterable[UUID], *, now: datetime) -> dict[UUID, list[tuple[UUID, str]]]:
    found: dict[UUID, list[tuple[UUID, str]]] = defaultdict(list)
    usable = SigningKey.objects.filter(
        Q(expires_at=None) | Q(expires_at__gt=now), endpoint_id__in=list(endpoint_ids)
    )
    for endpoint_id, pk, sealed in usable.order_by("-created_at").values_list(
        "endpoint_id", "id", "sealed_secret"
    ):
        found[endpoint_id].append((pk, sealed))
    return found


def _readable(body: bytes) -> str:
    # PostgreSQL keeps no NUL in text.
    return body[: settings.kept_response_bytes].decode(errors="replace").replace("\x00", "")
