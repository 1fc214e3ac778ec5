from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from svc_infra_django.rbac.models import Role, RolePermission


@pytest.fixture
def make_role(db: None) -> Callable[..., Role]:
    """Make a role: `make_role("clerk", "orders.add_order", denies=["orders.x"], tenant="acme")`."""

    def make(
        name: str = "clerk", *patterns: str, denies: Any = (), includes: Any = (), **fields: Any
    ) -> Role:
        role = Role.objects.create(name=name, **fields)
        for pattern in (*patterns, *denies):
            RolePermission.objects.create(role=role, pattern=pattern, denies=pattern in denies)
        role.includes.set(includes)
        return role

    return make


@pytest.fixture
def fresh() -> Callable[[Any], Any]:
    """The same user as the next request would load them."""

    def load(user: Any) -> Any:
        return type(user)._default_manager.get(pk=user.pk)

    return load
