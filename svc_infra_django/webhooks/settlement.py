"""What follows from an outcome, and writing it down: the verdict, the record, the endpoint's health."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connections, router, transaction

from ..observability.context import carrying
from ..observability.logging import get_logger
from ..observability.metrics import metrics
from . import events
from .conf import settings
from .models import Delivery, Endpoint
from .queue import Claimed, Settlement
from .retries import delay, retry_after_seconds
from .transport import Outcome

LOGGER = "svc_infra_django.webhooks"
logger = get_logger(LOGGER)

KEPT_HEADERS = 30
KEPT_HEADER_LENGTH = 200
COOKIES = frozenset(("set-cookie", "set-cookie2"))

CONTROL_HEADER = "webhook-delivery"


class Verdict(NamedTuple):
    """What follows from an outcome."""

    state: str
    due_at: datetime
    error: str = ""
    hold_until: datetime | None = None
    disable_reason: str = ""

    @property
    def is_success(self) -> bool:
        return self.state == Delivery.State.SUCCEEDED


def judge(claimed: Claimed, outcome: Outcome, *, now: datetime) -> Verdict:
    """What follows from an outcome, by Standard Webhooks: 2xx is success, 410 is goodbye, the rest waits."""
    status = outcome.status or 0
    goodbye = goodbye_of(outcome)
    if 200 <= status < 300:
        return Verdict(Delivery.State.SUCCEEDED, now, disable_reason=goodbye)

    error = outcome.error or "http"
    failures = claimed.attempts - claimed.attempts_before + 1
    schedule = settings.retry_schedule if claimed.retry_schedule is None else claimed.retry_schedule
    wait = delay(schedule, failures, jitter=settings.retry_jitter)
    if goodbye or _control(outcome) == "abort-message" or wait is None:
        return Verdict(Delivery.State.DEAD, now, error, disable_reason=goodbye)

    rest = _rest_asked_for(status, outcome.headers, now=now)
    wait = max(wait, rest)
    hold_until = now + timedelta(seconds=rest) if rest else None
    return Verdict(Delivery.State.PENDING, now + timedelta(seconds=wait), error, hold_until)


def goodbye_of(outcome: Outcome) -> str:
    """That the receiver wants nothing more, in words; empty if it did not say so."""
    if _control(outcome) == "disable":
        return "The receiver asked for no more."
    return "The receiver answered 410 Gone." if outcome.status == 410 else ""


def _control(outcome: Outcome) -> str:
    return outcome.headers.get(CONTROL_HEADER, "").strip().lower()


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


def _report(judged: Sequence[tuple[Claimed, Outcome, Verdict]], attempts: Container[UUID]) -> None:
    counted: Counter[tuple[str, str]] = Counter()
    durations = {
        is_success: metrics.series(
            "timer", "webhooks.attempt", outcome="success" if is_success else "failure"
        )
        for is_success in {verdict.is_success for *_, verdict in judged}
    }
    says_all = logging.getLogger(LOGGER).isEnabledFor(logging.INFO)
    for claimed, outcome, verdict in judged:
        is_pending = verdict.state == Delivery.State.PENDING
        result = "late" if claimed.id not in attempts else "retry" if is_pending else verdict.state
        counted[result, verdict.error or "none"] += 1
        durations[verdict.is_success].observe(outcome.seconds)
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


def _readable(body: bytes) -> str:
    # PostgreSQL keeps no NUL in text.
    return body[: settings.kept_response_bytes].decode(errors="replace").replace("\x00", "")


def _kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    kept: dict[str, str] = {}
    for name, value in headers.items():
        if len(kept) == KEPT_HEADERS:
            break
        if name not in COOKIES:
            kept[_storable(name)] = _storable(value)
    return kept


def _storable(text: str) -> str:
    return text[:KEPT_HEADER_LENGTH].replace("\x00", "")
