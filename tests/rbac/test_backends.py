from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import AnonymousUser, Permission
from django.utils import timezone
from django.utils.functional import SimpleLazyObject

from svc_infra_django.principals import Principal
from svc_infra_django.rbac import agrant, awithdraw, grant, rights_of, withdraw
from svc_infra_django.rbac.backends import RoleBackend
from svc_infra_django.rbac.models import Assignment


def test_a_role_answers_has_perm(user: Any, make_role: Any) -> None:
    assert not user.has_perm("orders.add_order")

    grant(user, make_role("clerk", "orders.add_order"))

    assert user.has_perm("orders.add_order")
    assert not user.has_perm("orders.delete_order")


def test_withdrawing_is_seen_by_the_same_user_object_and_by_the_next(
    user: Any, make_role: Any, fresh: Any
) -> None:
    grant(user, make_role("clerk", "orders.add_order"))
    assert user.has_perm("orders.add_order")

    withdraw(user, "clerk")

    assert not user.has_perm("orders.add_order")
    assert not fresh(user).has_perm("orders.add_order")


@pytest.mark.parametrize("denied", [False, True])
def test_a_principal_that_was_told_yes_is_told_no_as_soon_as_its_user_is(
    user: Any, make_role: Any, fresh: Any, svc_settings: Any, denied: bool
) -> None:
    svc_settings(rbac={"recheck_seconds": 60})
    barred = make_role("barred", denies=["orders.add_order"])
    Assignment.objects.create(user=user, role=make_role("clerk", "orders.add_order"))
    asked = Principal(user, "jwt")
    assert asked.can("orders.add_order")
    assert asked.can("orders.add_order")
    assert not replace(asked, scopes=frozenset({"orders.view_order"})).can("orders.add_order")

    if denied:
        grant(user, barred)
    else:
        withdraw(user, "clerk")

    assert not asked.can("orders.add_order")
    assert not Principal(fresh(user), "jwt").can("orders.add_order")


def test_a_principal_that_was_told_yes_asks_again_when_that_is_too_old(
    user: Any, make_role: Any, svc_settings: Any
) -> None:
    svc_settings(rbac={"recheck_seconds": 0})
    Assignment.objects.create(user=user, role=make_role("clerk", "orders.add_order"))
    asked = Principal(user, "jwt")
    assert asked.can("orders.add_order")

    Assignment.objects.all().delete()
    user.is_active = False

    assert not asked.can("orders.add_order")


def test_the_lazy_user_of_a_request_is_the_same_user(user: Any, make_role: Any, fresh: Any) -> None:
    loaded = fresh(user)
    lazy = SimpleLazyObject(lambda: loaded)
    assert not lazy.has_perm("orders.add_order")

    grant(lazy, make_role("clerk", "orders.add_order"))

    assert lazy.has_perm("orders.add_order")


def test_wildcards_cover_what_is_below_them(user: Any, make_role: Any) -> None:
    grant(user, make_role("boss", "orders.*"))

    assert user.has_perm("orders.add_order")
    assert not user.has_perm("orders2.add_order")
    assert not user.has_perm("svc_rbac.view_role")


def test_nobody_disabled_or_anonymous_has_any(user: Any, make_role: Any, fresh: Any) -> None:
    grant(user, make_role("boss", "*"))
    user.is_active = False
    user.save()

    assert not user.has_perm("orders.add_order")
    assert not fresh(user).has_perm("orders.add_order")
    assert not RoleBackend().has_perm(AnonymousUser(), "orders.add_order")
    assert RoleBackend().get_all_permissions(fresh(user)) == set()


def test_a_grant_ends_by_itself_even_for_a_user_object_that_has_asked_before(
    user: Any, make_role: Any
) -> None:
    grant(user, make_role("clerk", "orders.add_order"), expires_at=timezone.now() + timedelta(hours=1))
    later = timezone.now() + timedelta(hours=2)
    assert user.has_perm("orders.add_order")
    assert rights_of(user).allow("orders.add_order")

    assert not rights_of(user, now=later).allow("orders.add_order")


def test_the_first_question_costs_one_query_and_the_rest_none(
    user: Any, make_role: Any, fresh: Any, django_assert_num_queries: Any
) -> None:
    for number in range(30):
        grant(user, make_role(f"role {number}", f"app{number}.view_thing", "shared.add_thing"))
    user = fresh(user)

    with django_assert_num_queries(1):
        assert RoleBackend().has_perm(user, "shared.add_thing")
    with django_assert_num_queries(0):
        assert RoleBackend().has_perm(user, "app7.view_thing")
        assert not RoleBackend().has_perm(user, "app7.add_thing")
        assert RoleBackend().has_module_perms(user, "app7")


