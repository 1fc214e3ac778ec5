from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Group, Permission, User
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from svc_infra_django.principals import Principal
from svc_infra_django.rbac import (
    check,
    define_role,
    explain,
    grant,
    list_objects,
    rights_of,
    withdraw,
)
from svc_infra_django.rbac.backends import RoleBackend
from svc_infra_django.rbac.errors import BeyondOwnRights, NotGranted
from svc_infra_django.rbac.models import Assignment, Role, RolePermission
from svc_infra_django.rbac.services.checking import find_object
from svc_infra_django.rbac.services.deciding import Scope

NOW = timezone.now()
DAY = timedelta(days=1)

# Rows with a tenant are roles here, rows without one are Django's groups.


def test_check_asks_as_the_principal_does(user: Any, make_user: Any, make_role: Any) -> None:
    assert not check(user, "orders.add_order")
    grant(user, make_role("clerk", "orders.add_order"), tenant="acme")

    assert check(user, "orders.add_order", tenant="acme")
    assert check(Principal(user, "jwt", tenant="acme"), "orders.add_order")
    assert not check(user, "orders.add_order", tenant="other")
    assert not check(Principal(user, "jwt", tenant="acme", scopes=frozenset()), "orders.add_order")
    assert check(make_user("root", is_superuser=True), "orders.add_order")
    assert not check(AnonymousUser(), "orders.add_order")


def test_a_grant_on_one_object_counts_for_it_alone(user: Any, make_role: Any, fresh: Any) -> None:
    one, other = Group.objects.create(name="one"), Group.objects.create(name="other")
    grant(user, make_role("keeper", "auth.change_group"), obj=one)

    for who in (user, fresh(user)):
        assert check(who, "auth.change_group", one)
        assert who.has_perm("auth.change_group", one)
        assert not check(who, "auth.change_group", other)
        assert not check(who, "auth.change_group")
    withdraw(user, "keeper", obj=one)
    assert not check(user, "auth.change_group", one)
    with pytest.raises(NotGranted):
        withdraw(user, "keeper", obj=one)


def test_a_grant_on_an_object_is_in_the_tenant_of_the_object(user: Any, make_role: Any) -> None:
    theirs = make_role("a row", tenant="acme")
    given = grant(user, make_role("keeper", "svc_rbac.view_role"), obj=theirs)

    assert given.tenant == "acme"
    assert check(Principal(user, "jwt", tenant="acme"), "svc_rbac.view_role", theirs)
    assert not check(Principal(user, "jwt", tenant="other"), "svc_rbac.view_role", theirs)
    with pytest.raises(ValueError, match="of the tenant"):
        grant(user, "keeper", obj=theirs, tenant="other")
    for nothing in (object(), Group(name="unsaved"), Principal(user, "jwt")):
        with pytest.raises(ValueError, match="cannot name"):
            grant(user, "keeper", obj=nothing)


def test_a_credential_of_one_tenant_reaches_no_object_of_another(make_user: Any, make_role: Any) -> None:
    root = make_user("root", is_superuser=True)
    theirs = make_role("a row", tenant="victim-corp")

    assert check(root, "svc_rbac.view_role", theirs)
    assert not check(Principal(root, "jwt", tenant="acme"), "svc_rbac.view_role", theirs)
    assert check(
        Principal(root, "jwt", tenant="acme"), "svc_rbac.view_role", make_role("ours", tenant="acme")
    )
    assert check(Principal(root, "jwt", tenant="acme"), "svc_rbac.view_role", make_role("everybody's"))


def test_what_a_role_denies_is_denied_whatever_gives_it(user: Any, make_role: Any, fresh: Any) -> None:
    user.user_permissions.add(Permission.objects.get(codename="view_role"))
    grant(user, make_role("all", "*"))
    grant(user, make_role("not this", denies=["svc_rbac.view_role", "orders.*"]))
    user = fresh(user)

    for permission in ("svc_rbac.view_role", "orders.add_order", "orders.*"):
        assert not user.has_perm(permission), permission
        assert not check(user, permission), permission
    assert user.has_perm("svc_rbac.add_role")
    assert not user.has_perm("*")
    assert "svc_rbac.view_role" not in RoleBackend().get_all_permissions(user)
    assert "svc_rbac.add_role" in RoleBackend().get_all_permissions(user)


def test_a_denial_in_a_tenant_or_for_an_object_beats_a_grant_everywhere(user: Any, make_role: Any) -> None:
    ours, theirs = make_role("ours", tenant="acme"), make_role("theirs", tenant="other")
    grant(user, make_role("all", "*"))
    grant(user, make_role("suspended", denies=["svc_rbac.*"]), tenant="acme")
    grant(user, make_role("barred", denies=["svc_rbac.view_role"]), obj=theirs)

    assert user.has_perm("svc_rbac.view_role")
    assert not check(user, "svc_rbac.view_role", tenant="acme")
    assert not check(user, "svc_rbac.view_role", ours)
    assert not check(user, "svc_rbac.view_role", theirs)
    assert check(user, "svc_rbac.change_role", theirs)
    assert check(user, "svc_rbac.view_role", tenant="other")


