"""The machine that delivers: claim, prepare, send, settle.

A short transaction claims, another settles; between them, while strangers think, none is open. What
was sent and not settled (the process died) is sent again when its lease has run out: every message
is delivered at least once, and `webhook-id` tells the receiver what it saw before.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from datetime import datetime
from secrets import token_urlsafe
from threading import Event
from time import monotonic
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections, router, transaction
from django.utils import timezone
from pydantic_core import to_json

from ..errors import SvcInfraError
from ..identifiers import uuid7
from ..jobs.worker import WorkerService
from ..observability.context import carrying, traceparent
from ..observability.logging import get_logger
from ..observability.metrics import metrics
from ..sealing import unseal
from .claims import Claimer, Held, enough
from .conf import settings
from .errors import Expunged, NoSigningKey
from .models import Delivery, Endpoint, SigningKey
from .queue import Claimed
from .settlement import goodbye_of, settle
from .signing import Key, secret_key, sign
from .transport import Outcome, Request, Transport

logger = get_logger("svc_infra_django.webhooks")

FLUSH_SIZE = 500
FLUSH_SECONDS = 0.05
STOP_SECONDS = 3.0
SETTLE_TRIES = 10
CLAIM_AGAIN_SECONDS = 1.0
KNOWN_SECRETS = 10_000
CHALLENGE = "webhooks.challenge"
ASK_FOR_REST = frozenset((429, 503))

Result = TypeVar("Result")


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
        # While PostgreSQL claims and writes, this thread can send. SQLite has one writer at a time anyway.
        is_native = connections[router.db_for_write(Delivery)].vendor == "postgresql"
        claiming, writing = (
            ThreadPoolExecutor(1, thread_name_prefix=f"webhooks-{name}") if is_native else Here()
            for name in ("claims", "results")
        )
        deliverer = Deliverer(claiming=claiming, writing=writing)
        try:
            while not stop.is_set():
                deliverer.deliver(stop=stop)
                stop.wait(settings.poll_seconds)
        finally:
            deliverer.close()
            connections.close_all()
            for thread in (claiming, writing):
                thread.submit(connections.close_all)
                thread.shutdown()


class Here(Executor):
    """Runs what is submitted at once, in the thread that submits it."""

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        future = Future[Result]()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # frontier: whoever asks for the result gets it
            future.set_exception(error)
        return future


class Deliverer:
    """One claimer, one transport, one set of results waiting to be written.

    Any number of them may run against one database: rows that one is taking the others skip, and the
    epoch of a claim fences out whoever comes back after the lease. Deliveries are claimed in `claiming`
    and results written in `writing`, executors of one thread, while this thread goes on sending.
    """

    def __init__(
        self,
        *,
        transport: Transport | None = None,
        claiming: Executor | None = None,
        writing: Executor | None = None,
        clock: Callable[[], datetime] = timezone.now,
    ) -> None:
        self.clock = clock
        self.claimer = Claimer()
        self.claiming, self.writing = claiming or Here(), writing or Here()
        self.claim_made: Future[list[Claimed]] | None = None
        self.write_made: Future[None] | None = None
        self.transport = transport or Transport()
        self.results: list[tuple[Claimed, Outcome]] = []
        self.results_since = 0.0
        self.in_hand: dict[UUID, Claimed] = {}
        self.held = Held()
        self.sending: Counter[UUID] = Counter()
        self.waiting: dict[UUID, deque[tuple[Claimed, float]]] = {}
        self.keys: dict[str, Key] = {}
        self.headers: dict[str, list[tuple[str, str]]] = {}
        self.claimed_at = self.empty_until = self.claims_after = float("-inf")
        self.is_freed = False

    def deliver(self, *, limit: int | None = None, stop: Event | None = None) -> int:
        """Claim and send until nothing is due, `limit` is reached or `stop` is set; attempts made.

        A slow receiver holds its own slots only: results are written as they come and free slots are
        filled while others are still waiting.
        """
        self.empty_until = self.claimer.promoted_at = float("-inf")
        taken = 0
        stopped_at = None
        while True:
            if stop is not None and stop.is_set() and stopped_at is None:
                stopped_at = monotonic()
            if stopped_at is None and (limit is None or taken < limit):
                taken += self.claim(limit=None if limit is None else limit - taken)
            else:
                taken += self._start_claimed()
            if not self.in_hand:
                self.flush()
                return taken
            is_late = stopped_at is not None and monotonic() - stopped_at > STOP_SECONDS
            if is_late and self.claim_made is None:
                self.flush()
                self.let_go()
                return taken
            self.receive(self.transport.turn(wait=FLUSH_SECONDS))
            if len(self.results) >= FLUSH_SIZE or monotonic() - self.results_since > FLUSH_SECONDS:
                self._begin_to_write()

    def claim(self, *, limit: int | None) -> int:
        """Begin to fill the free slots and to send what was claimed; how many those are."""
        self._begin_to_claim(limit=limit)
        return self._start_claimed()

    def _begin_to_claim(self, *, limit: int | None) -> None:
        free = settings.concurrency - self.transport.under_way
        wanted = free if limit is None else min(free, limit)
        moment = monotonic()
        # A claim for every single slot that gets free would be a statement for every delivery; waiting
        # until many are free would let those that hang hold up the rest.
        has_many = len(self.in_hand) > enough() * len(self.held.by_endpoint)
        is_enough = free < settings.concurrency // 2 or has_many
        is_early = is_enough and moment - self.claimed_at < FLUSH_SECONDS
        is_too_early = moment < max(self.empty_until, self.claims_after) or (is_early and limit is None)
        if self.claim_made is not None or wanted < 1 or is_too_early:
            return
        self.claimed_at, self.is_freed = moment, False
        now = self.clock()
        self.claim_made = self.claiming.submit(self.claimer.claim, self.held.copy(), limit=wanted, now=now)
        self.claim_made.add_done_callback(lambda _: self.transport.wake())

    def _start_claimed(self) -> int:
        # With nothing else in hand the claim is waited for.
        if self.claim_made is None or (self.in_hand and not self.claim_made.done()):
            return 0
        made, self.claim_made = self.claim_made, None
        try:
            claimed = made.result()
        except (DatabaseError, InterfaceError):
            # What was sent has an answer, which must not be lost with the claim.
            is_idle = not (self.in_hand or self.results or self.write_made)
            if is_idle or transaction.get_connection().in_atomic_block:
                raise
            logger.exception("nothing can be claimed yet", under_way=len(self.in_hand))
            self.claiming.submit(connections.close_all)
            self.claims_after = monotonic() + CLAIM_AGAIN_SECONDS
            return 0
        if not claimed and not self.is_freed:
            self.empty_until = monotonic() + settings.poll_seconds
        lags = {
            each: metrics.series("timer", "webhooks.lag", trigger=each)
            for each in {one.trigger for one in claimed}
        }
        for one in claimed:
            lags[one.trigger].observe(max(one.lag, 0.0))
            self.in_hand[one.id] = one
        self.held.add(claimed)
        now, until = self.clock(), self.claimed_at + settings.lease_seconds
        for one in claimed:
            if self.sending[one.endpoint_id] < settings.endpoint_concurrency:
                self._send(one, now=now)
            else:
                self.waiting.setdefault(one.endpoint_id, deque()).append((one, until))
        return len(claimed)

    def receive(self, outcomes: Iterable[Outcome]) -> None:
        """Take what the transport brings; it is written with the next flush."""
        now = self.clock()
        for outcome in outcomes:
            claimed: Claimed = outcome.tag
            if not self.results:
                self.results_since = monotonic()
            self.results.append((claimed, outcome))
            self.sending[claimed.endpoint_id] -= 1
            self._put_down(claimed)
            if outcome.error or outcome.status in ASK_FOR_REST or goodbye_of(outcome):
                # Nothing more before its health is written down and looked at again.
                self._give_back([one for one, _ in self.waiting.pop(claimed.endpoint_id, ())])
            self._send_next(claimed.endpoint_id, now=now)

    def _put_down(self, one: Claimed) -> None:
        del self.in_hand[one.id]
        if self.held.remove(one):
            # This endpoint may be served again, so a claim may find what it passed over.
            self.empty_until, self.is_freed = float("-inf"), True

    def _send_next(self, endpoint: UUID, *, now: datetime) -> None:
        """Give the slot that got free to what waits for it."""
        waiting = self.waiting.get(endpoint)
        if not waiting:
            if not self.sending[endpoint]:
                del self.sending[endpoint]
            return
        one, until = waiting.popleft()
        if not waiting:
            del self.waiting[endpoint]
        if monotonic() + _timeout(one) <= until:
            self._send(one, now=now)
        else:
            self._give_back([one])
            self._send_next(endpoint, now=now)

    def flush(self) -> None:
        """Write all results, and return when they are written."""
        while self.results or self.write_made:
            self._begin_to_write(waits=True)

    def _begin_to_write(self, *, waits: bool = False) -> None:
        """Let the results be written once those before them are; `waits` for those if need be."""
        if self.write_made is not None:
            if not (waits or self.write_made.done() or len(self.results) >= 2 * FLUSH_SIZE):
                return
            made, self.write_made = self.write_made, None
            made.result()
        if self.results:
            results, self.results = self.results, []
            self.write_made = self.writing.submit(self._write, results)

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
        """Give back what is still in hand: another deliverer sends it again."""
        logger.warning("stopping; deliveries given back", deliveries=len(self.in_hand))
        self._give_back(list(self.in_hand.values()))
        self.sending.clear()
        self.waiting.clear()
        self.transport.close()
        self.transport = Transport()

    def _give_back(self, claimed: Sequence[Claimed]) -> None:
        Delivery.objects.release([(one.id, one.epoch) for one in claimed], now=self.clock())
        for one in claimed:
            self._put_down(one)

    def close(self) -> None:
        self.transport.close()

    def _send(self, one: Claimed, *, now: datetime) -> None:
        self.sending[one.endpoint_id] += 1
        try:
            keys = [self._key(*key) for key in one.keys]
            own = self._own_headers(one)
            request = prepare(one, keys=keys, own=own, timeout=_timeout(one), now=now)
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


def _timeout(one: Claimed) -> float:
    # No request may outlive its lease.
    return min(one.timeout or settings.timeout_seconds, max(settings.lease_seconds - 1, 1))
