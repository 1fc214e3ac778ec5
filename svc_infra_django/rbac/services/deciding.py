"""What a user's roles permit: one query, then look-ups in sets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import auth
from django.core.exceptions import PermissionDenied
from django.utils import timezone

from ...principals import Principal
from ..models import Assignment

CACHE_NAME = "_svc_rbac_rights"


@dataclass(frozen=True, slots=True)
class Held:
    """One permission or wildcard that a user holds through a role."""

    pattern: str
    tenant: str
    expires_at: datetime | None


@dataclass(frozen=True, slots=True)
class Rights:
    """All that a user's roles permit, compiled for look-ups whose cost does not grow with it."""

    held: tuple[Held, ...]
    by_tenant: Mapping[str, frozenset[str]]
    """The patterns that count in each tenant that a grant names; `""` holds those of every tenant."""

    good_until: datetime | None
    """When the first grant ends and the rights must be read again."""

    def patterns(self, tenant: str = "") -> frozenset[str]:
        """Permissions and wildcards that count in `tenant`."""
        return self.by_tenant.get(tenant, self.by_tenant[""])

    def allow(self, permission: str, *, tenant: str = "") -> bool:
        """Whether a pattern covers `permission`, by the rules of `principals.covered`."""
        patterns = self.patterns(tenant)
        return (
            permission in patterns
            or "*" in patterns
            or any(wildcard in patterns for wildcard in wildcards_above(permission))
        )


def compile_rights(held: tuple[Held, ...]) -> Rights:
    """Sort what is held into one set for each tenant."""
    everywhere = frozenset(one.pattern for one in held if one.tenant == "")
    by_tenant = {"": everywhere}
    for one in held:
        if one.tenant:
            by_tenant[one.tenant] = by_tenant.get(one.tenant, everywhere) | {one.pattern}
    ends = [one.expires_at for one in held if one.expires_at is not None]
    return Rights(held, by_tenant, min(ends, default=None))


def wildcards_above(permission: str) -> Iterator[str]:
    """`a.b.c` gives `a.*` and `a.b.*`."""
    dot = permission.find(".")
    while dot >= 0:
        yield f"{permission[:dot]}.*"
        dot = permission.find(".", dot + 1)


NOTHING = compile_rights(())


def rights_of(user: Any, *, now: datetime | None = None) -> Rights:
    """The user's rights, kept on the user object as Django keeps its own, until the first grant ends.

    Nobody who is anonymous or disabled has any.
    """
    if not user.is_active or user.is_anonymous or user.pk is None:
        return NOTHING
    rights: Rights | None = getattr(user, CACHE_NAME, None)
    if rights is not None and (rights.good_until is None or rights.good_until > (now or timezone.now())):
        return rights
    rows = (
        Assignment.objects.live(now=now or timezone.now())
        .filter(user_id=user.pk, role__permissions__isnull=False)
        .order_by()
        .values_list("role__permissions__pattern", "tenant", "expires_at")
    )
    rights = compile_rights(tuple(Held(*row) for row in rows))
    setattr(user, CACHE_NAME, rights)
    return rights


def forget(user: Any) -> None:
    """Read the rights of this user object again when they are next asked for."""
    if hasattr(user, CACHE_NAME):
        delattr(user, CACHE_NAME)


def tenant_of(obj: Any) -> str | None:
    """The tenant that a question about `obj` is asked in; None where roles have nothing to say of it."""
    if obj is None:
        return ""
    tenant = getattr(obj, "tenant", None)
    return tenant if isinstance(tenant, str) else None


def holds_until(actor: Any, pattern: str, *, tenant: str, until: datetime | None) -> bool:
    """Whether the actor (a user or Principal) holds `pattern` in `tenant` at least until then.

    `until` None is for ever. What a backend other than roles allows has no end.
    """
    user = actor.user if isinstance(actor, Principal) else actor
    if isinstance(actor, Principal) and not (actor.can(pattern) and tenant == actor.tenant):
        return False
    if user.is_active and user.is_superuser:
        return True
    lasting = tuple(
        one
        for one in rights_of(user).held
        if one.expires_at is None or (until is not None and one.expires_at >= until)
    )
    return compile_rights(lasting).allow(pattern, tenant=tenant) or bool(allowed_elsewhere(user, pattern))


def allowed_elsewhere(user: Any, permission: str) -> str:
    """The dotted path of the first other backend that allows it, or an empty string.

    As in Django, a backend that raises PermissionDenied ends the search.
    """
    if not user.is_active:
        return ""
    for backend in auth.get_backends():
        if getattr(backend, "answers_from_roles", False) or not hasattr(backend, "has_perm"):
            continue
        try:
            if backend.has_perm(user, permission):
                return f"{type(backend).__module__}.{type(backend).__qualname__}"
        except PermissionDenied:
            return ""
    return ""
