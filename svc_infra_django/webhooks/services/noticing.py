"""Noticing: the owner of an endpoint is told that it fails, by a channel that is not the endpoint."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db.models import F, Q
from django.utils import timezone

from ..conf import settings
from ..models import Endpoint
from ..tasks import mail_owner

DISABLED = "disabled"
FAILING = "failing"
DEAD = "dead"


def notice(endpoint_id: UUID, *, kind: str) -> None:
    """Have the owner told. Of dead deliveries once in a while only; of the rest always."""
    now = timezone.now()
    endpoint = Endpoint.objects.filter(pk=endpoint_id, owner__isnull=False)
    if kind == DEAD:
        before = now - timedelta(seconds=settings.notice_interval_seconds)
        endpoint = endpoint.filter(Q(last_notice_at=None) | Q(last_notice_at__lte=before))
    if endpoint.update(last_notice_at=now if kind == DEAD else F("last_notice_at")):
        mail_owner.enqueue(str(endpoint_id), kind)
