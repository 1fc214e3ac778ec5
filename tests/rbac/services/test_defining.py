from __future__ import annotations

import threading
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.db.models import ProtectedError

from svc_infra_django.errors import ValidationError
from svc_infra_django.rbac import change_role, define_role, grant, sync_declared_roles, withdraw
from svc_infra_django.rbac.errors import (
    BeyondOwnRights,
    RoleCycle,
    RoleDeclared,
    RoleExists,
    RoleIncluded,
    RoleInUse,
    RoleOfAnotherTenant,
)
from svc_infra_django.rbac.models import Assignment, Role, RoleChange
from svc_infra_django.rbac.services.defining import remove_role


def patterns(name: str) -> list[str]:
    return sorted(map(str, Role.objects.get(name=name).permissions.all()))


def test_defining_and_removing_roles(user: Any) -> None:
    role = define_role("clerk", ["a.b", "a.b", "c.*"], denies=["c.d"])
    assert patterns("clerk") == ["a.b", "c.*", "not c.d"]
    with pytest.raises(RoleExists):
        define_role("clerk", [])
    with pytest.raises(ValidationError) as refused:
        define_role("other", ["a.b", "nonsense"], denies=["x", "a.b"])
    assert [problem.pointer for problem in refused.value.errors] == [
        "/body/permissions/1",
        "/body/denies/0",
        "/body/denies/1",
    ]
    grant(user, role)
    with pytest.raises(RoleInUse):
        remove_role(role)
    with pytest.raises(ProtectedError):
        role.delete()
    withdraw(user, role)
    remove_role(role)
    assert not Role.objects.exists()


def test_a_role_gives_what_the_roles_give_that_it_includes(user: Any, fresh: Any) -> None:
    clerk = define_role("clerk", ["orders.view_order"])
    boss = define_role("boss", ["orders.add_order"], includes=[clerk])
    owner = define_role("owner", includes=[boss], denies=["orders.delete_order"])
    grant(user, owner)

    assert user.has_perms(["orders.view_order", "orders.add_order"])
    change_role(clerk, patterns=["orders.print_order"])
    assert [fresh(user).has_perm(f"orders.{name}_order") for name in ("view", "print")] == [False, True]
    change_role(boss, includes=[])
    assert not fresh(user).has_perm("orders.print_order")


def test_no_role_includes_itself(db: None) -> None:
    low = define_role("low")
    middle = define_role("middle", includes=[low])
    top = define_role("top", includes=[middle])

    for role, below in ((low, top), (low, low), (middle, top)):
        with pytest.raises(RoleCycle):
            change_role(role, includes=[below])
    change_role(top, includes=[middle, low])


