"""Why somebody may, or what they lack."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.utils import timezone

from ...principals import covered
from ..models import Assignment, RolePermission
from .deciding import allowed_elsewhere, wildcards_above

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"


@dataclass(frozen=True, slots=True)
class Link:
    """One step of the way from a user to a permission."""

    kind: str
    """`user`, `superuser`, `group`, `backend`, `role`, `pattern` or `permission`."""

    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer, and the way to it: the links that lead to yes, or the link that is missing."""

    allowed: bool
    path: tuple[Link, ...]
    missing: str = ""

    def __str__(self) -> str:
        if self.allowed:
            return "allowed: " + " → ".join(str(link) for link in self.path)
        return f"denied: {self.missing}"


def explain(
    user: Any,
    permission: str,
    *,
    tenant: str = "",
    scopes: Collection[str] | None = None,
    now: datetime | None = None,
) -> Explanation:
    """Say why `user` may do `permission` in `tenant`, reading the rows anew and compiling nothing.

    It looks as `Principal.can` does: the scopes of the credential if there are any, superuser, Django's
    own permissions and other backends, then roles.
    """
    now = now or timezone.now()
    start, goal = Link("user", str(user)), Link("permission", permission)
    if scopes is not None and not covered(permission, scopes):
        return Explanation(False, (start,), "No scope of this credential covers it.")
    if not user.is_active:
        return Explanation(False, (start,), "The user is disabled.")
    if user.is_superuser:
        return Explanation(True, (start, Link("superuser", "yes"), goal))
    # A fresh copy, so that permissions cached on the caller's object do not speak for the rows.
    backend = allowed_elsewhere(user._meta.model._default_manager.get(pk=user.pk), permission)
    if backend:
        return Explanation(True, (start, *_django_links(user, permission, backend), goal))

    grants = list(
        Assignment.objects.filter(user_id=user.pk, role__permissions__pattern__in=_covering(permission))
        .order_by("created_at", "id")
        .values_list("role__name", "role__tenant", "tenant", "expires_at", "role__permissions__pattern")
    )
    hindrances = []
    for role, role_tenant, in_tenant, expires_at, pattern in grants:
        if role_tenant not in ("", in_tenant):
            hindrances.append(f"The role {role!r} belongs to another tenant than its grant.")
        elif in_tenant not in ("", tenant):
            hindrances.append(f"The role {role!r} is granted in the tenant {in_tenant!r} only.")
        elif expires_at is not None and expires_at <= now:
            hindrances.append(f"The grant of the role {role!r} ended at {expires_at.isoformat()}.")
        else:
            return Explanation(True, (start, Link("role", role), Link("pattern", pattern), goal))
    return Explanation(False, (start,), " ".join(hindrances) or _nothing_granted(permission, tenant))


def _covering(permission: str) -> list[str]:
    """Every pattern that covers the permission."""
    return [permission, "*", *wildcards_above(permission)]


def _django_links(user: Any, permission: str, backend: str) -> tuple[Link, ...]:
    app_label, _, codename = permission.partition(".")
    if backend == MODEL_BACKEND:
        wanted = Q(permissions__codename=codename, permissions__content_type__app_label=app_label)
        group = user.groups.filter(wanted).order_by("name").first()
        if group is not None:
            return (Link("group", group.name),)
        return ()
    return (Link("backend", backend),)


def _nothing_granted(permission: str, tenant: str) -> str:
    roles = (
        RolePermission.objects.filter(pattern__in=_covering(permission), role__tenant__in={"", tenant})
        .order_by("role__name")
        .values_list("role__name", flat=True)
        .distinct()[:5]
    )
    names = ", ".join(repr(name) for name in roles)
    if names:
        return f"No role of theirs has it, and Django's own permissions neither. Roles that have it: {names}."
    return "No role has it, and Django's own permissions do not give it to them either."
