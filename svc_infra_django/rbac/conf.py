"""Settings of the rbac app."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AfterValidator, StringConstraints

from ..config.sections import Section, section_settings
from ..principals import is_pattern

NAME_LENGTH = 100


def _checked(pattern: str) -> str:
    if not is_pattern(pattern):
        raise ValueError(
            f"{pattern!r} is neither a permission (orders.add_order) nor a wildcard (orders.*, *)"
        )
    return pattern


RoleName = Annotated[
    str, StringConstraints(min_length=1, max_length=NAME_LENGTH, pattern=r"^[^\x00-\x1f\x7f]+$")
]
Pattern = Annotated[str, AfterValidator(_checked)]


class RbacSettings(Section):
    section: ClassVar[str] = "rbac"

    roles: dict[RoleName, tuple[Pattern, ...]] = {}
    """Roles that the code declares, each with its permissions; `manage.py sync_roles` makes them so."""


settings = section_settings(RbacSettings)
