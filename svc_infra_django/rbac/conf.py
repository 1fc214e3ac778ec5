"""Settings of the rbac app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)

from ..config.sections import Section, section_settings
from ..principals import is_pattern

NAME_LENGTH = 100


def _checked(pattern: str) -> str:
    if not is_pattern(pattern):
        raise ValueError(
            f"{pattern!r} is neither a permission (orders.add_order) nor a wildcard (orders.*, *)"
        )
    return pattern


def _spelt_out(declared: Any) -> Any:
    return {"permissions": declared} if isinstance(declared, (list, tuple)) else declared


RoleName = Annotated[
    str, StringConstraints(min_length=1, max_length=NAME_LENGTH, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Pattern = Annotated[str, AfterValidator(_checked)]


class DeclaredRole(BaseModel):
    """What the settings say of one role."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    permissions: tuple[Pattern, ...] = ()
    denies: tuple[Pattern, ...] = ()
    includes: tuple[RoleName, ...] = ()
    description: Annotated[str, StringConstraints(max_length=500)] = ""


class RbacSettings(Section):
    section: ClassVar[str] = "rbac"

    roles: dict[RoleName, Annotated[DeclaredRole, BeforeValidator(_spelt_out)]] = {}
    """Roles that the code declares, each a tuple of permissions or a dict with `permissions`, `denies`, `includes` and `description`; `manage.py sync_roles` makes them so."""  # noqa: E501 - one cell of the reference

    mirror_groups: bool = False
    """Whether `sync_roles` gives each role of the whole project a Django group of its name, whose members have it."""  # noqa: E501 - one cell of the reference

    recheck_seconds: Annotated[float, Field(ge=0, le=60)] = 1.0
    """How long a process may answer from memory before it asks whether grants or roles have changed; 0 asks every time."""  # noqa: E501 - one cell of the reference

    max_rights: Annotated[int, Field(ge=1)] = 10_000
    """Of how many users a process remembers the rights."""

    audit_days: Annotated[int, Field(ge=1)] = 400
    """How long the changes of roles and grants are kept."""

    @field_validator("roles")
    @classmethod
    def _can_be_followed(cls, roles: dict[str, DeclaredRole]) -> dict[str, DeclaredRole]:
        for name, role in roles.items():
            for unknown in set(role.includes) - roles.keys():
                raise ValueError(f"{name!r} includes {unknown!r}, which is not declared")
            if name in reached(name, {each: declared.includes for each, declared in roles.items()}):
                raise ValueError(f"{name!r} includes itself")
        return roles


def reached(start: Any, includes: Mapping[Any, Any]) -> set[Any]:
    """All that `start` includes, directly or through others; `start` itself only if it is in a circle."""
    found: set[Any] = set()
    waiting = list(includes.get(start, ()))
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting.extend(includes.get(each, ()))
    return found


settings = section_settings(RbacSettings)
