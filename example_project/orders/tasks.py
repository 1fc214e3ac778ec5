"""What the worker does for the shop."""

from __future__ import annotations

from datetime import timedelta
from smtplib import SMTPException

from django.conf import settings
from django.core.mail import send_mail
from django.utils import timezone

from svc_infra_django.jobs import periodic, task
from svc_infra_django.observability import logger

from .models import Order
from .reporter import write_report


@task(queue="mail", max_attempts=8, retry_on=(SMTPException, OSError), discard_on=(Order.DoesNotExist,))
def send_receipt(order_id: str) -> None:
    """Mail the customer what they bought. A second run after the first has ended sends nothing more.

    A crash between sending and marking sends it twice: mail has no transaction to take part in.
    """
    order = Order.objects.get(pk=order_id)
    if order.receipt_sent_at is not None:
        return
    send_mail(
        # A subject is one line, and what was bought is the customer's own text.
        subject=" ".join(f"Your receipt for {order}".split()),
        message=f"Thank you! {order} comes to {order.total}.\nOrder {order.pk}",
        from_email=None,
        recipient_list=[order.customer_email],
    )
    order.mark_receipt_sent(now=timezone.now())
    logger.info("receipt sent", order_id=order_id)


@periodic(every=timedelta(seconds=settings.DAILY_REPORT_EVERY_SECONDS))
@task
def write_daily_report() -> None:
    """Bring today's report up to date."""
    now = timezone.now()
    write_report(now.date(), now=now)
