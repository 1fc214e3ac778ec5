"""Every event of the suite is counted and logged, once its transaction is."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db import transaction
from django.dispatch import receiver

from ..events import Event, any_event
from .logging import logger
from .metrics import metrics


@receiver(any_event, dispatch_uid="svc_infra_django.observability")
def count_and_log(event: Event[Any], **_: Any) -> None:
    transaction.on_commit(partial(_tell, event), robust=True)


def _tell(event: Event[Any]) -> None:
    metrics.increment("events", type=event.type.name)
    logger.info("event", event_type=event.type.name, event_id=str(event.id), tenant=event.tenant)
