"""After `migrate`, the declared roles are there; who joins or leaves a group, or is deleted, is on record."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.apps import apps as installed_apps
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import DEFAULT_DB_ALIAS, router
from django.db.models.signals import m2m_changed, post_migrate, pre_delete
from django.dispatch import receiver

from ..observability.context import current
from ..observability.logging import get_logger
from .models import Assignment, Role, RoleChange
from .services.deciding import scope_of_grant
from .services.defining import sync_declared_roles
from .services.recording import record
from .services.remembering import forget_everything

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
    # `flush` ends here too, and users that come after it have the keys of those before.
    forget_everything()
    for name in sync_declared_roles().refused:
        logger.warning("a declared role was made by hand and granted already; rename it", role=name)


def note_membership(action: str, instance: Any, reverse: bool, pk_set: set[Any] | None, **_: Any) -> None:
    """Record who joined or left a group that has grants; what they may changes with it."""
    kinds = {
        "post_add": RoleChange.Kind.JOINED,
        "post_remove": RoleChange.Kind.LEFT,
        "pre_clear": RoleChange.Kind.LEFT,
    }
    if action not in kinds or not Assignment.objects.filter(group__isnull=False).exists():
        return
    if reverse:  # of a group, whose users change
        # Not by the group's own accessor, whose name is the project's.
        members = {"groups": instance} if pk_set is None else {"pk__in": pk_set}
        pairs = [(user, instance) for user in get_user_model()._base_manager.filter(**members)]
    else:
        found = instance.groups.all() if pk_set is None else Group.objects.filter(pk__in=pk_set)
        pairs = [(instance, group) for group in found]
    granted = set(
        Assignment.objects.filter(group__in={group for _, group in pairs}).values_list("group_id", flat=True)
    )
    for user, group in pairs:
        if group.pk in granted:
            record(kinds[action], user=user, group=group, actor_key=_signed_in())


@receiver(pre_delete, sender=Group, dispatch_uid="svc_infra_django.rbac.groups")
def note_end_of_group(instance: Group, **_: Any) -> None:
    """Record that nobody has through this group what it was granted."""
    if Assignment.objects.filter(group=instance).exists():
        record(RoleChange.Kind.LEFT, group=instance, actor_key=_signed_in())


# The user model is the project's: that its admin, or a shell, deletes somebody is seen here only.
def note_end_of_user(instance: Any, using: str, **_: Any) -> None:
    """Record what the user had, before the database takes it away."""
    for given in Assignment.objects.using(using).filter(user_id=instance.pk).select_related("role"):
        record(
            RoleChange.Kind.WITHDRAWN,
            role=given.role,
            user=instance,
            scope=scope_of_grant(given),
            reason="The user was deleted.",
            actor_key=_signed_in(),
        )


pre_delete.connect(
    note_end_of_user,
    sender=django_settings.AUTH_USER_MODEL,
    dispatch_uid="svc_infra_django.rbac.users",
)


def _signed_in() -> str:
    return str(current().get("user_id", ""))[:64]


if hasattr(get_user_model(), "groups"):
    m2m_changed.connect(
        note_membership, sender=get_user_model().groups.through, dispatch_uid="svc_infra_django.rbac.groups"
    )