def test_nothing_is_denied_to_superusers(make_user: Any, make_role: Any) -> None:
    root = make_user("root", is_superuser=True)
    grant(root, make_role("none", denies=["*"]), tenant="acme")

    assert check(root, "a.b", tenant="acme")
    assert explain(root, "a.b", tenant="acme").allowed


def test_members_of_a_group_have_what_it_was_granted(user: Any, make_role: Any, fresh: Any) -> None:
    group = Group.objects.create(name="night shift")
    given = grant(group, make_role("clerk", "orders.add_order"), tenant="acme", reason="nights")
    assert (given.user, given.group) == (None, group)
    assert not check(user, "orders.add_order", tenant="acme")

    user.groups.add(group)

    assert check(fresh(user), "orders.add_order", tenant="acme")
    assert str(explain(user, "orders.add_order", tenant="acme")) == (
        "allowed: user ada → group night shift → role clerk → granted in the tenant 'acme' "
        "→ pattern orders.add_order → permission orders.add_order"
    )
    lazy = SimpleLazyObject(lambda: fresh(user))
    assert rights_of(lazy).allow("orders.add_order", Scope("acme"))
    withdraw(group, "clerk", tenant="acme")
    assert not check(fresh(user), "orders.add_order", tenant="acme")


def test_who_gives_with_an_exception_what_they_have_with_it(user: Any, stranger: Any) -> None:
    shop = define_role("shop", ["orders.*"], denies=["orders.delete_order"])
    grant(stranger, shop)

    grant(user, shop, actor=stranger)
    for wider in (define_role("all", ["orders.*"]), define_role("half", ["orders.*"], denies=["orders.x"])):
        with pytest.raises(BeyondOwnRights):
            grant(user, wider, actor=stranger)
    with pytest.raises(BeyondOwnRights):  # it would give orders.delete_order back, if something else gives it
        withdraw(user, shop, actor=stranger)


def test_a_denial_in_one_tenant_keeps_from_granting_everywhere(user: Any, stranger: Any) -> None:
    clerk = define_role("clerk", ["orders.add_order"])
    grant(stranger, clerk)
    grant(stranger, define_role("barred", denies=["orders.*"]), tenant="acme")

    for tenant in ("", "acme"):
        with pytest.raises(BeyondOwnRights):
            grant(user, clerk, tenant=tenant, actor=stranger)
    grant(user, clerk, tenant="other", actor=stranger)


def test_a_right_to_one_object_is_given_for_that_object_only(
    user: Any, stranger: Any, make_role: Any
) -> None:
    one, other = Group.objects.create(name="one"), Group.objects.create(name="other")
    keeper = make_role("keeper", "auth.change_group")
    grant(stranger, keeper, obj=one)

    for elsewhere in ({"obj": other}, {}, {"tenant": "acme"}):
        with pytest.raises(BeyondOwnRights):
            grant(user, keeper, **elsewhere, actor=stranger)
    grant(user, keeper, obj=one, actor=stranger)


def test_lists_come_in_one_query_however_many_grants_there_are(user: Any, make_role: Any, fresh: Any) -> None:
    rows = [Group.objects.create(name=f"group {number}") for number in range(60)]
    keeper = make_role("keeper", "auth.change_group")
    for many in (1, 50):
        for row in rows[:many]:
            grant(user, keeper, obj=row)
        asker = fresh(user)
        assert not asker.has_perm("auth.change_group")  # reads the rights
        with CaptureQueriesContext(connection) as queries:
            assert list_objects(asker, "auth.change_group", Group.objects.all()).count() == many
        assert len(queries) == 1


def test_what_is_denied_in_the_tenant_is_listed_for_no_row(user: Any, make_role: Any) -> None:
    Group.objects.create(name="of no tenant")
    grant(user, make_role("all", "*"))
    grant(user, make_role("suspended", denies=["auth.*"]), tenant="acme")

    for tenant, permission, listed in (
        ("acme", "auth.view_group", 0),
        ("acme", "svc_rbac.x", 1),
        ("other", "auth.view_group", 1),
    ):
        rows = list_objects(user, permission, Group.objects.all(), tenant=tenant)
        assert len(rows) == listed, (tenant, permission)
        assert check(user, permission, Group.objects.get(), tenant=tenant) is bool(listed)


