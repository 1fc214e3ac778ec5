"""Roles and grants over HTTP: always in the caller's own tenant, which no request can name."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from ninja import Query, Router, Status

from ..api import Page, PageQuery, paginated, requires
from ..errors import NotFoundError, PermissionDeniedError, ValidationError
from ..principals import Principal
from .models import Assignment, Role
from .schemas import (
    Answer,
    AssignmentOut,
    ExplanationOut,
    Filter,
    NewAssignment,
    NewRole,
    Question,
    RoleOut,
)
from .services.explaining import explain
from .services.granting import define_role, grant, remove_role, withdraw

router = Router(tags=["roles"])


@router.get("/roles", response=Page[RoleOut], summary="Roles that can be granted here, newest first")
@requires("svc_rbac.view_role")
def list_roles(request: Any, page: Query[PageQuery]) -> Any:
    return paginated(Role.objects.usable_in(request.principal.tenant).prefetch_related("permissions"), page)


@router.post("/roles", response={201: RoleOut}, summary="Make a role of permissions that you hold")
@requires("svc_rbac.add_role", delegated=False)
def create_role(request: Any, body: NewRole) -> Any:
    principal = request.principal
    role = define_role(
        body.name,
        body.permissions,
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


@router.delete("/roles/{uuid:role_id}", response={204: None}, summary="Delete a role that nobody has")
@requires("svc_rbac.delete_role", delegated=False)
def delete_role(request: Any, role_id: UUID) -> Any:
    own = Role.objects.filter(tenant=request.principal.tenant, pk=role_id).first()
    remove_role(_found(own, "Role", role_id), actor=request.principal)
    return Status(204, None)


@router.get("/assignments", response=Page[AssignmentOut], summary="Who has which role, newest first")
@requires("svc_rbac.view_assignment")
def list_assignments(request: Any, page: Query[PageQuery], of: Query[Filter]) -> Any:
    grants = Assignment.objects.filter(tenant=request.principal.tenant).select_related("role")
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
    given = grant(
        user, role, tenant=tenant, expires_at=body.expires_at, reason=body.reason, actor=request.principal
    )
    return Status(201, given)


@router.delete("/assignments/{uuid:assignment_id}", response={204: None}, summary="Take a role from a user")
@requires("svc_rbac.delete_assignment", delegated=False)
def delete_assignment(request: Any, assignment_id: UUID) -> Any:
    tenant = request.principal.tenant
    given = _found(
        Assignment.objects.filter(tenant=tenant, pk=assignment_id).select_related("user", "role").first(),
        "Assignment",
        assignment_id,
    )
    withdraw(given.user, given.role, tenant=tenant, actor=request.principal)
    return Status(204, None)


@router.get("/check", response=Answer, summary="Whether a user, or I with this credential, may do something")
def check(request: Any, asked: Query[Question]) -> Any:
    subject = _subject(request.principal, asked)
    return {
        "permission": asked.permission,
        "user": str(subject.user.pk),
        "allowed": subject.can(asked.permission),
    }


@router.get("/explain", response=ExplanationOut, summary="Why, or what is missing")
def explain_permission(request: Any, asked: Query[Question]) -> Any:
    subject = _subject(request.principal, asked)
    found = explain(
        subject.user,
        asked.permission,
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
