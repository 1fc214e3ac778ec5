"""A table of who may do what, tried on the roles of this project without leaving a trace."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db import transaction
from pydantic import BaseModel, ConfigDict

from ...errors import ValidationError
from ...principals import Principal
from ..conf import DeclaredRole
from ..models import Assignment, Role
from .checking import check, find_object
from .deciding import Scope
from .defining import change_role, define_role, sync_declared_roles
from .explaining import explain
from .granting import find_role


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PolicyUser(_Table):
    """A user of the table; who is not in the database is made for the time of the rehearsal."""

    superuser: bool = False
    active: bool = True
    groups: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()


class PolicyGrant(_Table):
    """A grant of the table: to a `user` or a `group`."""

    user: str = ""
    group: str = ""
    role: str
    tenant: str = ""
    object: str = ""
    expires_at: datetime | None = None


class PolicyCase(_Table):
    """One row: whether a user may do something, with the `tenant` and the `scopes` of their credential."""

    user: str
    permission: str
    allowed: bool
    tenant: str = ""
    object: str = ""
    scopes: tuple[str, ...] | None = None

    def __str__(self) -> str:
        where = [f"in {self.tenant}" if self.tenant else "", f"to {self.object}" if self.object else ""]
        return " ".join(filter(None, (self.user, self.permission, *where)))


class Policy(_Table):
    """A whole table. Roles that the settings declare are there already; others are declared here."""

    roles: dict[str, DeclaredRole] = {}
    users: dict[str, PolicyUser] = {}
    grants: tuple[PolicyGrant, ...] = ()
    cases: tuple[PolicyCase, ...]


def rehearse(policy: Policy) -> list[str]:
    """What the cases that do not hold say, with the reason; an empty list if all hold.

    Everything is made in a transaction that is rolled back. Raises RoleUnknown, and ValidationError for a
    permission or an object that is written wrongly.
    """
    with transaction.atomic():
        sync_declared_roles()
        _make_roles(policy)
        users = _make_users(policy)
        for grant in policy.grants:
            _make_grant(grant, users)
        failed = [line for case in policy.cases if (line := _failure(case, users[case.user]))]
        transaction.set_rollback(True)
    return failed


def _make_roles(policy: Policy) -> None:
    for name, declared in policy.roles.items():
        if Role.objects.filter(tenant="", name=name).exists():
            raise ValidationError(f"The role {name!r} exists already.")
        define_role(name, declared.permissions, denies=declared.denies)
    for name, declared in policy.roles.items():
        below = [find_role(each, tenant="") for each in declared.includes]
        change_role(find_role(name, tenant=""), includes=below)


def _make_users(policy: Policy) -> dict[str, Any]:
    model = get_user_model()
    named = [*policy.users, *(case.user for case in policy.cases), *(each.user for each in policy.grants)]
    users = {}
    for name in dict.fromkeys(filter(None, named)):
        user = model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()
        if user is None:
            user = model(**{model.USERNAME_FIELD: name})
            user.set_unusable_password()
            user.save()
        users[name] = user
    for name, wanted in policy.users.items():
        users[name].is_superuser, users[name].is_active = wanted.superuser, wanted.active
        users[name].save(update_fields=["is_superuser", "is_active"])
        for group in wanted.groups:
            users[name].groups.add(Group.objects.get_or_create(name=group)[0])
        for permission in wanted.permissions:
            label, _, codename = permission.partition(".")
            found = Permission.objects.filter(content_type__app_label=label, codename=codename).first()
            if found is None:
                raise ValidationError(f"Django has no permission {permission!r}.")
            users[name].user_permissions.add(found)
    return users


def _make_grant(given: PolicyGrant, users: dict[str, Any]) -> None:
    if bool(given.user) == bool(given.group):
        raise ValidationError(f"The grant of {given.role!r} needs either a user or a group.")
    scope = _place(given.object, given.tenant) or Scope(given.tenant)
    # The row itself, not `grant`: nobody is to hear of it, and a grant of the table may have ended.
    Assignment.objects.get_or_create(
        user=users.get(given.user),
        group=Group.objects.get_or_create(name=given.group)[0] if given.group else None,
        role=find_role(given.role, tenant=scope.tenant),
        **scope._asdict(),
        defaults={"expires_at": given.expires_at},
    )


def _place(written: str, tenant: str) -> Scope | None:
    """The object's scope: that of the row if there is one, else as if there were one in the tenant."""
    if not written:
        return None
    kind, _, key = written.partition(":")
    if not (kind.count(".") == 1 and key):
        raise ValidationError(f"{written!r} is no object: write it as orders.order:7.")
    tenant_of_row = getattr(find_object(kind, key), "tenant", tenant)
    return Scope(tenant_of_row if isinstance(tenant_of_row, str) else tenant, kind.lower(), key)


def _failure(case: PolicyCase, user: Any) -> str:
    # As the next request would load them.
    user = user._meta.model._default_manager.get(pk=user.pk)
    scopes = None if case.scopes is None else frozenset(case.scopes)
    place = _place(case.object, case.tenant)
    principal = Principal(user, "question", tenant=case.tenant, scopes=scopes)
    if check(principal, case.permission, place) is case.allowed:
        return ""
    why = explain(user, case.permission, obj=place, tenant=case.tenant, scopes=scopes)
    return f"{case}: should be {'allowed' if case.allowed else 'denied'}, but {why}"
