"""Roles are given and taken."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group
from django.db import transaction
from django.utils import timezone

from ...errors import ValidationError
from ..errors import NotGranted, RoleOfAnotherTenant, RoleRetired, RoleUnknown
from ..events import ROLE_GRANTED, ROLE_WITHDRAWN, RoleGranted, RoleWithdrawn
from ..models import Assignment, Role, RoleChange
from .checking import NO_EFFECT, check_widening, effect_of, refuse_delegates, user_of
from .deciding import Scope, scope_of, scope_of_grant
from .defining import is_declared
from .recording import record

# An end beyond this is a slip of the pen, and near the year 9999 dates cannot be reckoned with.
A_LONG_TIME = timedelta(days=36_525)


@transaction.atomic
def grant(
    user: Any,
    role: Role | str,
    *,
    tenant: str = "",
    obj: Any = None,
    expires_at: datetime | None = None,
    reason: str = "",
    actor: Any = None,
    now: datetime | None = None,
) -> Assignment:
    """Give `user`, or every member of a Group, the role (or the role of that name) until `expires_at`.

    It counts everywhere, in `tenant`, or for the row `obj` (whose own tenant it then has). Granting again
    moves the end and the reason of the grant that is there. `actor` is the user or Principal who grants;
    None is the project itself. Raises RoleUnknown, RoleOfAnotherTenant, RoleRetired, BeyondOwnRights if the
    actor lacks a permission of the role there or holds it for a shorter time, and ValidationError if the
    end is not in the future, or more than a hundred years ahead.
    """
    now = now or timezone.now()
    scope = place_of(obj, tenant)
    role = find_role(role, tenant=scope.tenant)
    check_grant(role, scope=scope, expires_at=expires_at, actor=actor, now=now)
    holder = _holder(user)
    # Who takes it away meanwhile is waited for.
    given, is_new = Assignment.objects.select_for_update().get_or_create(
        **holder,
        **scope._asdict(),
        role=role,
        defaults={"expires_at": expires_at, "reason": reason, "granted_by": user_of(actor)},
    )
    if not is_new:
        if (given.expires_at, given.reason) == (expires_at, reason):
            return given
        check_shortening(given, expires_at=expires_at, actor=actor)
        given.expires_at, given.reason, given.granted_by = expires_at, reason, user_of(actor)
        given.save(update_fields=["expires_at", "reason", "granted_by"])
    record(
        RoleChange.Kind.GRANTED if is_new else RoleChange.Kind.MOVED,
        role=role,
        scope=scope,
        actor=actor,
        expires_at=expires_at,
        reason=reason,
        **holder,
    )
    ROLE_GRANTED.emit(
        RoleGranted(**given.told, expires_at=expires_at, reason=reason, actor_id=_actor_id(actor)),
        owner=holder.get("user"),
        tenant=scope.tenant,
    )
    return given


@transaction.atomic
def withdraw(
    user: Any, role: Role | str, *, tenant: str = "", obj: Any = None, reason: str = "", actor: Any = None
) -> None:
    """Take the role (or every role of that name) from a user or Group, where it was granted.

    Raises RoleUnknown, NotGranted if they do not have it, or BeyondOwnRights if the role denies something
    that the actor does not hold: without it they would have that again.
    """
    refuse_delegates(actor)
    scope = place_of(obj, tenant)
    # A tenant may have a role of the same name as the project, and the user either of them.
    roles = [role] if isinstance(role, Role) else list(Role.objects.usable_in(scope.tenant).filter(name=role))
    if not roles:
        raise RoleUnknown()
    holder = _holder(user)
    # Of two who take it at once, the second waits here and then finds nothing.
    there = Assignment.objects.select_for_update(of=("self",)).select_related("user", "group", "role")
    taken = list(there.filter(**holder, **scope._asdict(), role__in=roles))
    if not taken:
        raise NotGranted()
    for given in taken:
        check_widening(actor, effect_of(includes=[given.role_id]), NO_EFFECT, scope=scope)
        given.delete()
        record(RoleChange.Kind.WITHDRAWN, role=given.role, scope=scope, actor=actor, reason=reason, **holder)
        ROLE_WITHDRAWN.emit(
            RoleWithdrawn(**given.told, reason=reason, actor_id=_actor_id(actor)),
            owner=holder.get("user"),
            tenant=scope.tenant,
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
    role: Role, *, scope: Scope, expires_at: datetime | None, actor: Any, now: datetime | None = None
) -> None:
    """Raise what `grant` would raise."""
    if role.tenant not in ("", scope.tenant):
        raise RoleOfAnotherTenant()
    if role.source == Role.Source.CODE and not is_declared(role):
        # It permits nothing now, so anybody could grant it, and nobody knows what it will be declared as.
        raise RoleRetired()
    _check_end(expires_at, now=now or timezone.now())
    if actor is not None:
        check_widening(actor, NO_EFFECT, effect_of(includes=[role.pk]), scope=scope, until=expires_at)


def takes_away(role: Role) -> bool:
    """Whether the role, with all that it includes, denies something to whoever has it."""
    return bool(effect_of(includes=[role.pk]).denies)


def _check_end(expires_at: datetime | None, *, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        raise ValidationError.at("/body/expires_at", "The end must be in the future.", code="past")
    if expires_at is not None and expires_at > now + A_LONG_TIME:
        message = "No end lies more than a hundred years ahead; without one a grant lasts for ever."
        raise ValidationError.at("/body/expires_at", message, code="too_late")


def check_shortening(given: Assignment, *, expires_at: datetime | None, actor: Any) -> None:
    """Raise BeyondOwnRights if the grant would end sooner and with it a denial of what the actor lacks."""
    ends_sooner = expires_at is not None and (given.expires_at is None or expires_at < given.expires_at)
    if ends_sooner:
        lifted = effect_of(includes=[given.role_id])
        check_widening(actor, lifted, NO_EFFECT, scope=scope_of_grant(given))


def place_of(obj: Any, tenant: str) -> Scope:
    """Where a grant counts. Raises ValueError for a row without a primary key, or of another tenant."""
    if obj is None:
        return Scope(tenant)
    scope = scope_of(obj)
    if scope is None or not scope.is_object:
        raise ValueError(f"A grant cannot name {obj!r}: it needs a saved row whose tenant, if any, is text.")
    if tenant not in ("", scope.tenant):
        raise ValueError(f"{obj!r} is of the tenant {scope.tenant!r}, not {tenant!r}.")
    return scope


def _holder(user: Any) -> dict[str, Any]:
    return {"group": user} if isinstance(user, Group) else {"user": user}


def _actor_id(actor: Any) -> str | None:
    return None if actor is None else str(user_of(actor).pk)
