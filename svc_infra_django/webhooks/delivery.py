"""The machine that delivers: claim, prepare, send, settle.

A short transaction claims, another settles; between them, while strangers think, none is open. What
was sent and not settled (the process died) is sent again when its lease has run out: every message
is delivered at least once, and `webhook-id` tells the receiver what it saw before.
"""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Event
from time import monotonic
from typing import Any, ClassVar
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections, router, transaction
from django.utils import timezone

from ..errors import SvcInfraError
from ..jobs.database import immediate
from ..jobs.worker import WorkerService
from ..observability.context import carrying, traceparent
from ..observability.logging import get_logger
from ..observability.metrics import metrics
from ..sealing import unseal
from . import events
from .conf import settings
from .errors import Expunged, NoSigningKey
from .models import Delivery, Endpoint, SigningKey
from .querysets import NIL, Claimed, LaneClaim, Settlement
from .retries import delay, retry_after_seconds
from .signing import Key, secret_key, sign
from .transport import Outcome, Request, Transport

LOGGER = "svc_infra_django.webhooks"
logger = get_logger(LOGGER)

FLUSH_SIZE = 500
FLUSH_SECONDS = 0.05
STOP_SECONDS = 3.0
SETTLE_TRIES = 10
SWEEP_SECONDS = 5.0
PROMOTE_SECONDS = 0.1
PROMOTED = 2_000
CLAIM_AGAIN_SECONDS = 1.0
PACED_SECONDS = 0.1
PACED_ENDPOINTS = 50
KNOWN_SECRETS = 10_000
KEPT_HEADERS = 30
KEPT_HEADER_LENGTH = 200
COOKIES = frozenset(("set-cookie", "set-cookie2"))

CONTROL_HEADER = "webhook-delivery"


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
        # While PostgreSQL writes, this thread can send. SQLite has one writer at a time anyway.
        is_native = connections[router.db_for_write(Delivery)].vendor == "postgresql"
        writer = ThreadPoolExecutor(1, thread_name_prefix="webhooks-writer") if is_native else None
        deliverer = Deliverer(writer=writer)
        try:
            while not stop.is_set():
                deliverer.deliver(stop=stop)
                stop.wait(settings.poll_seconds)
        finally:
            deliverer.close()
            connections.close_all()
            if writer is not None:
                writer.submit(connections.close_all)
                writer.shutdown()


