"""Questions about roles and grants."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.db import models

from ..rows import OwnedQuerySet

if TYPE_CHECKING:
    from .models import Assignment, Role  # noqa: F401 - the type parameters below


class RoleQuerySet(OwnedQuerySet["Role"]):
    def usable_in(self, tenant: str) -> RoleQuerySet:
        """Roles that may be granted in `tenant`: its own and those of the whole project."""
        return self.filter(tenant__in={"", tenant})


class AssignmentQuerySet(models.QuerySet["Assignment"]):
    def live(self, *, now: datetime) -> AssignmentQuerySet:
        """Grants that have not ended, of roles that belong where they are granted."""
        return self.filter(
            models.Q(expires_at=None) | models.Q(expires_at__gt=now),
            models.Q(role__tenant="") | models.Q(role__tenant=models.F("tenant")),
        )
