"""Which deliveries to take next: first attempts before later ones, and of each endpoint its share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

from django.db import router

from ..jobs.database import immediate
from ..observability.logging import get_logger
from ..observability.metrics import metrics
from .conf import settings
from .models import Delivery, Endpoint
from .queue import NIL, Claimed, LaneClaim
from .statements import clock_ahead, connection_of

logger = get_logger("svc_infra_django.webhooks")

SWEEP_SECONDS = 5.0
PROMOTE_SECONDS = 0.1
PROMOTED = 2_000
PACED_SECONDS = 0.1
PACED_ENDPOINTS = 50


def enough() -> int:
    """How many deliveries of an endpoint are enough at hand: a share that is sent, and one that waits."""
    return 2 * settings.endpoint_concurrency


class Held:
    """What is in a deliverer's hands, counted."""

    def __init__(self, by_endpoint: Mapping[UUID, int] | None = None, later: int = 0) -> None:
        self.by_endpoint = Counter(by_endpoint)
        self.later = later
        """How many are no first attempts."""

    def copy(self) -> Held:
        return Held(self.by_endpoint, self.later)

    def add(self, claimed: Iterable[Claimed]) -> None:
        for one in claimed:
            self.by_endpoint[one.endpoint_id] += 1
            self.later += one.lane

    def remove(self, one: Claimed) -> bool:
        """Put one down; whether a claim may bring more for its endpoint from now on."""
        self.later -= one.lane
        left = self.by_endpoint[one.endpoint_id] - 1
        if left:
            self.by_endpoint[one.endpoint_id] = left
        else:
            del self.by_endpoint[one.endpoint_id]
        return left == enough()

    def is_full(self, endpoint: UUID) -> bool:
        """Whether no claim may bring more for this endpoint."""
        return self.by_endpoint[endpoint] > enough()


class Claimer:
    """Claims for one deliverer, and knows where its rounds of the endpoints stopped."""

    def __init__(self) -> None:
        self.after: dict[int, UUID] = dict.fromkeys(Delivery.Lane.values, NIL)
        self.is_first_drained = False
        self.is_idle = False
        self.swept_at = self.promoted_at = self.paced_at = float("-inf")
        self.ahead = timedelta()
        """Leases go by the database's clock, which is so far ahead: those of several hosts differ."""

    def claim(self, held: Held, *, limit: int, now: datetime) -> list[Claimed]:
        """Take up to `limit` of what is due for a deliverer that has `held` already; that grows with it.

        Once nothing was found, a single read shows that there still is nothing.
        """
        moment = monotonic()
        self._sweep(moment, now=now)
        if self.is_idle and not Delivery.objects.is_any_due(now=now):
            return []
        self._promote(moment, now=now)
        claimed = self._claim_paced(held, limit=limit, moment=moment, now=now)
        claimed += self._claim_lanes(held, limit=limit - len(claimed), now=now)
        self.is_idle = not (claimed or held.by_endpoint)
        return claimed

    def _sweep(self, moment: float, *, now: datetime) -> None:
        if moment - self.swept_at <= SWEEP_SECONDS:
            return
        self.swept_at = moment
        self.ahead = clock_ahead(connection_of(Delivery))
        if lost := Delivery.objects.release_expired(leases_at=now + self.ahead, now=now):
            logger.warning("leases ran out; due again", deliveries=lost)
            metrics.increment("webhooks.lost", lost)
        Delivery.objects.cancel_stranded(now=now)

    def _promote(self, moment: float, *, now: datetime) -> None:
        if moment - self.promoted_at <= PROMOTE_SECONDS:
            return
        # Where there were so many there are more, and the next claim brings them.
        is_all = Delivery.objects.promote(now=now, limit=PROMOTED) < PROMOTED
        self.promoted_at = moment if is_all else float("-inf")

    def _claim_lanes(self, held: Held, *, limit: int, now: datetime) -> list[Claimed]:
        if limit < 1:
            return []
        # Retries go behind first attempts, yet a fifth of a claim is theirs, so that they cannot starve.
        kept = limit - 1 if self.is_first_drained else min(limit // 5, limit - 1)
        kept = self._room_for_later(held, kept)
        asked: dict[int, int] = {Delivery.Lane.FIRST: limit - kept, Delivery.Lane.LATER: kept}
        claimed = self._claim_round(held, asked, now=now)
        found = Counter(one.lane for one in claimed)
        served = Counter(one.endpoint_id for one in claimed if one.lane == Delivery.Lane.FIRST)
        # Who was given a full share may have more: then the others are drained, and the lane is not.
        is_short = found[Delivery.Lane.FIRST] < asked[Delivery.Lane.FIRST]
        self.is_first_drained = is_short and max(served.values(), default=0) < settings.endpoint_concurrency
        # What one lane left over is the other's; a little of it is left to the next claim.
        rest = limit - len(claimed)
        more = [lane for lane in asked if found[lane] == asked[lane]]
        if rest > limit // 5 and len(more) == 1:
            room = rest if more[0] == Delivery.Lane.FIRST else self._room_for_later(held, rest)
            claimed += self._claim_round(held, {more[0]: room}, now=now)
        return claimed

    def _room_for_later(self, held: Held, wanted: int) -> int:
        # However many retries hang, a quarter of all slots is never theirs.
        return max(min(wanted, settings.concurrency * 3 // 4 - held.later), 0)

    def _claim_round(self, held: Held, asked: Mapping[int, int], *, now: datetime) -> list[Claimed]:
        lanes = [LaneClaim(lane, limit, self.after[lane]) for lane, limit in asked.items() if limit > 0]
        if not lanes:
            return []
        claimed = Delivery.objects.claim(
            lanes,
            share=settings.endpoint_concurrency,
            full=[endpoint for endpoint in held.by_endpoint if held.is_full(endpoint)],
            now=now,
            lease_until=self._lease_until(now),
        )
        for lane in lanes:
            served = [one.endpoint_id for one in claimed if one.lane == lane.lane]
            # Go on behind the last one served, or from the beginning once the round is done.
            again = [endpoint for endpoint in served if endpoint <= lane.after]
            self.after[lane.lane] = max(again or served) if len(served) == lane.limit else NIL
        held.add(claimed)
        return claimed

    def _claim_paced(self, held: Held, *, limit: int, moment: float, now: datetime) -> list[Claimed]:
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
                    settings.endpoint_concurrency - held.by_endpoint[endpoint.pk],
                    limit - sum(shares.values()),
                )
                if room > 0:
                    shares[endpoint.pk] = room
            if not shares:
                return []
            claimed = Delivery.objects.claim_for(shares, now=now, lease_until=self._lease_until(now))
            taken = Counter(one.endpoint_id for one in claimed)
            for endpoint in endpoints:
                endpoint.spend(taken[endpoint.pk], now=now)
            Endpoint.objects.bulk_update(endpoints, ["paced_until"])
        held.add(claimed)
        return claimed

    def _lease_until(self, now: datetime) -> datetime:
        return now + self.ahead + timedelta(seconds=settings.lease_seconds)
