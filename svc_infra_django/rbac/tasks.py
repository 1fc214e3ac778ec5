"""What the rbac app does later: it chains its changes, forgets those of long ago, and takes back grants on
objects that are gone."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from ..chains import lengthen, prune
from ..jobs import periodic, task
from .conf import settings
from .events import ROLE_WITHDRAWN, RoleWithdrawn
from .models import Assignment, RoleChange, RoleChangeHead


@periodic(every=timedelta(minutes=1))
@task()
def chain_role_changes() -> None:
    lengthen(RoleChangeHead)


@periodic(every=timedelta(hours=1))
@task()
def withdraw_from_gone_objects() -> None:
    # A row that gets the same key later must be nobody's by what was granted on another.
    for given in Assignment.objects.on_gone_objects():
        _take_back(given, reason="The object is gone.")


@transaction.atomic
def _take_back(given: Assignment, *, reason: str) -> None:
    if not given.delete()[0]:
        return  # somebody was quicker
    RoleChange.objects.append(
        RoleChange.Kind.WITHDRAWN,
        role=given.role,
        user=given.user,
        group=given.group,
        tenant=given.tenant,
        object_type=given.object_type,
        object_id=given.object_id,
        reason=reason,
    )
    payload = RoleWithdrawn(**given.told, reason=reason, actor_id=None)
    ROLE_WITHDRAWN.emit(payload, owner=given.user, tenant=given.tenant)


@periodic(every=timedelta(days=1))
@task()
def prune_role_changes() -> None:
    prune(RoleChangeHead, before=timezone.now() - timedelta(days=settings.audit_days))
