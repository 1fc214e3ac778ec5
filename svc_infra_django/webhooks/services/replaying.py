"""Replaying: sending again what is dead, cancelled or was done."""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from ...observability.metrics import metrics
from ..errors import EndpointNotEnabled, NotReplayable
from ..models import Delivery, Endpoint, Message
from ..querysets import DeliveryQuerySet


@transaction.atomic
def replay(delivery: Delivery) -> Delivery:
    """Send one delivery again, with its whole retry schedule before it.

    The message keeps its id and its bytes; timestamp and signature are those of the new attempt.
    Raises NotReplayable while it waits or is being sent, EndpointNotEnabled for a disabled endpoint.
    """
    if delivery.endpoint.state == Endpoint.State.DISABLED:
        raise EndpointNotEnabled()
    waiting = [Delivery.State.PENDING, Delivery.State.SENDING]
    if not _make_due(Delivery.objects.filter(pk=delivery.pk).exclude(state__in=waiting), now=timezone.now()):
        raise NotReplayable()
    delivery.refresh_from_db()
    return delivery


@transaction.atomic
def replay_message(message: Message) -> int:
    """Send a message again to every endpoint where it is dead or cancelled; returns to how many."""
    usable = Delivery.objects.replayable().exclude(endpoint__state=Endpoint.State.DISABLED)
    return _make_due(usable.filter(message=message), now=timezone.now())


@transaction.atomic
def replay_dead(endpoint: Endpoint) -> int:
    """Send everything that is dead or cancelled at one endpoint again; returns how many.

    Raises EndpointNotEnabled for a disabled endpoint.
    """
    if endpoint.state == Endpoint.State.DISABLED:
        raise EndpointNotEnabled()
    return _make_due(Delivery.objects.replayable().filter(endpoint=endpoint), now=timezone.now())


def _make_due(deliveries: DeliveryQuerySet, *, now: datetime) -> int:
    count = deliveries.update(
        state=Delivery.State.PENDING,
        lane=Delivery.Lane.LATER,
        trigger=Delivery.Trigger.REPLAY,
        due_at=now,
        attempts_before=F("attempts"),
        settled_at=None,
    )
    metrics.increment("webhooks.replayed", count)
    return count
