"""Noticing: the owner of an endpoint is told that it fails, by a channel that is not the endpoint."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db.models import Q
from django.utils import timezone

from ..conf import settings
from ..models import Endpoint
from ..tasks import mail_owner

DISABLED = "disabled"
FAILING = "failing"
RECOVERED = "recovered"
DEAD = "dead"


def notice(endpoint_id: UUID, *, kind: str) -> None:
    """Have the owner told.

    Of dead deliveries and of failing once in a while only, of recovery if they were told of the failing,
    of the end always: an endpoint that comes and goes must not fill a mailbox.
    """
    now = timezone.now()
    before = now - timedelta(seconds=settings.notice_interval_seconds)
    endpoint = Endpoint.objects.filter(pk=endpoint_id, owner__isnull=False)
    match kind:
        case "dead":
            quiet = Q(last_notice_at=None) | Q(last_notice_at__lte=before)
            is_told = endpoint.filter(quiet).update(last_notice_at=now)
        case "failing":
            quiet = Q(last_alarm_at=None) | Q(last_alarm_at__lte=before)
            is_told = endpoint.filter(quiet).update(last_alarm_at=now, is_alarmed=True)
        case "recovered":
            is_told = endpoint.filter(is_alarmed=True).update(is_alarmed=False)
        case _:
            is_told = endpoint.count()
    if is_told:
        mail_owner.enqueue(str(endpoint_id), kind)
