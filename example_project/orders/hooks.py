"""What others tell the shop: a webhook is verified, kept once, and handled in one transaction."""

from __future__ import annotations

from django.utils import timezone

from svc_infra_django.webhooks.inbound import Received, webhook_receiver

from .models import Order


@webhook_receiver("payments")
def payment_received(message: Received) -> None:
    """The payment provider has the customer's money. What it says of other things is none of ours."""
    if message.event_type == "payment.received":
        order = Order.objects.select_for_update().get(pk=message.data["data"]["order_id"])
        order.mark_paid(now=timezone.now())
