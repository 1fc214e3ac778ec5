"""Questions about keys."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from django.db.models import Q

from ..rows import OwnedQuerySet

if TYPE_CHECKING:
    from .models import ApiKey  # noqa: F401 - the type parameter below


class ApiKeyQuerySet(OwnedQuerySet["ApiKey"]):
    def usable(self, *, now: datetime) -> ApiKeyQuerySet:
        """Keys that are accepted now, if their owner is."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=now), revoked_at=None)
