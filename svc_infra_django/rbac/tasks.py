"""What the rbac app does later: it chains its changes, and forgets those of long ago."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from ..chains import lengthen, prune
from ..jobs import periodic, task
from .conf import settings
from .models import RoleChangeHead


@periodic(every=timedelta(minutes=1))
@task()
def chain_role_changes() -> None:
    lengthen(RoleChangeHead)


@periodic(every=timedelta(days=1))
@task()
def prune_role_changes() -> None:
    prune(RoleChangeHead, before=timezone.now() - timedelta(days=settings.audit_days))
