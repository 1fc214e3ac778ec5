"""What the apikeys app does later: it chains its audit log, and forgets what was long ago."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from ..chains import lengthen, prune
from ..jobs import periodic, task
from .conf import settings
from .models import AuditHead, UsageHour

BATCH = 1000


@periodic(every=timedelta(days=1))
@task()
def prune_usage() -> None:
    before = timezone.now() - timedelta(days=settings.usage_days)
    while batch := list(UsageHour.objects.filter(hour__lt=before).values_list("pk", flat=True)[:BATCH]):
        UsageHour.objects.filter(pk__in=batch).delete()


@periodic(every=timedelta(minutes=1))
@task()
def chain_audit_entries() -> None:
    lengthen(AuditHead)


@periodic(every=timedelta(days=1))
@task()
def prune_audit_entries() -> None:
    prune(AuditHead, before=timezone.now() - timedelta(days=settings.audit_days))
