"""Roles are given, taken and declared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.db import IntegrityError, transaction
from django.utils import timezone

from ...errors import FieldProblem, ValidationError
from ...principals import Principal, is_pattern
from ..conf import settings
from ..errors import (
    BeyondOwnRights,
    NotForDelegates,
    NotGranted,
    RoleDeclared,
    RoleExists,
    RoleInUse,
    RoleOfAnotherTenant,
    RoleRetired,
    RoleUnknown,
)
from ..events import ROLE_GRANTED, ROLE_WITHDRAWN, RoleGranted, RoleWithdrawn
from ..models import Assignment, Role, RolePermission
from .deciding import forget, holds_until


@transaction.atomic
def grant(
    user: Any,
    role: Role | str,
    *,
    tenant: str = "",
    expires_at: datetime | None = None,
    reason: str = "",
    actor: Any = None,
    now: datetime | None = None,
) -> Assignment:
    """Give `user` the role (or the role of that name), in `tenant` or everywhere, until `expires_at`.

    Granting again moves the end and the reason of the grant that is there. `actor` is the user or
    Principal who grants; None is the project itself. Raises RoleUnknown, RoleOfAnotherTenant, RoleRetired,
    BeyondOwnRights if the actor lacks a permission of the role or holds it for a shorter time, and
    ValidationError if the end is not in the future.
    """
    now = now or timezone.now()
    role = find_role(role, tenant=tenant)
    check_grant(role, tenant=tenant, expires_at=expires_at, actor=actor, now=now)
    given, is_new = Assignment.objects.get_or_create(
        user=user,
        role=role,
        tenant=tenant,
        defaults={"expires_at": expires_at, "reason": reason, "granted_by": _user_of(actor)},
    )
    if not is_new:
        if (given.expires_at, given.reason) == (expires_at, reason):
            return given
        given.expires_at, given.reason, given.granted_by = expires_at, reason, _user_of(actor)
        given.save(update_fields=["expires_at", "reason", "granted_by"])
    forget(user)
    ROLE_GRANTED.emit(
        RoleGranted(
            user_id=str(user.pk),
            role=role.name,
            expires_at=expires_at,
            reason=reason,
            actor_id=_actor_id(actor),
        ),
        owner=user,
        tenant=tenant,
    )
    return given


@transaction.atomic
def withdraw(user: Any, role: Role | str, *, tenant: str = "", reason: str = "", actor: Any = None) -> None:
    """Take the role (or every role of that name) from `user` in `tenant`.

    Raises RoleUnknown, or NotGranted if they do not have it.
    """
    _refuse_delegates(actor)
    # A tenant may have a role of the same name as the project, and the user either of them.
    roles = [role] if isinstance(role, Role) else list(Role.objects.usable_in(tenant).filter(name=role))
    if not roles:
        raise RoleUnknown()
    taken, _ = Assignment.objects.filter(user=user, role__in=roles, tenant=tenant).delete()
    if not taken:
        raise NotGranted()
    forget(user)
    ROLE_WITHDRAWN.emit(
        RoleWithdrawn(user_id=str(user.pk), role=roles[0].name, reason=reason, actor_id=_actor_id(actor)),
        owner=user,
        tenant=tenant,
    )


agrant = sync_to_async(grant)
awithdraw = sync_to_async(withdraw)


def find_role(role: Role | str, *, tenant: str) -> Role:
    """The role itself, or the one of that name: the tenant's own before the project's. Raises RoleUnknown."""
    if isinstance(role, Role):
        return role
    found = Role.objects.usable_in(tenant).filter(name=role).order_by("-tenant").first()
    if found is None:
        raise RoleUnknown()
    return found


def check_grant(
    role: Role, *, tenant: str, expires_at: datetime | None, actor: Any, now: datetime | None = None
) -> None:
    """Raise what `grant` would raise."""
    if role.tenant not in ("", tenant):
        raise RoleOfAnotherTenant()
    if role.source == Role.Source.CODE and not is_declared(role):
        # It permits nothing now, so anybody could grant it, and nobody knows what it will be declared as.
        raise RoleRetired()
    if expires_at is not None and expires_at <= (now or timezone.now()):
        raise ValidationError.at("/body/expires_at", "The end must be in the future.", code="past")
    patterns = role.permissions.values_list("pattern", flat=True) if actor is not None else ()
    check_giver(actor, patterns, tenant=tenant, until=expires_at)


def check_giver(actor: Any, patterns: Iterable[str], *, tenant: str, until: datetime | None = None) -> None:
    """Raise BeyondOwnRights unless the actor holds every one of `patterns`; None, the project, holds all."""
    if actor is None:
        return
    _refuse_delegates(actor)
    lacking = [one for one in patterns if not holds_until(actor, one, tenant=tenant, until=until)]
    if lacking:
        raise BeyondOwnRights(permission=lacking[0])


@transaction.atomic
def define_role(
    name: str,
    patterns: Iterable[str],
    *,
    description: str = "",
    tenant: str = "",
    owner: Any = None,
    actor: Any = None,
) -> Role:
    """Make a role by hand. Raises RoleExists, BeyondOwnRights, or ValidationError for a bad permission."""
    patterns = list(dict.fromkeys(patterns))
    bad = [place for place, pattern in enumerate(patterns) if not is_pattern(pattern)]
    if bad:
        raise ValidationError(
            errors=[
                FieldProblem(
                    f"/body/permissions/{place}", "bad_pattern", "Neither a permission nor a wildcard."
                )
                for place in bad
            ]
        )
    check_giver(actor, patterns, tenant=tenant)
    try:
        with transaction.atomic():
            role = Role.objects.create(name=name, description=description, tenant=tenant, owner=owner)
    except IntegrityError:
        raise RoleExists() from None
    RolePermission.objects.bulk_create(RolePermission(role=role, pattern=pattern) for pattern in patterns)
    return role


@transaction.atomic
def remove_role(role: Role, *, actor: Any = None) -> None:
    """Delete a role that nobody has. Raises RoleDeclared while the settings declare it, or RoleInUse."""
    _refuse_delegates(actor)
    role = Role.objects.select_for_update().get(pk=role.pk)
    if is_declared(role):
        raise RoleDeclared()
    if role.assignments.exists():
        raise RoleInUse()
    role.delete()


def is_declared(role: Role) -> bool:
    """Whether the settings declare it now."""
    return role.tenant == "" and role.name in settings.roles


@dataclass(frozen=True, slots=True)
class Synced:
    """What `sync_declared_roles` did, by the names of the roles."""

    made: tuple[str, ...]
    changed: tuple[str, ...]
    emptied: tuple[str, ...]
    refused: tuple[str, ...]
    """Roles made by hand that somebody has: whoever was given one shall not get what is declared."""


@transaction.atomic
def sync_declared_roles() -> Synced:
    """Make the roles that SVC_INFRA["rbac"]["roles"] declares exactly what it says.

    A role that is declared no more keeps its grants but loses its permissions, so it permits nothing. A role
    of that name made by hand becomes the declared one if nobody has it; else it stays what it is. Raises
    BadSettings if the section is wrong.
    """
    declared = {name: set(patterns) for name, patterns in settings.roles.items()}
    known = {
        role.name: role
        for role in Role.objects.select_for_update().filter(tenant="", name__in=declared)
        | Role.objects.select_for_update().filter(source=Role.Source.CODE)
    }
    made, changed, emptied, refused = [], [], [], []
    for name, patterns in declared.items():
        role = known.get(name)
        if role is None:
            # Two processes may migrate at once: the second finds what the first has made.
            role, is_new = Role.objects.get_or_create(
                tenant="", name=name, defaults={"source": Role.Source.CODE}
            )
            if is_new:
                made.append(name)
        elif role.source != Role.Source.CODE:
            if role.assignments.exists():
                refused.append(name)
                continue
            role.source = Role.Source.CODE
            role.save(update_fields=["source"])
        if _set_patterns(role, patterns) and name not in made:
            changed.append(name)
    for name, role in known.items():
        if name not in declared and _set_patterns(role, set()):
            emptied.append(name)
    return Synced(tuple(made), tuple(changed), tuple(emptied), tuple(refused))


def _set_patterns(role: Role, wanted: set[str]) -> bool:
    present = set(role.permissions.values_list("pattern", flat=True))
    if present - wanted:
        role.permissions.filter(pattern__in=present - wanted).delete()
    RolePermission.objects.bulk_create(
        (RolePermission(role=role, pattern=pattern) for pattern in sorted(wanted - present)),
        ignore_conflicts=True,
    )
    return present != wanted


def _refuse_delegates(actor: Any) -> None:
    if isinstance(actor, Principal) and actor.is_delegated:
        raise NotForDelegates()


def _user_of(actor: Any) -> Any:
    return actor.user if isinstance(actor, Principal) else actor


def _actor_id(actor: Any) -> str | None:
    return None if actor is None else str(_user_of(actor).pk)
