"""Every outward event becomes a message; owners of failing endpoints are told; event types are recorded."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.apps import apps as installed_apps
from django.db import DEFAULT_DB_ALIAS, router
from django.db.models.signals import post_migrate
from django.dispatch import receiver

from ..events import Event, any_event
from .events import (
    DELIVERY_DEAD,
    ENDPOINT_DISABLED,
    ENDPOINT_FAILING,
    ENDPOINT_RECOVERED,
    DeliveryDied,
    EndpointDisabled,
    EndpointHealth,
)
from .models import EventType
from .services.declaring import sync_event_types
from .services.noticing import DEAD, DISABLED, FAILING, RECOVERED, notice
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


@receiver(ENDPOINT_RECOVERED, dispatch_uid=UID)
def tell_of_recovery(event: Event[EndpointHealth], **_: Any) -> None:
    notice(event.payload.endpoint_id, kind=RECOVERED)


@receiver(ENDPOINT_DISABLED, dispatch_uid=UID)
def tell_of_the_end(event: Event[EndpointDisabled], **_: Any) -> None:
    notice(event.payload.endpoint_id, kind=DISABLED)


@receiver(post_migrate, dispatch_uid=UID)
def sync_after_migrate(
    app_config: AppConfig, using: str = DEFAULT_DB_ALIAS, apps: Any = installed_apps, **_: Any
) -> None:
    """Once in each run, when the tables are there and live in this database."""
    if app_config.label != EventType._meta.app_label or using != router.db_for_write(EventType):
        return
    try:
        apps.get_model(EventType._meta.label)
    except LookupError:
        return
    sync_event_types()
