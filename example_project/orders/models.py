"""What a shop remembers."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from django.db import models

from svc_infra_django import rows

from .querysets import OrderQuerySet


class Order(models.Model):
    """Somebody bought something. `owner` is the user who placed it, perhaps on a customer's behalf."""

    id = rows.id_field()
    owner = rows.owner_field(on_delete=models.SET_NULL)
    tenant = rows.tenant_field()
    customer_email = models.EmailField()
    item = models.CharField(max_length=200)
    quantity = models.PositiveIntegerField()
    unit_price = models.DecimalField(max_digits=10, decimal_places=2)
    created_at = models.DateTimeField(auto_now_add=True)
    receipt_sent_at = models.DateTimeField(null=True, blank=True, editable=False)
    paid_at = models.DateTimeField(null=True, blank=True, editable=False)

    objects = OrderQuerySet.as_manager()

    class Meta:
        indexes = [models.Index(fields=["tenant", "owner", "-created_at", "-id"], name="order_owned_newest")]
        constraints = [
            models.CheckConstraint(condition=models.Q(quantity__gte=1), name="order_quantity_positive"),
            models.CheckConstraint(condition=models.Q(unit_price__gte=0), name="order_price_not_negative"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} x {self.item}"

    @property
    def total(self) -> Decimal:
        return self.unit_price * self.quantity

    def mark_receipt_sent(self, *, now: datetime) -> None:
        self.receipt_sent_at = now
        self.save(update_fields=["receipt_sent_at"])

    def mark_paid(self, *, now: datetime) -> None:
        self.paid_at = now
        self.save(update_fields=["paid_at"])


class DailyReport(models.Model):
    """What one day (UTC) came to, as last counted."""

    day = models.DateField(primary_key=True)
    orders = models.PositiveIntegerField()
    total = models.DecimalField(max_digits=20, decimal_places=2)
    """Room for more orders of the highest price and quantity than a day has."""
    written_at = models.DateTimeField()

    class Meta:
        ordering = ["-day"]

    def __str__(self) -> str:
        return f"{self.day}: {self.orders} orders"
