"""Every outward event becomes a message; the owners of failing endpoints are told."""

from __future__ import annotations

from typing import Any

from django.dispatch import receiver

from ..events import Event, any_event
from .events import (
    DELIVERY_DEAD,
    ENDPOINT_DISABLED,
    ENDPOINT_FAILING,
    DeliveryDied,
    EndpointDisabled,
    EndpointHealth,
)
from .services.noticing import DEAD, DISABLED, FAILING, notice
from .services.publishing import publish

UID = "svc_infra_django.webhooks"


@receiver(any_event, dispatch_uid=UID)
def tell_the_world(event: Event[Any], **_: Any) -> None:
    if event.type.outward:
        publish(event.type.name, event.payload, tenant=event.tenant, owner=event.owner)


@receiver(DELIVERY_DEAD, dispatch_uid=UID)
def tell_of_a_death(event: Event[DeliveryDied], **_: Any) -> None:
    notice(event.payload.endpoint_id, kind=DEAD)


@receiver(ENDPOINT_FAILING, dispatch_uid=UID)
def tell_of_failures(event: Event[EndpointHealth], **_: Any) -> None:
    notice(event.payload.endpoint_id, kind=FAILING)


@receiver(ENDPOINT_DISABLED, dispatch_uid=UID)
def tell_of_the_end(event: Event[EndpointDisabled], **_: Any) -> None:
    notice(event.payload.endpoint_id, kind=DISABLED)
