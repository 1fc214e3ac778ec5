"""What goes in and out of the API of roles."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from pydantic import AfterValidator, Field

from ..api import Moment, Schema
from ..principals import PATTERN, PATTERN_LENGTH
from .conf import RoleName

Pattern = Annotated[str, Field(max_length=PATTERN_LENGTH, pattern=f"^({PATTERN.pattern})$")]


def _user_id(text: str) -> str:
    try:
        get_user_model()._meta.pk.clean(text, None)
    except ValidationError:
        raise ValueError("is not the id of a user") from None
    return text


UserId = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_user_id)]


class NewRole(Schema):
    name: RoleName
    description: Annotated[str, Field(max_length=500)] = ""
    permissions: Annotated[list[Pattern], Field(max_length=1000)]


class RoleOut(Schema):
    id: UUID
    name: str
    description: str
    tenant: str
    source: str
    permissions: list[str]
    created_at: datetime

    @staticmethod
    def resolve_permissions(role: Any) -> list[str]:
        return sorted(permission.pattern for permission in role.permissions.all())


class NewAssignment(Schema):
    user: UserId
    role: UUID
    expires_at: Moment | None = None
    reason: Annotated[str, Field(max_length=500)] = ""


class RoleRef(Schema):
    id: UUID
    name: str


class AssignmentOut(Schema):
    id: UUID
    user: str
    role: RoleRef
    tenant: str
    expires_at: datetime | None
    granted_by: str | None
    reason: str
    created_at: datetime

    @staticmethod
    def resolve_user(assignment: Any) -> str:
        return str(assignment.user_id)

    @staticmethod
    def resolve_granted_by(assignment: Any) -> str | None:
        return None if assignment.granted_by_id is None else str(assignment.granted_by_id)


class Question(Schema):
    """Who may do what; without a user it is about the caller."""

    permission: Pattern
    user: UserId | None = None


class Filter(Schema):
    user: UserId | None = None


class Answer(Schema):
    permission: str
    user: str
    allowed: bool


class LinkOut(Schema):
    kind: str
    name: str


class ExplanationOut(Answer):
    path: list[LinkOut]
    missing: str
