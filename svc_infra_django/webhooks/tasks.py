"""What the webhooks app does later: mails to owners, and the end of old messages."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.utils import timezone

from ..jobs import periodic, task
from .conf import settings
from .mailer import send_notice
from .models import Message

PRUNE_BATCH = 500


@task(max_attempts=5)
def mail_owner(endpoint_id: str, kind: str) -> None:
    """Tell the owner of an endpoint what has become of it."""
    send_notice(UUID(endpoint_id), kind=kind)


@periodic(every=timedelta(hours=1))
@task(max_attempts=1)
def prune_messages() -> int:
    """Delete settled messages that are older than the retention, with their deliveries and attempts."""
    before = timezone.now() - timedelta(days=settings.retention_days)
    deleted = 0
    while batch := list(Message.objects.prunable(before=before).values_list("pk", flat=True)[:PRUNE_BATCH]):
        Message.objects.filter(pk__in=batch).delete()
        deleted += len(batch)
    return deleted
