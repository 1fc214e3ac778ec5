"""Placing an order: one transaction, or nothing happened."""

from __future__ import annotations

from decimal import Decimal

from django.db import transaction

from svc_infra_django.observability import metrics
from svc_infra_django.principals import Principal

from ..events import ORDER_PLACED, OrderPlaced
from ..models import Order
from ..tasks import send_receipt


@transaction.atomic
def place_order(
    *, customer_email: str, item: str, quantity: int, unit_price: Decimal, principal: Principal
) -> Order:
    """Save the order, queue its receipt and tell the world.

    The job and the webhook deliveries are rows written by this same transaction: a rollback takes
    them along, and a crash after the commit loses none of them.
    """
    with metrics.timer("orders.place"):
        order = Order.objects.create(
            owner=principal.user,
            tenant=principal.tenant,
            customer_email=customer_email,
            item=item,
            quantity=quantity,
            unit_price=unit_price,
        )
        send_receipt.using(owner=principal.user, tenant=principal.tenant).enqueue(str(order.pk))
        ORDER_PLACED.emit(
            OrderPlaced(
                order_id=order.pk,
                customer_email=order.customer_email,
                item=order.item,
                quantity=order.quantity,
                total=order.total,
            ),
            owner=principal.user,
            tenant=principal.tenant,
        )
    metrics.increment("orders.placed")
    return order
