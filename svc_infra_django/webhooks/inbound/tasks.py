"""What the inbox does later: handling, and the end of old webhooks."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from ...jobs import periodic, task
from ...jobs.decorators import Unique
from .conf import settings
from .handlers import database, handle
from .models import InboxMessage

PRUNE_BATCH = 1000


# Until it is started, not finished: what is asked for while it runs must not be lost with it.
@task(max_attempts=8, unique=Unique(until="started"))
def handle_message(message_id: str) -> bool:
    """Call the handler of a webhook in the inbox."""
    return handle(UUID(message_id))


@periodic(every=timedelta(hours=1))
@task(max_attempts=1)
def prune_inbox() -> int:
    """Delete settled webhooks that are older than the retention."""
    before = timezone.now() - timedelta(days=settings.retention_days)
    old = InboxMessage.objects.using(database()).prunable(before=before).values_list("pk", flat=True)
    deleted = 0
    while batch := list(old[:PRUNE_BATCH]):
        with transaction.atomic(using=database()):
            # Locked: one that is replayed meanwhile stays.
            settled = list(old.filter(pk__in=batch).order_by("pk").select_for_update())
            deleted += InboxMessage.objects.filter(pk__in=settled).delete()[0]
    return deleted
