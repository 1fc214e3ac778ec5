"""Questions about orders."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Count, DecimalField, F, Sum

from svc_infra_django import rows


@dataclass(frozen=True, slots=True)
class Summary:
    """What one day came to."""

    day: date
    orders: int
    total: Decimal


class OrderQuerySet(rows.OwnedQuerySet[Any]):
    def summary_of(self, day: date) -> Summary:
        """How many orders `day` (UTC) brought, and what they came to."""
        begins = datetime.combine(day, time.min, tzinfo=UTC)
        counted = self.filter(created_at__gte=begins, created_at__lt=begins + timedelta(days=1)).aggregate(
            orders=Count("pk"),
            total=Sum(F("quantity") * F("unit_price"), output_field=DecimalField(decimal_places=2)),
        )
        return Summary(day=day, orders=counted["orders"], total=counted["total"] or Decimal(0))
