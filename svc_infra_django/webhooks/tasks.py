"""What the webhooks app does later: mails to owners, and the end of old messages."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Count, Exists, Min, OuterRef
from django.utils import timezone

from ..identifiers import uuid7_at
from ..jobs import Rate, periodic, task
from ..observability.metrics import metrics
from .conf import settings
from .delivery import challenge
from .errors import ChallengeUnanswered
from .mailer import send_notice
from .models import REPLAY_STEP_SECONDS, Attempt, Delivery, Endpoint, Message, Replay

PRUNE_BATCH = 500
CHALLENGE_RATE = "10/m"


@task(max_attempts=5)
def mail_owner(endpoint_id: str, kind: str) -> None:
    """Tell the owner of an endpoint what has become of it."""
    send_notice(UUID(endpoint_id), kind=kind)


@task(max_attempts=5, rate=Rate(CHALLENGE_RATE, by=("owner_id",), burst=5))
def challenge_endpoint(endpoint_id: str, owner_id: str) -> None:
    """Enable an endpoint that is paused for it once it answers the challenge.

    Raises ChallengeUnanswered, to be run again a little later. Whoever asks again and again, or makes
    endpoint after endpoint, asks addresses no more often than the rate of one owner.
    """
    asked = Endpoint.objects.unanswered().filter(pk=endpoint_id)
    if (endpoint := asked.first()) is None:
        return
    if not challenge(endpoint, now=timezone.now()):
        raise ChallengeUnanswered()
    with transaction.atomic():
        # Not if it was moved meanwhile: the answer came from the old address.
        if same := asked.filter(url=endpoint.url).select_for_update().first():
            same.mark_enabled()


@periodic(every=timedelta(hours=1))
@task(max_attempts=1)
def prune_messages() -> int:
    """Delete settled messages that are older than the retention, with their deliveries and attempts.

    Bodies go before them if `payload_retention_days` says so. In transactions of a few hundred messages.
    """
    now = timezone.now()
    before = now - timedelta(days=settings.retention_days)
    deleted = 0
    while batch := list(Message.objects.prunable(before=before).values_list("pk", flat=True)[:PRUNE_BATCH]):
        with transaction.atomic():
            # Locked: what somebody had sent again since the batch was read is pending, and stays.
            settled = Delivery.objects.filter(message__in=batch).exclude(state__in=["pending", "sending"])
            list(settled.select_for_update().values_list("pk"))
            # Each table in one statement: letting the ORM follow the keys would read every row first.
            Attempt.objects.filter(delivery__in=settled).delete()
            settled.delete()
            _, gone = Message.objects.filter(pk__in=batch, deliveries=None).delete()
        deleted += gone.get(Message._meta.label, 0)
    # Written while somebody deleted their delivery.
    stray = ~Exists(Delivery.objects.filter(pk=OuterRef("delivery_id")))
    Attempt.objects.filter(stray, pk__lt=uuid7_at(before)).delete()
    Replay.objects.filter(finished_at__lt=before).delete()
    if settings.payload_retention_days is not None:
        _expunge(before=now - timedelta(days=settings.payload_retention_days), now=now)
    return deleted


def _expunge(*, before: datetime, now: datetime) -> None:
    while batch := list(
        Message.objects.expungeable(before=before).values_list("pk", flat=True)[:PRUNE_BATCH]
    ):
        with transaction.atomic():
            Attempt.objects.filter(delivery__message__in=batch).update(response_head="", response_headers={})
            Message.objects.filter(pk__in=batch).update(body=b"", expunged_at=now)


@task(max_attempts=5)
def go_on_replaying(replay_id: str, step: int) -> int:
    """Make the next deliveries of a replay due, and come back for those after them."""
    now = timezone.now()
    with transaction.atomic():
        replay = Replay.objects.select_for_update().filter(pk=replay_id, state=Replay.State.RUNNING).first()
        # A step that ran already and is run once more must not begin a second chain of steps.
        if replay is None or replay.steps != step:
            return 0
        size = replay.step_size
        found = list(Delivery.objects.to_replay(replay).values_list("pk", "created_at")[:size])
        count = Delivery.objects.to_replay(replay).filter(pk__in=[pk for pk, _ in found]).make_due(now=now)
        replay.advance(count, reached_at=found[-1][1] if found else replay.reached_at)
        if len(found) < size:
            replay.finish(Replay.State.DONE, now=now)
        else:
            soon = now + timedelta(seconds=max(size / replay.per_second, REPLAY_STEP_SECONDS))
            go_on_replaying.using(run_after=soon).enqueue(replay_id, replay.steps)
    metrics.increment("webhooks.replayed", count)
    return count


@periodic(every=timedelta(minutes=1))
@task(max_attempts=1)
def measure_queue() -> None:
    """Tell the metrics how much waits, how long the oldest has, and how many endpoints are not well."""
    now = timezone.now()
    due = Delivery.objects.waiting().filter(due_at__lte=now, endpoint__state=Endpoint.State.ENABLED)
    depth = due.aggregate(count=Count("pk"), oldest=Min("due_at"))
    lag = (now - depth["oldest"]).total_seconds() if depth["oldest"] else 0.0
    metrics.gauge("webhooks.waiting", depth["count"])
    metrics.gauge("webhooks.oldest_waiting_seconds", lag)
    metrics.gauge("webhooks.open_breakers", Endpoint.objects.filter(breaker_trips__gt=0).count())