def test_where_tenant_is_no_text_roles_say_nothing_of_single_rows(
    user: Any, make_role: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Group.objects.create(name="sales")
    grant(user, make_role("keeper", "auth.change_group"), obj=row)
    monkeypatch.setattr(Group, "tenant", 7, raising=False)

    assert not check(user, "auth.change_group", row)
    assert not list_objects(user, "auth.change_group", Group.objects.all())


def test_without_the_backend_what_roles_give_is_not_handed_on(
    user: Any, stranger: Any, make_role: Any, settings: Any
) -> None:
    clerk = make_role("clerk", "orders.add_order")
    grant(stranger, clerk)
    settings.AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend"]

    assert not check(stranger, "orders.add_order")
    with pytest.raises(BeyondOwnRights):
        grant(user, clerk, actor=stranger)
    assert not explain(stranger, "orders.add_order").allowed


class Forbids:
    """As a project's own backend that ends Django's search."""

    def has_perm(self, *_: Any, **__: Any) -> bool:
        raise PermissionDenied


def test_what_another_backend_forbids_is_neither_had_nor_handed_on(
    user: Any, stranger: Any, make_role: Any, settings: Any
) -> None:
    stranger.user_permissions.add(Permission.objects.get(codename="view_role"))
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.Forbids", *settings.AUTHENTICATION_BACKENDS]

    assert not check(stranger, "svc_rbac.view_role")
    with pytest.raises(BeyondOwnRights):
        grant(user, make_role("viewer", "svc_rbac.view_role"), actor=stranger)
    assert not explain(stranger, "svc_rbac.view_role").allowed


def test_a_model_without_a_table_has_no_rows_to_name(user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    key = str(user.pk)
    assert find_object("auth.user", key) == user
    for wrong in ("auth.nobody", "auth", "a.b.c", ""):
        assert find_object(wrong, key) is None
    for wrong in ("", "x", "9" * 60, "\ud800"):
        assert find_object("auth.user", wrong) is None

    monkeypatch.setattr(User._meta, "managed", False)
    assert find_object("auth.user", key) is None
    monkeypatch.undo()
    monkeypatch.setattr(User._meta, "swapped", "accounts.Person")
    assert find_object("auth.user", key) is None


def test_a_grant_on_what_is_no_key_of_the_model_lists_nothing(user: Any, make_role: Any) -> None:
    keeper = make_role("keeper", "auth.change_group")
    Assignment.objects.create(user=user, role=keeper, object_type="auth.group", object_id="no number")

    assert not list_objects(user, "auth.change_group", Group.objects.all()).exists()


def test_rule_62_list_objects_is_filter_by_check(make_user: Any) -> None:
    dice = random.Random(62)  # noqa: S311 - the same models in every run
    names = ["svc_rbac.view_role", "auth.view_group"]
    wanted = [*names, "svc_rbac.*", "auth.*", "*"]
    tenants = ["", "t1", "t2"]
    roles = [Role.objects.create(name=f"r{n}", tenant=dice.choice(tenants)) for n in range(8)]
    groups = [Group.objects.create(name=f"g{n}") for n in range(4)]
    for number, role in enumerate(roles):
        for pattern in dice.sample(wanted, dice.choice([1, 1, 2])):
            RolePermission.objects.create(role=role, pattern=pattern, denies=dice.random() < 0.25)
        below = [other for other in roles[:number] if other.tenant in ("", role.tenant)]
        role.includes.set(dice.sample(below, min(len(below), dice.choice([0, 0, 1]))))
    seen: set[bool] = set()
    for number in range(10):
        user = make_user(f"u{number}", is_superuser=dice.random() > 0.95)
        if dice.random() < 0.2:
            user.user_permissions.add(Permission.objects.get(codename="view_role"))
        for role in dice.sample(roles, dice.choice([1, 2, 3])):
            row = dice.choice([None, None, *roles, *groups])
            named = {} if row is None else {"object_type": row._meta.label_lower, "object_id": str(row.pk)}
            Assignment.objects.create(user=user, role=role, tenant=dice.choice(tenants), **named)
        user = type(user).objects.get(pk=user.pk)
        for tenant in tenants:
            for scopes in (None, frozenset({"auth.*"})):
                who = Principal(user, "jwt", tenant=tenant, scopes=scopes)
                for permission, rows in ((names[0], Role.objects.all()), (names[1], Group.objects.all())):
                    listed = set(list_objects(who, permission, rows))
                    checked = {row for row in rows if check(who, permission, row)}
                    assert listed == checked, (number, tenant, scopes, permission)
                    for row in dice.sample(list(rows), 1):
                        told = explain(user, permission, obj=row, tenant=tenant, scopes=scopes)
                        assert told.allowed == (row in checked), (number, tenant, scopes, row, str(told))
                    seen |= {row in checked for row in rows}
    assert seen == {True, False}