class Deliverer:
    """One claimer, one transport, one set of results waiting to be written.

    Any number of them may run against one database: rows that one is taking the others skip, and the
    epoch of a claim fences out whoever comes back after the lease. With a `writer`, an executor of one
    thread, results are written there while this thread goes on sending; without, here.
    """

    def __init__(
        self,
        *,
        transport: Transport | None = None,
        writer: ThreadPoolExecutor | None = None,
        clock: Callable[[], datetime] = timezone.now,
    ) -> None:
        self.clock = clock
        self.writer = writer
        self.writing: Future[None] | None = None
        self.transport = transport or Transport()
        self.results: list[tuple[Claimed, Outcome]] = []
        self.results_since = 0.0
        self.under_way: dict[UUID, Claimed] = {}
        self.by_endpoint: Counter[UUID] = Counter()
        self.later = 0
        self.after: dict[int, UUID] = dict.fromkeys(Delivery.Lane.values, NIL)
        self.is_first_drained = False
        self.paced_at = float("-inf")
        self.keys: dict[str, Key] = {}
        self.headers: dict[str, list[tuple[str, str]]] = {}
        self.swept_at = self.promoted_at = float("-inf")
        self.empty_until = float("-inf")
        self.claimed_at = float("-inf")
        self.claims_after = float("-inf")

    def deliver(self, *, limit: int | None = None, stop: Event | None = None) -> int:
        """Claim and send until nothing is due, `limit` is reached or `stop` is set; attempts made.

        A slow receiver holds its own slots only: results are written as they come and free slots are
        filled while others are still waiting.
        """
        self.empty_until = self.promoted_at = float("-inf")
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
                self._begin_to_write()

    def _claim_or_wait(self, *, limit: int | None) -> int:
        if monotonic() < self.claims_after:
            return 0
        try:
            return self.claim(limit=limit)
        except (DatabaseError, InterfaceError):
            # What was sent has an answer, which must not be lost with the claim.
            is_idle = not (self.under_way or self.results or self.writing)
            if is_idle or transaction.get_connection().in_atomic_block:
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
        is_early = free < settings.concurrency // 2 and moment - self.claimed_at < FLUSH_SECONDS
        if wanted < 1 or moment < self.empty_until or (is_early and limit is None):
            return 0
        self.claimed_at = moment
        now = self.clock()
        self._sweep(moment, now=now)
        self._promote(moment, now=now)

        paced = self._claim_paced(limit=wanted, moment=moment, now=now)
        claimed = paced + self._claim_lanes(limit=wanted - len(paced), now=now)
        if not claimed:
            self.empty_until = moment + settings.poll_seconds
        self._start(claimed, now=now)
        return len(claimed)

    def receive(self, outcomes: Iterable[Outcome]) -> None:
        """Take what the transport brings; it is written with the next flush."""
        for outcome in outcomes:
            claimed: Claimed = outcome.tag
            if not self.results:
                self.results_since = monotonic()
            self.results.append((claimed, outcome))
            del self.under_way[claimed.id]
            self.by_endpoint[claimed.endpoint_id] -= 1
            self.later -= claimed.lane
            if self.by_endpoint[claimed.endpoint_id] == settings.endpoint_concurrency - _share():
                # This endpoint may be served again, so a claim may find what it passed over.
                self.empty_until = float("-inf")

    def flush(self) -> None:
        """Write all results, and return when they are written."""
        while self.results or self.writing:
            self._begin_to_write(waits=True)

    def _begin_to_write(self, *, waits: bool = False) -> None:
        """Let the results be written once those before them are; `waits` for those if need be."""
        if self.writing is not None:
            if not (waits or self.writing.done() or len(self.results) >= 2 * FLUSH_SIZE):
                return
            writing, self.writing = self.writing, None
            writing.result()
        if not self.results:
            return
        if self.writer is None:
            self._write(self.results)
        else:
            self.writing = self.writer.submit(self._write, self.results)
        self.results = []

    def _write(self, results: Sequence[tuple[Claimed, Outcome]]) -> None:
        """Settle. A database that fails is tried again for a while: the sending is done."""
        for attempt in range(1, SETTLE_TRIES + 1):
            try:
                settle(results, now=self.clock())
            except (DatabaseError, InterfaceError):
                if attempt == SETTLE_TRIES or transaction.get_connection().in_atomic_block:
                    raise
                logger.exception("results cannot be written yet", results=len(results))
                connections.close_all()
                Event().wait(0.2 * attempt)
            else:
                return

    def let_go(self) -> None:
        """Give back what is still under way: another deliverer sends it again."""
        given_back = [(claimed.id, claimed.epoch) for claimed in self.under_way.values()]
        logger.warning("stopping; deliveries given back", deliveries=len(given_back))
        Delivery.objects.release(given_back, now=self.clock())
        self.under_way.clear()
        self.by_endpoint.clear()
        self.later = 0
        self.transport.close()
        self.transport = Transport()

    def close(self) -> None:
        self.transport.close()

    def _sweep(self, moment: float, *, now: datetime) -> None:
        if moment - self.swept_at <= SWEEP_SECONDS:
            return
        self.swept_at = moment
        if lost := Delivery.objects.release_expired(now=now):
            logger.warning("leases ran out; due again", deliveries=lost)
            metrics.increment("webhooks.lost", lost)
        Delivery.objects.cancel_stranded(now=now)

    def _promote(self, moment: float, *, now: datetime) -> None:
        if moment - self.promoted_at <= PROMOTE_SECONDS:
            return
        # Where there were so many there are more, and the next claim brings them.
        is_all = Delivery.objects.promote(now=now, limit=PROMOTED) < PROMOTED
        self.promoted_at = moment if is_all else float("-inf")

    def _claim_lanes(self, *, limit: int, now: datetime) -> list[Claimed]:
        if limit < 1:
            return []
        # Retries go behind first attempts, yet a fifth of a claim is theirs, so that they cannot starve.
        # And however many hang, a quarter of all slots is never theirs.
        kept = limit - 1 if self.is_first_drained else min(limit // 5, limit - 1)
        kept = max(min(kept, settings.concurrency * 3 // 4 - self.later), 0)
        asked: dict[int, int] = {Delivery.Lane.FIRST: limit - kept, Delivery.Lane.LATER: kept}
        claimed = self._claim_round(asked, now=now)
        found = Counter(one.lane for one in claimed)
        self.is_first_drained = found[Delivery.Lane.FIRST] < asked[Delivery.Lane.FIRST]
        # What one lane left over is the other's.
        rest = limit - len(claimed)
        more = [lane for lane in asked if found[lane] == asked[lane]]
        if rest and len(more) == 1:
            claimed += self._claim_round({more[0]: self._room(more[0], rest)}, now=now)
        return claimed

    def _room(self, lane: int, rest: int) -> int:
        if lane == Delivery.Lane.FIRST:
            return rest
        return max(min(rest, settings.concurrency * 3 // 4 - self.later), 0)

    def _claim_round(self, asked: Mapping[int, int], *, now: datetime) -> list[Claimed]:
        lanes = [LaneClaim(lane, limit, self.after[lane]) for lane, limit in asked.items() if limit > 0]
        if not lanes:
            return []
        share = _share()
        most = settings.endpoint_concurrency - share
        claimed = Delivery.objects.claim(
            lanes,
            share=share,
            full=[endpoint for endpoint, count in self.by_endpoint.items() if count > most],
            now=now,
            lease_until=now + timedelta(seconds=settings.lease_seconds),
        )
        for lane in lanes:
            served = [one.endpoint_id for one in claimed if one.lane == lane.lane]
            # Go on behind the last one served, or from the beginning once the round is done.
            again = [endpoint for endpoint in served if endpoint <= lane.after]
            self.after[lane.lane] = max(again or served) if len(served) == lane.limit else NIL
        self._hold(claimed)
        return claimed

    def _claim_paced(self, *, limit: int, moment: float, now: datetime) -> list[Claimed]:
        """Serve endpoints that have a rate, a cap or an open breaker, each as much as it may have now.

        Their rows are locked meanwhile, so the counts hold for all deliverers together.
        """
        if moment - self.paced_at < PACED_SECONDS:
            return []
        self.paced_at = moment
        if not Endpoint.objects.paced().filter(state=Endpoint.State.ENABLED).exists():
            self.paced_at = moment + PACED_SECONDS * 9
            return []
        with immediate(router.db_for_write(Delivery)):
            endpoints = Endpoint.objects.lock_paced_with_work(now=now, limit=PACED_ENDPOINTS)
            sending = Delivery.objects.sending_by_endpoint(endpoint.pk for endpoint in endpoints)
            shares: dict[UUID, int] = {}
            for endpoint in endpoints:
                room = min(
                    endpoint.room(sending=sending[endpoint.pk], now=now),
                    settings.endpoint_concurrency - self.by_endpoint[endpoint.pk],
                    limit - sum(shares.values()),
                )
                if room > 0:
                    shares[endpoint.pk] = room
            if not shares:
                return []
            until = now + timedelta(seconds=settings.lease_seconds)
            claimed = Delivery.objects.claim_for(shares, now=now, lease_until=until)
            taken = Counter(one.endpoint_id for one in claimed)
            for endpoint in endpoints:
                endpoint.spend(taken[endpoint.pk], now=now)
            Endpoint.objects.bulk_update(endpoints, ["paced_until"])
        self._hold(claimed)
        return claimed

    def _hold(self, claimed: Iterable[Claimed]) -> None:
        for one in claimed:
            self.under_way[one.id] = one
            self.by_endpoint[one.endpoint_id] += 1
            self.later += one.lane

    def _start(self, claimed: Iterable[Claimed], *, now: datetime) -> None:
        # No request may outlive its lease.
        longest = max(settings.lease_seconds - 1, 1)
        usual = settings.timeout_seconds
        for one in claimed:
            metrics.observe("webhooks.lag", max(one.lag, 0.0), trigger=one.trigger)
            try:
                keys = [self._key(*key) for key in one.keys]
                request = prepare(
                    one,
                    keys=keys,
                    own=self._own_headers(one),
                    timeout=min(one.timeout or usual, longest),
                    now=now,
                )
            except SvcInfraError as error:
                self.receive([Outcome(one, error="config", detail=error.message)])
            else:
                self.transport.start(request)

    def _key(self, key_id: UUID, sealed: str) -> Key:
        if sealed not in self.keys:
            if len(self.keys) >= KNOWN_SECRETS:
                self.keys.clear()
            self.keys[sealed] = secret_key(unseal(sealed, context=SigningKey(pk=key_id).sealing_context))
        return self.keys[sealed]

    def _own_headers(self, claimed: Claimed) -> list[tuple[str, str]]:
        sealed = claimed.sealed_headers
        if not sealed:
            return []
        if sealed not in self.headers:
            if len(self.headers) >= KNOWN_SECRETS:
                self.headers.clear()
            endpoint = Endpoint(pk=claimed.endpoint_id, sealed_headers=sealed)
            self.headers[sealed] = list(endpoint.headers.items())
        return self.headers[sealed]


def prepare(
    claimed: Claimed,
    *,
    keys: Sequence[Key],
    own: Sequence[tuple[str, str]] = (),
    timeout: float,
    now: datetime,
) -> Request:
    """The signed request of this attempt, with the endpoint's `own` headers.

    Raises NoSigningKey rather than send what nobody can verify, and Expunged if nothing is left to send.
    """
    if not keys:
        raise NoSigningKey()
    if not claimed.body:
        raise Expunged()
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
    if claimed.context:
        with carrying(claimed.context):
            if trace := traceparent():
                headers.append(("traceparent", trace))
    return Request(claimed.url, claimed.body, [*headers, *own], timeout, tag=claimed)


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
    schedule = settings.retry_schedule if claimed.retry_schedule is None else claimed.retry_schedule
    wait = delay(schedule, failures, jitter=settings.retry_jitter)
    if goodbye or control == "abort-message" or wait is None:
        return Verdict(Delivery.State.DEAD, now, error, disable_reason=goodbye)

    rest = _rest_asked_for(status, outcome.headers, now=now)
    wait = max(wait, rest)
    hold_until = now + timedelta(seconds=rest) if rest else None
    return Verdict(Delivery.State.PENDING, now + timedelta(seconds=wait), error, hold_until)


def _rest_asked_for(status: int, headers: Mapping[str, str], *, now: datetime) -> float:
    """Seconds that the whole endpoint shall be left alone (RFC 9110, 10.2.3; RFC 6585, 4)."""
    if status not in (429, 503):
        return 0.0
    limit = settings.retry_after_limit_seconds
    asked = retry_after_seconds(headers.get("retry-after", ""), now=now, limit=limit)
    return asked or (min(settings.throttled_seconds, limit) if status == 429 else 0.0)


def settle(results: Sequence[tuple[Claimed, Outcome]], *, now: datetime) -> None:
    """Write results: deliveries with their attempts, and the health of endpoints that changed.

    Results of a claim that is no longer the newest change nothing: the delivery is in other hands.
    """
    judged = [(claimed, outcome, judge(claimed, outcome, now=now)) for claimed, outcome in results]
    # On PostgreSQL a batch in which all is well is one statement, and that is a transaction already.
    is_one_statement = connections[router.db_for_write(Delivery)].vendor == "postgresql" and not any(
        _changes_health(one, verdict) for one, _, verdict in judged
    )
    with nullcontext() if is_one_statement else transaction.atomic():
        attempts = Delivery.objects.settle([_settlement(*each, now=now) for each in judged], now=now)
        current = [(one, verdict) for one, _, verdict in judged if one.id in attempts]
        _update_health(current, now=now)
        _announce_deaths([(one, verdict, attempts[one.id]) for one, verdict in current])
    _report(judged, attempts)


def _settlement(claimed: Claimed, outcome: Outcome, verdict: Verdict, *, now: datetime) -> Settlement:
    return Settlement(
        claimed.id,
        claimed.epoch,
        verdict.state,
        verdict.due_at,
        outcome.status,
        verdict.error,
        claimed.trigger,
        now - timedelta(seconds=outcome.seconds),
        round(outcome.seconds * 1000),
        _readable(outcome.body),
        _kept_headers(outcome.headers),
    )


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
        if _changes_health(one, verdict):
            by_endpoint[one.endpoint_id].append(verdict)
    if not by_endpoint:
        return
    # In order of id, so that two deliverers cannot wait for each other.
    endpoints = (
        Endpoint.objects.filter(pk__in=list(by_endpoint)).order_by("pk").select_for_update(no_key=True)
    )
    changed = list(endpoints)
    before = {endpoint.pk: endpoint.consecutive_failures for endpoint in changed}
    for endpoint in changed:
        for verdict in by_endpoint[endpoint.pk]:
            endpoint.note(is_success=verdict.is_success, hold_until=verdict.hold_until, now=now)
    Endpoint.objects.bulk_update(
        changed,
        [
            "consecutive_failures", "first_failure_at", "last_failure_at", "last_success_at", "held_until",
            "breaker_trips", "updated_at",
        ],
    )  # fmt: skip
    for endpoint in changed:
        _follow_up(endpoint, by_endpoint[endpoint.pk], before=before[endpoint.pk], now=now)


def _changes_health(claimed: Claimed, verdict: Verdict) -> bool:
    """Whether the endpoint must hear of this: all but one success soon after another."""
    return not verdict.is_success or bool(verdict.disable_reason) or not claimed.is_healthy


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


def _report(judged: Iterable[tuple[Claimed, Outcome, Verdict]], attempts: Container[UUID]) -> None:
    counted: Counter[tuple[str, str]] = Counter()
    says_all = logging.getLogger(LOGGER).isEnabledFor(logging.INFO)
    for claimed, outcome, verdict in judged:
        is_pending = verdict.state == Delivery.State.PENDING
        result = "late" if claimed.id not in attempts else "retry" if is_pending else verdict.state
        counted[result, verdict.error or "none"] += 1
        kind = "success" if verdict.is_success else "failure"
        metrics.observe("webhooks.attempt", outcome.seconds, outcome=kind)
        if says_all or not verdict.is_success:
            _log(claimed, outcome, verdict, result=result)
    for (result, error), count in counted.items():
        metrics.increment("webhooks.deliveries", count, outcome=result, error=error)


def _log(claimed: Claimed, outcome: Outcome, verdict: Verdict, *, result: str) -> None:
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


def _readable(body: bytes) -> str:
    # PostgreSQL keeps no NUL in text.
    return body[: settings.kept_response_bytes].decode(errors="replace").replace("\x00", "")


def _kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for name, value in headers.items():
        if len(kept) == KEPT_HEADERS:
            break
        if name not in COOKIES:
            kept[name[:KEPT_HEADER_LENGTH]] = value[:KEPT_HEADER_LENGTH].replace("\x00", "")
    return kept