@pytest.mark.django_db(transaction=True)
def test_two_who_close_a_circle_at_once_do_not_both_succeed() -> None:
    roles = [define_role(f"role {number}") for number in range(4)]
    barrier, refused = threading.Barrier(4), []

    def include(number: int) -> None:
        try:
            barrier.wait(60)
            change_role(roles[number], includes=[roles[(number + 1) % 4]])
        except RoleCycle:
            refused.append(number)
        finally:
            connection.close()

    threads = [threading.Thread(target=include, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(refused) == 1
    assert sum(role.includes.count() for role in roles) == 3


def test_a_role_of_a_tenant_includes_its_own_and_the_projects(db: None) -> None:
    everywhere, theirs = define_role("everywhere"), define_role("theirs", tenant="other")

    ours = define_role("ours", tenant="acme", includes=[everywhere])
    for role in (ours, define_role("mine")):
        with pytest.raises(RoleOfAnotherTenant):
            change_role(role, includes=[theirs])


def test_an_included_role_stays(db: None) -> None:
    low = define_role("low")
    top = define_role("top", includes=[low])

    with pytest.raises(RoleIncluded):
        remove_role(low)
    remove_role(top)
    remove_role(low)


def test_what_is_left_out_of_a_change_stays(db: None) -> None:
    low = define_role("low")
    role = define_role("clerk", ["a.b"], denies=["a.c"], includes=[low], description="old")

    change_role(role, description="new")

    role.refresh_from_db()
    assert (role.name, role.description, patterns("clerk")) == ("clerk", "new", ["a.b", "not a.c"])
    assert list(role.includes.all()) == [low]
    change_role(role, patterns=["a.c"], denies=["a.b"])
    assert patterns("clerk") == ["a.c", "not a.b"]
    define_role("taken")
    with pytest.raises(RoleExists):
        change_role(role, name="taken")


def test_who_changes_a_role_holds_what_it_gives_anew_and_what_it_denies_no_more(
    user: Any, stranger: Any, fresh: Any
) -> None:
    strong = define_role("strong", ["a.strong"])
    role = define_role("clerk", ["a.b", "a.other"], denies=["a.secret"])
    grant(stranger, define_role("editor", ["a.b", "a.c"]))

    change_role(role, patterns=["a.b", "a.c"], actor=stranger)  # takes a.other away
    for widened in (
        {"patterns": ["a.b", "a.d"]},
        {"patterns": ["a.*"]},
        {"denies": []},
        {"denies": ["a.e"]},
        {"includes": [strong]},
    ):
        with pytest.raises(BeyondOwnRights):
            change_role(role, **widened, actor=stranger)
    change_role(role, denies=["a.secret", "a.more"], actor=stranger)


def test_declared_roles_include_and_deny(user: Any, svc_settings: Any, fresh: Any) -> None:
    declared = {
        "boss": {
            "permissions": ["shop.*"],
            "denies": ["shop.close"],
            "includes": ["clerk"],
            "description": "!",
        },
        "clerk": ("orders.add_order",),
    }
    svc_settings(rbac={"roles": declared})
    assert sync_declared_roles().made == ("boss", "clerk")
    grant(user, "boss")

    assert user.has_perms(["shop.open", "orders.add_order"])
    assert not user.has_perm("shop.close")
    boss = Role.objects.get(name="boss")
    assert boss.description == "!"
    assert sync_declared_roles() == type(sync_declared_roles())((), (), (), (), ())
    with pytest.raises(RoleDeclared):
        change_role(boss, patterns=["*"])
    svc_settings(rbac={"roles": {**declared, "boss": ("shop.*",)}})
    assert sync_declared_roles().changed == ("boss",)
    assert fresh(user).has_perm("shop.close")
    assert not fresh(user).has_perm("orders.add_order")


@pytest.mark.parametrize(
    "roles",
    [
        {"a": {"includes": ["nobody"]}},
        {"a": {"includes": ["a"]}},
        {"a": {"includes": ["b"]}, "b": {"includes": ["a"]}},
        {"a": {"permission": ["x.y"]}},
    ],
)
def test_bad_declarations_are_told(db: None, svc_settings: Any, roles: Any) -> None:
    from svc_infra_django.config.sections import BadSettings

    svc_settings(rbac={"roles": roles})

    with pytest.raises(BadSettings, match=r"\['rbac'\]\['roles'\]"):
        sync_declared_roles()


def test_groups_mirror_the_roles_of_the_project(
    user: Any, stranger: Any, svc_settings: Any, fresh: Any, make_role: Any
) -> None:
    Group.objects.create(name="taken").user_set.add(stranger)
    make_role("of a tenant", "a.t", tenant="acme")
    roles = {"clerk": ("a.b",), "taken": ("*",)}
    svc_settings(rbac={"roles": roles, "mirror_groups": True})

    assert sync_declared_roles().refused == ("taken",)

    assert not fresh(stranger).has_perm("a.b")
    assert list(Group.objects.order_by("name").values_list("name", flat=True)) == ["clerk", "taken"]
    user.groups.add(Group.objects.get(name="clerk"))
    assert fresh(user).has_perm("a.b")
    user.groups.clear()
    assert not fresh(user).has_perm("a.b")
    assert sync_declared_roles().changed == ()
    assert Assignment.objects.count() == 1


def test_a_role_that_another_group_has_is_mirrored_too(user: Any, svc_settings: Any, fresh: Any) -> None:
    svc_settings(rbac={"roles": {"clerk": ("a.b",)}})
    sync_declared_roles()
    grant(Group.objects.create(name="night shift"), "clerk")
    grant(Group.objects.create(name="clerk"), "clerk", tenant="acme")
    svc_settings(rbac={"roles": {"clerk": ("a.b",)}, "mirror_groups": True})

    assert sync_declared_roles().mirrored == ("clerk",)
    assert sync_declared_roles().mirrored == ()
    user.groups.add(Group.objects.get(name="clerk"))
    assert fresh(user).has_perm("a.b")


def test_every_change_of_a_role_is_on_record(user: Any) -> None:
    low = define_role("low", actor=None)
    role = define_role("clerk", ["a.b"], tenant="acme", owner=user)
    change_role(role, patterns=["a.c"], denies=["a.d"], includes=[low])
    remove_role(role)

    told = [
        (row.kind, row.tenant, row.details) for row in RoleChange.objects.filter(role="clerk").order_by("id")
    ]

    assert told == [
        ("defined", "acme", {"permissions": {"added": ["a.b"], "removed": []}}),
        (
            "changed",
            "acme",
            {
                "permissions": {"added": ["a.c"], "removed": ["a.b"]},
                "denies": {"added": ["a.d"], "removed": []},
                "includes": {"added": ["low"], "removed": []},
            },
        ),
        (
            "removed",
            "acme",
            {
                "permissions": {"added": [], "removed": ["a.c"]},
                "denies": {"added": [], "removed": ["a.d"]},
                "includes": {"added": [], "removed": ["low"]},
            },
        ),
    ]
