"""What goes in and out of the API of roles."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self
from uuid import UUID

from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from pydantic import AfterValidator, Field, model_validator

from ..api import Moment, Schema
from ..principals import PATTERN, PATTERN_LENGTH
from .conf import RoleName
from .models import OBJECT_ID_LENGTH, OBJECT_TYPE_LENGTH

Pattern = Annotated[str, Field(max_length=PATTERN_LENGTH, pattern=f"^({PATTERN.pattern})$")]


def _user_id(text: str) -> str:
    try:
        get_user_model()._meta.pk.clean(text, None)
    except ValidationError:
        raise ValueError("is not the id of a user") from None
    return text


UserId = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_user_id)]


Patterns = Annotated[list[Pattern], Field(max_length=1000)]
ObjectType = Annotated[str, Field(max_length=OBJECT_TYPE_LENGTH, pattern=r"^[a-z_][a-z0-9_]*\.[a-z0-9_]+$")]
ObjectId = Annotated[str, Field(min_length=1, max_length=OBJECT_ID_LENGTH)]


class RoleRef(Schema):
    id: UUID
    name: str


class NewRole(Schema):
    name: RoleName
    description: Annotated[str, Field(max_length=500)] = ""
    permissions: Patterns
    denies: Patterns = []
    includes: Annotated[list[UUID], Field(max_length=100)] = []


class ChangedRole(Schema):
    """What is left out stays as it is."""

    name: RoleName | None = None
    description: Annotated[str, Field(max_length=500)] | None = None
    permissions: Patterns | None = None
    denies: Patterns | None = None
    includes: Annotated[list[UUID], Field(max_length=100)] | None = None


class RoleOut(Schema):
    id: UUID
    name: str
    description: str
    tenant: str
    source: str
    permissions: list[str]
    denies: list[str]
    includes: list[RoleRef]
    created_at: datetime

    @staticmethod
    def resolve_permissions(role: Any) -> list[str]:
        return sorted(each.pattern for each in role.permissions.all() if not each.denies)

    @staticmethod
    def resolve_denies(role: Any) -> list[str]:
        return sorted(each.pattern for each in role.permissions.all() if each.denies)

    @staticmethod
    def resolve_includes(role: Any) -> list[Any]:
        return list(role.includes.all())


class ObjectRef(Schema):
    """A row of an installed model: `{"type": "orders.order", "id": "7"}`."""

    type: ObjectType
    id: ObjectId


class NewAssignment(Schema):
    user: UserId
    role: UUID
    object: ObjectRef | None = None
    expires_at: Moment | None = None
    reason: Annotated[str, Field(max_length=500)] = ""


class AssignmentOut(Schema):
    id: UUID
    user: str | None
    group: str | None
    role: RoleRef
    tenant: str
    object: ObjectRef | None
    expires_at: datetime | None
    granted_by: str | None
    reason: str
    created_at: datetime

    @staticmethod
    def resolve_user(assignment: Any) -> str | None:
        return None if assignment.user_id is None else str(assignment.user_id)

    @staticmethod
    def resolve_group(assignment: Any) -> str | None:
        return None if assignment.group is None else str(assignment.group.name)

    @staticmethod
    def resolve_object(assignment: Any) -> dict[str, str] | None:
        if not assignment.object_type:
            return None
        return {"type": assignment.object_type, "id": assignment.object_id}

    @staticmethod
    def resolve_granted_by(assignment: Any) -> str | None:
        return None if assignment.granted_by_id is None else str(assignment.granted_by_id)


class Question(Schema):
    """Who may do what, and to what; without a user it is about the caller."""

    permission: Pattern
    user: UserId | None = None
    object_type: ObjectType | None = None
    object_id: ObjectId | None = None

    @model_validator(mode="after")
    def _names_a_whole_object(self) -> Self:
        if (self.object_type is None) != (self.object_id is None):
            raise ValueError("object_type and object_id go together")
        return self


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


class ChangeOut(Schema):
    """One change of grants or roles."""

    id: UUID
    kind: str
    user: str | None
    group: str | None
    role: str
    role_id: UUID | None
    object: ObjectRef | None
    expires_at: datetime | None
    details: dict[str, Any]
    reason: str
    actor: str | None
    method: str
    request_id: str
    created_at: datetime

    @staticmethod
    def resolve_user(change: Any) -> str | None:
        return change.user_key or None

    @staticmethod
    def resolve_group(change: Any) -> str | None:
        return change.group or None

    @staticmethod
    def resolve_actor(change: Any) -> str | None:
        return change.actor_key or None

    @staticmethod
    def resolve_object(change: Any) -> dict[str, str] | None:
        return AssignmentOut.resolve_object(change)
