"""Replaying: sending again what is dead, cancelled or was done."""

from __future__ import annotations

from datetime import datetime
from math import ceil
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from ...observability.metrics import metrics
from ...rows import locked
from ..conf import settings
from ..errors import (
    BadReplay,
    EndpointNotEnabled,
    NotReplayable,
    ReplayedTooFast,
    ReplayFinished,
    TooManyReplays,
)
from ..models import REPLAY_STEP_SECONDS, Delivery, Endpoint, Message, Replay
from ..querysets import DeliveryQuerySet
from ..retries import allowance, paid_until
from ..tasks import go_on_replaying

MAX_PER_SECOND = 1_000
MAX_RUNNING = 10
"""So many replays of one owner may be under way: one call can mean very many requests."""


@transaction.atomic
def replay(delivery: Delivery) -> Delivery:
    """Send one delivery again, with its whole retry schedule before it.

    The message keeps its id and its bytes; timestamp and signature are those of the new attempt, made
    with the secret that the endpoint has then. Raises NotReplayable while it waits or is being sent, or
    if the body was expunged; EndpointNotEnabled for a disabled endpoint; ReplayedTooFast beyond the
    setting's rate of replays at one endpoint.
    """
    now = timezone.now()
    if delivery.endpoint.state == Endpoint.State.DISABLED:
        raise EndpointNotEnabled()
    waiting = [Delivery.State.PENDING, Delivery.State.SENDING]
    if not _make_due(Delivery.objects.filter(pk=delivery.pk).exclude(state__in=waiting), now=now):
        raise NotReplayable()
    _pay(delivery.endpoint_id, now=now)
    delivery.refresh_from_db()
    return delivery


@transaction.atomic
def replay_message(message: Message) -> int:
    """Send a message again to every endpoint where it is dead or cancelled; returns to how many."""
    usable = Delivery.objects.replayable().exclude(endpoint__state=Endpoint.State.DISABLED)
    return _make_due(usable.filter(message=message), now=timezone.now())


@transaction.atomic
def replay_dead(endpoint: Endpoint) -> int:
    """Send everything that is dead or cancelled at one endpoint again, at once; returns how many.

    For many use `start_replay`, which takes its time. Raises EndpointNotEnabled for a disabled endpoint.
    """
    if endpoint.state == Endpoint.State.DISABLED:
        raise EndpointNotEnabled()
    return _make_due(Delivery.objects.replayable().filter(endpoint=endpoint), now=timezone.now())


def count_replayable(
    *,
    owner: Any = None,
    tenant: str = "",
    endpoint: Endpoint | None = None,
    message: Message | None = None,
    since: datetime | None = None,
    only_failed: bool = True,
) -> int:
    """How many deliveries `start_replay` would send again; changes nothing. Raises BadReplay."""
    return Delivery.objects.to_replay(
        _asked(owner, tenant, endpoint, message, since, only_failed, settings.replay_per_second)
    ).count()


@transaction.atomic
def start_replay(
    *,
    owner: Any = None,
    tenant: str = "",
    endpoint: Endpoint | None = None,
    message: Message | None = None,
    since: datetime | None = None,
    only_failed: bool = True,
    per_second: float | None = None,
) -> Replay:
    """Send many deliveries again in the background, `per_second` of them (by default the setting's).

    What is chosen fits all that is given: of one endpoint, of one message, published since then; with an
    `owner` only what goes to their endpoints in `tenant`. What settles after this moment is not touched,
    and neither is what goes to disabled endpoints or was expunged. Raises BadReplay if nothing is given
    that limits it, EndpointNotEnabled, TooManyReplays for an owner who has many under way.
    """
    rate = settings.replay_per_second if per_second is None else per_second
    asked = _asked(owner, tenant, endpoint, message, since, only_failed, rate)
    if endpoint is not None and endpoint.state == Endpoint.State.DISABLED:
        raise EndpointNotEnabled()
    if (
        owner is not None
        and Replay.objects.filter(owner=owner, state=Replay.State.RUNNING).count() >= MAX_RUNNING
    ):
        raise TooManyReplays(retry_after=round(REPLAY_STEP_SECONDS))
    asked.total = Delivery.objects.to_replay(asked).count()
    asked.save(force_insert=True)
    go_on_replaying.enqueue(str(asked.pk), asked.steps)
    return asked


@transaction.atomic
def cancel_replay(replay: Replay) -> Replay:
    """Stop a replay; what it has made due already is sent. Raises ReplayFinished."""
    present = locked(Replay.objects.all(), replay.pk)
    if present.state != Replay.State.RUNNING:
        raise ReplayFinished()
    present.finish(Replay.State.CANCELLED, now=timezone.now())
    return present


def _asked(
    owner: Any,
    tenant: str,
    endpoint: Endpoint | None,
    message: Message | None,
    since: datetime | None,
    only_failed: bool,
    per_second: float,
) -> Replay:
    if endpoint is None and message is None and (since is None or owner is None):
        raise BadReplay()
    if since is not None and timezone.is_naive(since):
        raise BadReplay.at("/body/since", "A moment with its time zone.")
    if not 0 < per_second <= MAX_PER_SECOND:
        raise BadReplay.at("/body/per_second", f"More than 0 and at most {MAX_PER_SECOND}.")
    return Replay(
        owner=owner,
        tenant=tenant,
        endpoint=endpoint,
        message=message,
        since=since,
        only_failed=only_failed,
        per_second=per_second,
    )


def _pay(endpoint_id: UUID, *, now: datetime) -> None:
    # The endpoint is locked after its delivery, as where results are written.
    endpoint = locked(Endpoint.objects.all(), endpoint_id, no_key=True)
    rate = settings.replay_per_second
    if not allowance(rate, paid_until=endpoint.replays_paid_until, now=now):
        raise ReplayedTooFast(retry_after=ceil(1 / rate))
    endpoint.replays_paid_until = paid_until(rate, 1, paid_until=endpoint.replays_paid_until, now=now)
    endpoint.save(update_fields=["replays_paid_until"])


def _make_due(deliveries: DeliveryQuerySet, *, now: datetime) -> int:
    count = deliveries.make_due(now=now)
    metrics.increment("webhooks.replayed", count)
    return count
