"""Roles are made, changed and declared."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db import IntegrityError, connections, router, transaction
from django.db.models import F, QuerySet

from ...errors import FieldProblem, ValidationError
from ...principals import is_pattern
from ...rows import locked
from ..conf import DeclaredRole, settings
from ..errors import (
    RoleCycle,
    RoleDeclared,
    RoleExists,
    RoleIncluded,
    RoleInUse,
    RoleOfAnotherTenant,
)
from ..events import ROLE_CHANGED, ROLE_DEFINED, ROLE_REMOVED, RoleEdited
from ..models import Assignment, Role, RoleChange, RolePermission
from .checking import NO_EFFECT, Effect, check_widening, effect_of, refuse_delegates, user_of, with_included
from .deciding import Scope
from .recording import record


@transaction.atomic
def define_role(
    name: str,
    patterns: Iterable[str] = (),
    *,
    denies: Iterable[str] = (),
    includes: Iterable[Role] = (),
    description: str = "",
    tenant: str = "",
    owner: Any = None,
    actor: Any = None,
) -> Role:
    """Make a role by hand: it gives `patterns` and all of `includes`, and takes `denies` from whoever has it.

    Raises RoleExists, BeyondOwnRights, RoleOfAnotherTenant if it would include a role that is not to be had
    in `tenant`, or ValidationError for a bad permission or one that is both given and denied.
    """
    given, taken, below = list(dict.fromkeys(patterns)), list(dict.fromkeys(denies)), list(includes)
    check_patterns(given, taken)
    after = _checked_effect(given, taken, below, tenant)
    check_widening(actor, NO_EFFECT, after, scope=Scope(tenant))
    try:
        with transaction.atomic():
            role = Role.objects.create(name=name, description=description, tenant=tenant, owner=owner)
    except IntegrityError:
        raise RoleExists() from None
    details = _write(role, set(given), set(taken), {each.pk: each.name for each in below})
    _tell(RoleChange.Kind.DEFINED, role, details, actor)
    return role


@transaction.atomic
def change_role(
    role: Role,
    *,
    name: str | None = None,
    description: str | None = None,
    patterns: Iterable[str] | None = None,
    denies: Iterable[str] | None = None,
    includes: Iterable[Role] | None = None,
    actor: Any = None,
) -> Role:
    """Change a role made by hand; None leaves a part as it is. Whoever has it has the change at once.

    The actor must hold what the role gives anew, and what it denies no more. Raises RoleDeclared, RoleExists,
    RoleCycle, and what `define_role` raises.
    """
    refuse_delegates(actor)
    _one_at_a_time()
    role = locked(Role.objects.all(), role.pk)
    if role.source == Role.Source.CODE:
        raise RoleDeclared()
    own = _own_patterns(role)
    given = {each for each in own if not own[each]} if patterns is None else set(patterns)
    taken = {each for each in own if own[each]} if denies is None else set(denies)
    below = list(_included(role) if includes is None else includes)
    check_change(role, given, taken, below, actor=actor)
    if name is not None or description is not None:
        role.name = role.name if name is None else name
        role.description = role.description if description is None else description
        try:
            with transaction.atomic():
                role.save(update_fields=["name", "description"])
        except IntegrityError:
            raise RoleExists() from None
    details = _write(role, given, taken, {each.pk: each.name for each in below})
    _tell(RoleChange.Kind.CHANGED, role, details, actor)
    return role


def check_change(
    role: Role, given: Collection[str], taken: Collection[str], below: Collection[Role], *, actor: Any
) -> None:
    """Raise what `change_role` would raise; also for a role that is not saved yet."""
    check_patterns(list(given), list(taken))
    is_new = role._state.adding
    if not is_new and role.pk in with_included(each.pk for each in below):
        raise RoleCycle()
    before = NO_EFFECT if is_new else effect_of(includes=[role.pk])
    after = _checked_effect(given, taken, below, role.tenant)
    check_widening(actor, before, after, scope=Scope(role.tenant))


def check_patterns(given: list[str], taken: list[str]) -> None:
    """Raise ValidationError at every one that is no permission, or that is both given and denied."""
    problems = [
        FieldProblem(f"/body/{field}/{place}", "bad_pattern", "Neither a permission nor a wildcard.")
        for field, patterns in (("permissions", given), ("denies", taken))
        for place, pattern in enumerate(patterns)
        if not is_pattern(pattern)
    ]
    problems += [
        FieldProblem(f"/body/denies/{place}", "contradiction", "It is given by this role and denied by it.")
        for place, pattern in enumerate(taken)
        if pattern in given
    ]
    if problems:
        raise ValidationError(errors=problems)


@transaction.atomic
def remove_role(role: Role, *, actor: Any = None) -> None:
    """Delete a role that nobody has.

    Raises RoleDeclared while the settings declare it, RoleInUse, or RoleIncluded if another role includes it.
    """
    refuse_delegates(actor)
    role = locked(Role.objects.all(), role.pk)
    if is_declared(role):
        raise RoleDeclared()
    if role.assignments.exists():
        raise RoleInUse()
    if role.included_by.exists():
        raise RoleIncluded()
    _tell(RoleChange.Kind.REMOVED, role, _write(role, set(), set(), {}), actor)
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
    mirrored: tuple[str, ...]
    refused: tuple[str, ...]
    """Roles made by hand that somebody has, groups with members: they shall not get what is declared."""


@transaction.atomic
def sync_declared_roles() -> Synced:
    """Make the declared roles exactly what SVC_INFRA["rbac"]["roles"] says, and mirror roles in groups.

    A role that is declared no more keeps its grants but loses its permissions, so it permits nothing. A role
    of that name made by hand becomes the declared one if nobody has it; else it stays what it is. Raises
    BadSettings if the section is wrong.
    """
    declared = settings.roles
    _one_at_a_time()
    known = {
        role.name: role
        for role in Role.objects.select_for_update().filter(tenant="", name__in=declared)
        | Role.objects.select_for_update().filter(source=Role.Source.CODE)
    }
    made, changed, emptied, refused = [], [], [], []
    roles: dict[str, Role] = {}
    for name in declared:
        role = known.get(name)
        if role is None:
            # Two processes may migrate at once: the second finds what the first has made.
            role, is_new = Role.objects.get_or_create(
                tenant="", name=name, defaults={"source": Role.Source.CODE}
            )
            if is_new:
                made.append(name)
        elif role.source != Role.Source.CODE:
            if role.assignments.exists() or role.included_by.exists():
                refused.append(name)
                continue
            role.source = Role.Source.CODE
            role.save(update_fields=["source"])
        roles[name] = role
    for name, role in roles.items():
        if _declare(role, declared[name], roles) and name not in made:
            changed.append(name)
    for name, role in known.items():
        if name not in declared and _declare(role, DeclaredRole(description=role.description), {}):
            emptied.append(name)
    mirrored = _mirror(refused) if settings.mirror_groups else []
    return Synced(tuple(made), tuple(changed), tuple(emptied), tuple(mirrored), tuple(refused))


def _declare(role: Role, wanted: DeclaredRole, roles: dict[str, Role]) -> bool:
    if role.description != wanted.description:
        role.description = wanted.description
        role.save(update_fields=["description"])
    below = {roles[name].pk: name for name in wanted.includes if name in roles}
    details = _write(role, set(wanted.permissions), set(wanted.denies), below)
    if details:
        _tell(RoleChange.Kind.CHANGED, role, details, None)
    return bool(details)


def _mirror(refused: list[str]) -> list[str]:
    """Give each role of the whole project a group of its name; who is put into the group has the role."""
    mirrored = []
    mirrors = Assignment.objects.filter(group__name=F("role__name"), tenant="", object_type="")
    for role in Role.objects.filter(tenant="").exclude(pk__in=mirrors.values("role")):
        group, is_new = Group.objects.get_or_create(name=role.name)
        if not is_new and get_user_model()._base_manager.filter(groups=group).exists():
            refused.append(role.name)
            continue
        Assignment.objects.create(group=group, role=role, reason="mirrors the role")
        record(RoleChange.Kind.GRANTED, role=role, group=group, reason="mirrors the role")
        mirrored.append(role.name)
    return mirrored


def _checked_effect(
    given: Iterable[str], taken: Iterable[str], below: Collection[Role], tenant: str
) -> Effect:
    if any(each.tenant not in ("", tenant) for each in below):
        raise RoleOfAnotherTenant()
    return effect_of(given, taken, includes=[each.pk for each in below])


def _write(role: Role, given: set[str], taken: set[str], below: dict[Any, str]) -> dict[str, Any]:
    """Make the role's rows so; what was added and removed, by part."""
    own = _own_patterns(role)
    wanted = {**dict.fromkeys(given, False), **dict.fromkeys(taken, True)}
    gone = [pattern for pattern, denies in own.items() if wanted.get(pattern) is not denies]
    if gone:
        role.permissions.filter(pattern__in=gone).delete()
    RolePermission.objects.bulk_create(
        (
            RolePermission(role=role, pattern=pattern, denies=denies)
            for pattern, denies in sorted(wanted.items())
            if own.get(pattern) is not denies
        ),
        ignore_conflicts=True,
    )
    above = {each.pk: each.name for each in _included(role)}
    if below.keys() != above.keys():
        role.includes.set(below)
    parts = {
        "permissions": ({each for each in own if not own[each]}, given),
        "denies": ({each for each in own if own[each]}, taken),
        "includes": (set(above.values()), set(below.values())),
    }
    return {
        part: {"added": sorted(after - before), "removed": sorted(before - after)}
        for part, (before, after) in parts.items()
        if before != after
    }


# Both read from where the role was read to be changed: a copy that lags behind would bring back what was
# taken.
def _own_patterns(role: Role) -> dict[str, bool]:
    """Whether the role denies it, by pattern."""
    return dict(role.permissions.using(role._state.db).values_list("pattern", "denies"))


def _included(role: Role) -> QuerySet[Role]:
    return role.includes.using(role._state.db)


def _tell(kind: RoleChange.Kind, role: Role, details: dict[str, Any], actor: Any) -> None:
    record(kind, role=role, scope=Scope(role.tenant), actor=actor, details=details)
    event = {
        RoleChange.Kind.DEFINED: ROLE_DEFINED,
        RoleChange.Kind.CHANGED: ROLE_CHANGED,
        RoleChange.Kind.REMOVED: ROLE_REMOVED,
    }[kind]
    actor_id = None if actor is None else str(user_of(actor).pk)
    event.emit(RoleEdited(role=role.name, actor_id=actor_id), owner=role.owner, tenant=role.tenant)


def _one_at_a_time() -> None:
    """Let nobody else change what includes what: two at once could close a circle that neither sees."""
    connection = connections[router.db_for_write(Role)]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('svc_rbac.role_includes'))")
