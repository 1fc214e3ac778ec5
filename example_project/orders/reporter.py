"""Counts the day's orders: for the report that nobody asks for, and for whoever asks in between."""

from __future__ import annotations

from datetime import date, datetime

from svc_infra_django.cache import cached

from .models import DailyReport, Order
from .querysets import Summary


def write_report(day: date, *, now: datetime) -> DailyReport:
    """Count `day` over all tenants and keep the result, replacing what was counted earlier."""
    summary = Order.objects.summary_of(day)
    report, _ = DailyReport.objects.update_or_create(
        day=day, defaults={"orders": summary.orders, "total": summary.total, "written_at": now}
    )
    return report


@cached(ttl=30, tags=["orders"])
def summarise(day: date, tenant: str) -> Summary:
    """The tenant's part of `day`, at most half a minute old; a new order drops the tag (receivers.py)."""
    return Order.objects.filter(tenant=tenant).summary_of(day)
