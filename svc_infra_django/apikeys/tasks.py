"""What the apikeys app does later: it forgets the numbers of long ago."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from ..jobs import periodic, task
from .conf import settings
from .models import UsageHour

BATCH = 1000


@periodic(every=timedelta(days=1))
@task()
def prune_usage() -> None:
    before = timezone.now() - timedelta(days=settings.usage_days)
    while batch := list(UsageHour.objects.filter(hour__lt=before).values_list("pk", flat=True)[:BATCH]):
        UsageHour.objects.filter(pk__in=batch).delete()
