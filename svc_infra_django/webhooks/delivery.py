"""The machine that delivers: claim, prepare, send, settle.

A short transaction claims, another settles; between them, while strangers think, none is open. What
was sent and not settled (the process died) is sent again when its lease has run out: every message
is delivered at least once, and `webhook-id` tells the receiver what it saw before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from secrets import token_urlsafe
from threading import Event
from time import monotonic
from typing import ClassVar
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections, router, transaction
from django.utils import timezone
from pydantic_core import to_json

from ..errors import SvcInfraError
from ..identifiers import uuid7
from ..jobs.database import immediate
from ..jobs.worker import WorkerService
from ..observability.context import carrying, traceparent
from ..observability.logging import get_logger
from ..observability.metrics import metrics
from ..sealing import unseal
from .conf import settings
from .errors import Expunged, NoSigningKey
from .models import Delivery, Endpoint, SigningKey
from .queue import NIL, Claimed, LaneClaim
from .settlement import settle
from .signing import Key, secret_key, sign
from .transport import Outcome, Request, Transport

logger = get_logger("svc_infra_django.webhooks")

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
CHALLENGE = "webhooks.challenge"


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
        served = Counter(one.endpoint_id for one in claimed if one.lane == Delivery.Lane.FIRST)
        # Who was given a full share may have more: then the others are drained, and the lane is not.
        is_short = found[Delivery.Lane.FIRST] < asked[Delivery.Lane.FIRST]
        self.is_first_drained = is_short and max(served.values(), default=0) < _share()
        # What one lane left over is the other's; a little of it is left to the next claim.
        rest = limit - len(claimed)
        more = [lane for lane in asked if found[lane] == asked[lane]]
        if rest > limit // 5 and len(more) == 1:
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
    headers = _signed(claimed.body, message_id=claimed.message_uid, keys=keys, now=now)
    if claimed.context:
        with carrying(claimed.context):
            if trace := traceparent():
                headers.append(("traceparent", trace))
    return Request(claimed.url, claimed.body, [*headers, *own], timeout, tag=claimed)


def challenge(endpoint: Endpoint, *, now: datetime) -> bool:
    """Whether a receiver wants our webhooks: it answers 2xx to a signed challenge, with the challenge in it.

    Sent at once, in this thread, as every other request is.
    """
    token, message_id = token_urlsafe(24), f"msg_{uuid7().hex}"
    body = to_json({"type": CHALLENGE, "timestamp": now, "data": {"challenge": token}})
    keys = [secret_key(key.secret) for key in endpoint.signing_keys.filter(expires_at=None)]
    headers = [*_signed(body, message_id=message_id, keys=keys, now=now), *endpoint.headers.items()]
    transport = Transport()
    try:
        timeout = endpoint.timeout_seconds or settings.timeout_seconds
        transport.start(Request(endpoint.url, body, headers, timeout))
        outcomes: list[Outcome] = []
        while not outcomes:
            outcomes = transport.turn(wait=1.0)
    finally:
        transport.close()
    return 200 <= (outcomes[0].status or 0) < 300 and token.encode() in outcomes[0].body


def _signed(body: bytes, *, message_id: str, keys: Sequence[Key], now: datetime) -> list[tuple[str, str]]:
    timestamp = int(now.timestamp())
    signature = sign(body, message_id=message_id, timestamp=timestamp, keys=keys)
    return [
        ("Content-Type", "application/json"),
        ("webhook-id", message_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", signature),
    ]


def _share() -> int:
    """How many deliveries one claim takes for one endpoint: half of its slots, so that a claim can follow."""
    return max(settings.endpoint_concurrency // 2, 1)
