"""Roles and grants over HTTP: always in the caller's own tenant, which no request can name."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from ninja import Query, Router, Status

from ..api import Page, PageQuery, paginated, requires
from ..errors import NotFoundError, PermissionDeniedError, ValidationError
from ..principals import Principal
from .models import Assignment, Role, RoleChange
from .schemas import (
    Answer,
    AssignmentOut,
    ChangedRole,
    ChangeOut,
    ExplanationOut,
    Filter,
    NewAssignment,
    NewRole,
    ObjectRef,
    Question,
    RoleOut,
)
from .services.checking import check as is_allowed
from .services.checking import find_object
from .services.deciding import Scope, scope_of, scope_of_grant
from .services.defining import change_role, define_role, remove_role
from .services.explaining import explain
from .services.granting import grant, place_of, takes_away, withdraw

NO_TENANT = "\0"
"""The tenant of nothing: no name that could be stored."""

router = Router(tags=["roles"])


@router.get("/roles", response=Page[RoleOut], summary="Roles that can be granted here, newest first")
@requires("svc_rbac.view_role")
def list_roles(request: Any, page: Query[PageQuery]) -> Any:
    roles = Role.objects.usable_in(request.principal.tenant).prefetch_related("permissions", "includes")
    return paginated(roles, page)


@router.post("/roles", response={201: RoleOut}, summary="Make a role of permissions that you hold")
@requires("svc_rbac.add_role", delegated=False)
def create_role(request: Any, body: NewRole) -> Any:
    principal = request.principal
    role = define_role(
        body.name,
        body.permissions,
        denies=body.denies,
        includes=_roles(principal, body.includes),
        description=body.description,
        tenant=principal.tenant,
        owner=principal.user,
        actor=principal,
    )
    return Status(201, role)


@router.get("/roles/{uuid:role_id}", response=RoleOut, summary="One role")
@requires("svc_rbac.view_role")
def get_role(request: Any, role_id: UUID) -> Any:
    return _found(
        Role.objects.usable_in(request.principal.tenant).filter(pk=role_id).first(), "Role", role_id
    )


@router.patch("/roles/{uuid:role_id}", response=RoleOut, summary="Change a role within your own rights")
@requires("svc_rbac.change_role", delegated=False)
def patch_role(request: Any, role_id: UUID, body: ChangedRole) -> Any:
    principal = request.principal
    own = Role.objects.filter(tenant=principal.tenant, pk=role_id).first()
    return change_role(
        _found(own, "Role", role_id),
        name=body.name,
        description=body.description,
        patterns=body.permissions,
        denies=body.denies,
        includes=None if body.includes is None else _roles(principal, body.includes),
        actor=principal,
    )


@router.delete("/roles/{uuid:role_id}", response={204: None}, summary="Delete a role that nobody has")
@requires("svc_rbac.delete_role", delegated=False)
def delete_role(request: Any, role_id: UUID) -> Any:
    own = Role.objects.filter(tenant=request.principal.tenant, pk=role_id).first()
    remove_role(_found(own, "Role", role_id), actor=request.principal)
    return Status(204, None)


@router.get("/assignments", response=Page[AssignmentOut], summary="Who has which role, newest first")
@requires("svc_rbac.view_assignment")
def list_assignments(request: Any, page: Query[PageQuery], of: Query[Filter]) -> Any:
    grants = Assignment.objects.filter(tenant=request.principal.tenant).select_related("role", "group")
    if of.user is not None:
        grants = grants.filter(user_id=of.user)
    return paginated(grants, page)


@router.post("/assignments", response={201: AssignmentOut}, summary="Give a user a role that you hold")
@requires("svc_rbac.add_assignment", delegated=False)
def create_assignment(request: Any, body: NewAssignment) -> Any:
    tenant = request.principal.tenant
    user = get_user_model()._default_manager.filter(pk=body.user).first()
    if user is None:
        raise ValidationError.at("/body/user", "There is no such user.", code="unknown")
    role = Role.objects.usable_in(tenant).filter(pk=body.role).first()
    if role is None:
        raise ValidationError.at("/body/role", "There is no such role.", code="unknown")
    obj = None if body.object is None else _object(request.principal, body.object)
    _may_grant(request.principal, user, role, place_of(obj, tenant))
    given = grant(
        user,
        role,
        tenant=tenant,
        obj=obj,
        expires_at=body.expires_at,
        reason=body.reason,
        actor=request.principal,
    )
    return Status(201, given)


@router.delete("/assignments/{uuid:assignment_id}", response={204: None}, summary="Take a role from a user")
@requires("svc_rbac.delete_assignment", delegated=False)
def delete_assignment(request: Any, assignment_id: UUID) -> Any:
    tenant = request.principal.tenant
    given = _found(
        Assignment.objects.filter(tenant=tenant, pk=assignment_id)
        .select_related("user", "group", "role")
        .first(),
        "Assignment",
        assignment_id,
    )
    withdraw(
        given.user or given.group,
        given.role,
        tenant=tenant,
        obj=scope_of_grant(given) if given.object_type else None,
        actor=request.principal,
    )
    return Status(204, None)


@router.get("/check", response=Answer, summary="Whether a user, or I with this credential, may do something")
def check(request: Any, asked: Query[Question]) -> Any:
    subject = _subject(request.principal, asked)
    return {
        "permission": asked.permission,
        "user": str(subject.user.pk),
        "allowed": is_allowed(subject, asked.permission, _place(request.principal, asked)),
    }


@router.get("/explain", response=ExplanationOut, summary="Why, or what is missing")
def explain_permission(request: Any, asked: Query[Question]) -> Any:
    subject = _subject(request.principal, asked)
    found = explain(
        subject.user,
        asked.permission,
        obj=_place(request.principal, asked),
        tenant=subject.tenant,
        scopes=subject.scopes,
        asked_by=request.principal,
    )
    return {
        "permission": asked.permission,
        "user": str(subject.user.pk),
        "allowed": found.allowed,
        "path": found.path,
        "missing": found.missing,
    }


@router.get(
    "/changes", response=Page[ChangeOut], summary="Who changed what of roles and grants, newest first"
)
@requires("svc_rbac.view_rolechange")
def list_changes(request: Any, page: Query[PageQuery], of: Query[Filter]) -> Any:
    changes = RoleChange.objects.filter(tenant=request.principal.tenant)
    if of.user is not None:
        changes = changes.filter(user_key=of.user)
    return paginated(changes, page)


def _may_grant(principal: Principal, user: Any, role: Role, place: Scope) -> None:
    """Who may add grants shall take nothing away: end no grant that is there, and deny nothing."""
    needed = []
    if Assignment.objects.filter(user=user, role=role, **place._asdict()).exists():
        needed.append("svc_rbac.change_assignment")
    if takes_away(role):
        needed.append("svc_rbac.delete_assignment")
    for permission in needed:
        if not principal.can(permission):
            raise PermissionDeniedError(f"You need the permission {permission}.", permission=permission)


def _roles(principal: Principal, ids: list[UUID]) -> list[Role]:
    found = Role.objects.usable_in(principal.tenant).in_bulk(ids)
    for place, role_id in enumerate(ids):
        if role_id not in found:
            raise ValidationError.at(f"/body/includes/{place}", "There is no such role.", code="unknown")
    return list(found.values())


def _object(principal: Principal, named: ObjectRef) -> Any:
    """The row that a grant names. One of another tenant is not there."""
    found = find_object(named.type, named.id)
    scope = None if found is None else scope_of(found)
    if scope is None or scope.tenant != principal.tenant:
        raise ValidationError.at("/body/object", "There is no such object.", code="unknown")
    return found


def _place(principal: Principal, asked: Question) -> Any:
    """What is asked about, if anything. A row that is not there answers as one of another tenant does."""
    if asked.object_type is None or asked.object_id is None:
        return None
    found = find_object(asked.object_type, asked.object_id)
    nowhere = Scope(NO_TENANT if principal.tenant else "", asked.object_type, asked.object_id)
    return nowhere if found is None else found


def _subject(principal: Principal, asked: Question) -> Principal:
    """The caller, or the user that a caller with the permission for it asks about."""
    if asked.user is None or asked.user == str(principal.user.pk):
        return principal
    if not principal.can("svc_rbac.view_assignment"):
        raise PermissionDeniedError(permission="svc_rbac.view_assignment")
    users = get_user_model()._default_manager.filter(pk=asked.user)
    if principal.tenant:
        # Who has no role in the tenant does not belong to it, as far as its staff can see.
        users = users.filter(pk__in=Assignment.objects.filter(tenant=principal.tenant).values("user_id"))
    return Principal(_found(users.first(), "User", asked.user), "question", tenant=principal.tenant)


def _found(row: Any, kind: str, identifier: object) -> Any:
    if row is None:
        raise NotFoundError(kind, identifier)
    return row
