"""What else an order changes."""

from __future__ import annotations

from typing import Any

from django.dispatch import receiver

from svc_infra_django.cache import invalidate

from .events import ORDER_PLACED


@receiver(ORDER_PLACED, dispatch_uid="orders.forget_summaries")
def forget_summaries(**_: Any) -> None:
    invalidate("orders")  # waits for the commit