def test_it_works_beside_djangos_own_permissions(user: Any, make_role: Any, fresh: Any) -> None:
    user.user_permissions.add(Permission.objects.get(codename="view_role"))
    grant(user, make_role("clerk", "svc_rbac.add_role", "reports.read"))
    user = fresh(user)

    assert user.has_perms(["svc_rbac.view_role", "svc_rbac.add_role"])
    assert {"svc_rbac.view_role", "svc_rbac.add_role", "reports.read"} <= user.get_all_permissions()


def test_all_permissions_spell_wildcards_out(user: Any, make_role: Any) -> None:
    grant(user, make_role("boss", "svc_rbac.*"))

    found = user.get_all_permissions()

    assert "svc_rbac.add_role" in found
    assert "svc_rbac.*" not in found
    assert not any(name.startswith("auth.") for name in found)


def test_a_tenants_grant_counts_in_that_tenant_only(user: Any, make_role: Any, fresh: Any) -> None:
    grant(user, make_role("clerk", "orders.add_order"), tenant="acme")
    user = fresh(user)

    assert Principal(user, "jwt", tenant="acme").can("orders.add_order")
    assert not Principal(user, "jwt", tenant="victim-corp").can("orders.add_order")
    assert not Principal(user, "jwt").can("orders.add_order")
    assert not user.has_perm("orders.add_order")


def test_a_grant_everywhere_counts_in_every_tenant(user: Any, make_role: Any) -> None:
    grant(user, make_role("clerk", "orders.add_order"))

    assert Principal(user, "jwt", tenant="acme").can("orders.add_order")


def test_a_grant_of_another_tenants_role_that_somehow_exists_gives_nothing(user: Any, make_role: Any) -> None:
    Assignment.objects.create(user=user, role=make_role("clerk", "orders.add_order", tenant="a"), tenant="b")

    assert not Principal(user, "jwt", tenant="b").can("orders.add_order")
    assert not Principal(user, "jwt", tenant="a").can("orders.add_order")


def test_nor_does_a_role_of_another_tenant_that_is_somehow_included(user: Any, make_role: Any) -> None:
    inner = make_role("inner", "orders.add_order", tenant="a")
    grant(user, make_role("outer", "orders.view_order", includes=[inner]), tenant="b")

    assert Principal(user, "jwt", tenant="b").can("orders.view_order")
    assert not Principal(user, "jwt", tenant="b").can("orders.add_order")


def test_scopes_narrow_what_roles_give(user: Any, make_role: Any) -> None:
    grant(user, make_role("boss", "orders.*"))
    principal = Principal(user, "api_key", scopes=frozenset({"orders.view_order", "svc_rbac.*"}))

    assert principal.can("orders.view_order")
    assert not principal.can("orders.add_order")
    assert not principal.can("svc_rbac.view_role")


def test_what_is_allowed_everywhere_is_allowed_for_every_row_and_for_nothing_else(
    user: Any, stranger: Any, make_role: Any
) -> None:
    grant(user, make_role("boss", "orders.*"))

    assert user.has_perm("orders.add_order", stranger)
    assert not user.has_perm("orders.add_order", object())


def test_the_async_questions_are_answered_too(user: Any, make_role: Any, fresh: Any) -> None:
    grant(user, make_role("clerk", "orders.add_order"))

    async def ask(user: Any) -> tuple[bool, bool, set[str], bool]:
        return (
            await user.ahas_perm("orders.add_order"),
            await user.ahas_perm("orders.delete_order"),
            await user.aget_all_permissions(),
            await user.ahas_module_perms("orders"),
        )

    assert async_to_sync(ask)(fresh(user)) == (True, False, {"orders.add_order"}, True)


def test_a_direct_and_a_role_permission_open_the_admin_module(user: Any, make_role: Any) -> None:
    assert not user.has_module_perms("svc_rbac")

    grant(user, make_role("boss", "svc_rbac.view_role"))

    assert user.has_module_perms("svc_rbac")


def test_granting_has_async_ends(user: Any, make_role: Any) -> None:
    role = make_role("clerk", "orders.add_order")

    async_to_sync(agrant)(user, role, reason="new")
    assert user.has_perm("orders.add_order")
    async_to_sync(awithdraw)(user, role)
    assert not user.has_perm("orders.add_order")
