"""Why somebody may, or what they lack."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.utils import timezone

from ...principals import Principal, covered
from ..models import Assignment, RolePermission
from .deciding import allowed_elsewhere, wildcards_above

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"


@dataclass(frozen=True, slots=True)
class Link:
    """One step of the way from a user to a permission."""

    kind: str
    """`user`, `superuser`, `group`, `backend`, `role`, `pattern` or `permission`."""

    name: str
    """Blank where whoever asked may not know it."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}".strip()


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
    asked_by: Principal | None = None,
    now: datetime | None = None,
) -> Explanation:
    """Say why `user` may do `permission` in `tenant`, reading the rows anew and compiling nothing.

    It looks as `Principal.can` does: the scopes of the credential if there are any, superuser, Django's
    own permissions and other backends, then roles. `asked_by` is told no more than they may know: names of
    roles and groups that are not theirs only with `svc_rbac.view_role`, and of somebody else no grant in
    another tenant. Without it, all is told.
    """
    now = now or timezone.now()
    is_own = asked_by is not None and asked_by.user.pk == user.pk
    names_roles = asked_by is None or asked_by.can("svc_rbac.view_role")
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
        return _allowed((start, *_django_links(user, permission, backend), goal), names_roles or is_own)

    rows = Assignment.objects.filter(user_id=user.pk, role__permissions__pattern__in=_covering(permission))
    if asked_by is not None and not is_own:
        rows = rows.filter(tenant__in={"", tenant})
    grants = list(
        rows.order_by("created_at", "id").values_list(
            "role__name", "role__tenant", "tenant", "expires_at", "role__permissions__pattern"
        )
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
            path = (start, Link("role", role), Link("pattern", pattern), goal)
            return _allowed(path, names_roles or is_own)
    if not (names_roles or is_own):
        hindrances.clear()
    names = _roles_with(permission, tenant) if names_roles else ""
    return Explanation(False, (start,), " ".join(hindrances) or _nothing_granted(names))


def _allowed(path: tuple[Link, ...], is_named: bool) -> Explanation:
    hidden = () if is_named else ("role", "group")
    return Explanation(True, tuple(Link(link.kind, "") if link.kind in hidden else link for link in path))


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


def _roles_with(permission: str, tenant: str) -> str:
    roles = (
        RolePermission.objects.filter(pattern__in=_covering(permission), role__tenant__in={"", tenant})
        .order_by("role__name")
        .values_list("role__name", flat=True)
        .distinct()[:5]
    )
    return ", ".join(repr(name) for name in roles)


def _nothing_granted(names: str) -> str:
    missing = "No role of theirs has it, and Django's own permissions do not give it to them either."
    return f"{missing} Roles that have it: {names}." if names else missing
