"""After `migrate`, the declared roles are there."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.apps import apps as installed_apps
from django.db import DEFAULT_DB_ALIAS, router
from django.db.models.signals import post_migrate
from django.dispatch import receiver

from ..observability.logging import get_logger
from .models import Role
from .services.granting import sync_declared_roles

logger = get_logger("svc_infra_django.rbac")


@receiver(post_migrate, dispatch_uid="svc_infra_django.rbac")
def sync_after_migrate(
    app_config: AppConfig, using: str = DEFAULT_DB_ALIAS, apps: Any = installed_apps, **_: Any
) -> None:
    """Once in each run, when the tables are there and live in this database."""
    if app_config.label != Role._meta.app_label or using != router.db_for_write(Role):
        return
    try:
        apps.get_model(Role._meta.label)
    except LookupError:
        return
    for name in sync_declared_roles().refused:
        logger.warning("a declared role was made by hand and granted already; rename it", role=name)
