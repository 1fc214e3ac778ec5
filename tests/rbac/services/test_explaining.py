from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.utils import timezone

from svc_infra_django.principals import Principal, covered
from svc_infra_django.rbac import explain, grant
from svc_infra_django.rbac.models import Assignment, Role, RolePermission

NOW = timezone.now()
DAY = timedelta(days=1)


def test_the_path_through_a_role(user: Any, make_role: Any) -> None:
    grant(user, make_role("clerk", "orders.*"))

    assert str(explain(user, "orders.add_order")) == (
        "allowed: user ada → role clerk → pattern orders.* → permission orders.add_order"
    )


def test_the_path_through_djangos_own(user: Any, make_user: Any) -> None:
    permission = Permission.objects.get(codename="view_role")
    direct, through_group, root = (
        make_user("direct"),
        make_user("grouped"),
        make_user("root", is_superuser=True),
    )
    direct.user_permissions.add(permission)
    group = Group.objects.create(name="readers")
    group.permissions.add(permission)
    through_group.groups.add(group)

    assert [str(explain(who, "svc_rbac.view_role")) for who in (direct, through_group, root)] == [
        "allowed: user direct → permission svc_rbac.view_role",
        "allowed: user grouped → group readers → permission svc_rbac.view_role",
        "allowed: user root → superuser yes → permission svc_rbac.view_role",
    ]


def test_the_missing_link(user: Any, make_user: Any, make_role: Any) -> None:
    role = make_role("clerk", "orders.add_order")
    gone = make_user("gone", is_active=False, is_superuser=True)
    assert explain(gone, "a.b").missing == "The user is disabled."
    assert explain(user, "a.b").missing.startswith("No role of theirs has it")
    assert explain(user, "orders.add_order").missing.endswith("Roles that have it: 'clerk'.")

    Assignment.objects.create(user=user, role=role, tenant="acme")
    assert (
        explain(user, "orders.add_order").missing == "The role 'clerk' is granted in the tenant 'acme' only."
    )
    Assignment.objects.create(user=user, role=role, expires_at=NOW - DAY)
    assert "ended at" in explain(user, "orders.add_order").missing
    assert explain(user, "orders.add_order", tenant="acme").allowed


def test_the_scopes_of_the_credential_come_first(make_user: Any) -> None:
    root = make_user("root", is_superuser=True)

    assert explain(root, "a.b", scopes=["a.c"]).missing == "No scope of this credential covers it."
    assert explain(root, "a.b", scopes=["a.*"]).allowed


@pytest.mark.parametrize("seed", range(2))
def test_explain_agrees_with_check_on_random_models(make_user: Any, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - the same models in every run
    names = ["a.x", "a.y", "b.x", "a.b.x"]
    wanted = [*names, "a.*", "b.*", "*", "a.b.*"]
    tenants = ["", "t1", "t2"]
    roles = [Role.objects.create(name=f"r{n}", tenant=dice.choice(["", "", "t1"])) for n in range(8)]
    for role in roles:
        for pattern in dice.sample(wanted, dice.choice([0, 1, 1, 2])):
            RolePermission.objects.create(role=role, pattern=pattern)
    allowed = 0
    for number in range(12):
        user = make_user(f"u{number}", is_active=dice.random() > 0.1, is_superuser=dice.random() > 0.95)
        for role in dice.sample(roles, dice.choice([0, 1, 2, 3])):
            Assignment.objects.create(
                user=user,
                role=role,
                tenant=dice.choice(tenants),
                expires_at=dice.choice([None, NOW - DAY, NOW + DAY]),
            )
        for permission in names:
            for tenant in tenants:
                for scopes in (None, frozenset({"a.*"})):
                    checked = Principal(user, "jwt", tenant=tenant, scopes=scopes).can(permission)
                    explained = explain(user, permission, tenant=tenant, scopes=scopes)
                    assert explained.allowed == checked, (user, permission, tenant, str(explained))
                    assert bool(explained.missing) != checked
                    assert all(
                        covered(permission, [link.name]) for link in explained.path if link.kind == "pattern"
                    )
                    allowed += checked
    assert 0 < allowed < 12 * 4 * 3 * 2
