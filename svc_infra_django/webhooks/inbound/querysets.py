"""Questions about what came in."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.db import models

if TYPE_CHECKING:
    from .models import InboxMessage


class InboxQuerySet(models.QuerySet["InboxMessage"]):
    def failed(self) -> InboxQuerySet:
        """Those whose handler raised."""
        return self.filter(state="failed")

    def keep_once(self, message: InboxMessage) -> tuple[InboxMessage, bool]:
        """`message`, or the one that came before it under its id, locked; and whether it is new.

        Two deliveries of one webhook at once wait for each other here. Call it in a transaction.
        """
        self.bulk_create([message], ignore_conflicts=True)
        kept = self.select_for_update().get(
            source=message.source, signer=message.signer, external_id=message.external_id
        )
        return kept, kept.pk == message.pk

    def prunable(self, *, before: datetime) -> InboxQuerySet:
        """Settled webhooks from before then."""
        return self.filter(received_at__lt=before).exclude(state="received")
