from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from svc_infra_django.rbac import grant, sync_declared_roles
from svc_infra_django.rbac.models import Assignment, Role

ROLES = "/admin/svc_rbac/role/"
GRANTS = "/admin/svc_rbac/assignment/"


@pytest.fixture
def root(make_user: Any) -> Any:
    return make_user("root", is_staff=True, is_superuser=True)


@pytest.fixture
def admin(root: Any) -> Client:
    client = Client()
    client.force_login(root)
    return client


@pytest.fixture
def staff(make_user: Any) -> Client:
    """May do all in this admin, and holds no other permission."""
    user = make_user("staff", is_staff=True)
    user.user_permissions.add(*Permission.objects.filter(content_type__app_label="svc_rbac"))
    client = Client()
    client.force_login(user)
    return client


def role_form(*patterns: str, denies: str = "", includes: Any = (), **fields: Any) -> dict[str, Any]:
    form = {"name": "clerk", "tenant": "", "description": "", "permissions": "\r\n".join(patterns)}
    return {**form, "denies": denies, "includes": [str(role.pk) for role in includes], **fields}


def grant_form(to: Any, role: Role, **fields: Any) -> dict[str, Any]:
    empty = {
        "tenant": "",
        "group": "",
        "object_type": "",
        "object_id": "",
        "expires_at_0": "",
        "expires_at_1": "",
        "reason": "",
    }
    return {"user": to.pk, "role": str(role.pk), **empty, **fields}


def test_a_role_is_made_from_permissions_that_exist(admin: Client, root: Any) -> None:
    assert admin.get(f"{ROLES}add/").status_code == 200

    answer = admin.post(f"{ROLES}add/", role_form("svc_rbac.add_role", "svc_apikeys.*"))

    assert answer.status_code == 302
    role = Role.objects.get()
    assert (role.owner, role.source) == (root, "admin")
    assert [str(permission) for permission in role.permissions.all()] == [
        "svc_apikeys.*",
        "svc_rbac.add_role",
    ]


@pytest.mark.parametrize("pattern", ["svc_rbac.fly", "nothing.*", "svc_rbac.add_*", "nonsense", "a\0.b"])
def test_a_permission_that_does_not_exist_is_refused(admin: Client, pattern: str) -> None:
    answer = admin.post(f"{ROLES}add/", role_form(pattern))

    assert answer.status_code == 200
    assert "errorlist" in answer.content.decode()
    assert not Role.objects.exists()


def test_staff_put_nothing_into_a_role_that_they_lack(staff: Client, make_role: Any, make_user: Any) -> None:
    role = make_role("clerk", "svc_rbac.view_role")

    for pattern in ("*", "svc_apikeys.add_apikey", "svc_rbac.*"):
        answer = staff.post(f"{ROLES}{role.pk}/change/", role_form("svc_rbac.view_role", pattern))
        assert "Nobody gives what they lack" in answer.content.decode()
    kept_and_new = role_form("svc_rbac.view_role", "svc_rbac.add_role")
    assert staff.post(f"{ROLES}{role.pk}/change/", kept_and_new).status_code == 302
    assert role.permissions.count() == 2


def test_staff_grant_no_role_that_holds_more_than_they_do(staff: Client, make_role: Any, user: Any) -> None:
    boss, clerk = make_role("boss", "*"), make_role("clerk", "svc_rbac.view_role")

    refused = staff.post(f"{GRANTS}add/", grant_form(user, boss))

    assert "Nobody gives what they lack" in refused.content.decode()
    assert staff.post(f"{GRANTS}add/", grant_form(user, clerk)).status_code == 302
    assert [given.role for given in Assignment.objects.all()] == [clerk]


def test_a_grant_in_the_admin_lets_the_user_in_and_deleting_it_keeps_them_out(
    admin: Client, root: Any, make_role: Any, user: Any, fresh: Any
) -> None:
    role = make_role("clerk", "orders.add_order")
    assert admin.get(f"{GRANTS}add/").status_code == 200

    assert admin.post(f"{GRANTS}add/", grant_form(user, role, reason="new here")).status_code == 302

    given = Assignment.objects.get()
    assert (given.user, given.granted_by, given.reason) == (user, root, "new here")
    assert fresh(user).has_perm("orders.add_order")
    change = f"{GRANTS}{given.pk}/change/"
    assert admin.get(change).status_code == 200
    admin.post(change, {"expires_at_0": "2100-01-01", "expires_at_1": "00:00:00", "reason": "longer"})
    given.refresh_from_db()
    assert (given.reason, given.expires_at.year) == ("longer", 2100)  # type: ignore[union-attr]

    assert admin.post(f"{GRANTS}{given.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not fresh(user).has_perm("orders.add_order")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"tenant": "acme", "expires_at_0": "2001-01-01", "expires_at_1": "00:00:00"},
            "The end must be in the future.",
        ),
        (
            {"tenant": "acme", "expires_at_0": "9999-12-31", "expires_at_1": "23:59:59"},
            "more than a hundred years ahead",
        ),
        ({"tenant": "other"}, "belongs to another tenant"),
        ({"user": "999999999"}, "errorlist"),
    ],
)
def test_a_bad_grant_is_told_in_the_form(
    admin: Client, make_role: Any, user: Any, settings: Any, fields: Any, told: str
) -> None:
    settings.TIME_ZONE = "America/New_York"  # where the last day of the calendar ends in the year after it
    answer = admin.post(f"{GRANTS}add/", grant_form(user, make_role("clerk", "a.b", tenant="acme"), **fields))

    assert answer.status_code == 200
    assert told in answer.content.decode()
    assert not Assignment.objects.exists()


def test_the_same_grant_twice_is_told_in_the_form(admin: Client, make_role: Any, user: Any) -> None:
    role = make_role("clerk", "a.b")
    grant(user, role)

    assert "already exists" in admin.post(f"{GRANTS}add/", grant_form(user, role)).content.decode()


def test_declared_roles_are_read_here_and_changed_in_the_settings(admin: Client, svc_settings: Any) -> None:
    svc_settings(rbac={"roles": {"clerk": ("svc_rbac.view_role",)}})
    sync_declared_roles()
    role = Role.objects.get(name="clerk")

    assert admin.get(f"{ROLES}{role.pk}/change/").status_code == 200
    assert admin.post(f"{ROLES}{role.pk}/change/", role_form("*")).status_code == 403
    assert admin.post(f"{ROLES}{role.pk}/delete/", {"post": "yes"}).status_code == 403
    assert role.permissions.count() == 1

    svc_settings(rbac={"roles": {}})
    sync_declared_roles()
    assert admin.post(f"{ROLES}{role.pk}/change/", role_form("*")).status_code == 403
    assert admin.post(f"{ROLES}{role.pk}/delete/", {"post": "yes"}).status_code == 302


def test_a_role_that_somebody_has_is_not_deleted(admin: Client, make_role: Any, user: Any) -> None:
    used, unused = make_role("used", "a.b"), make_role("unused", "a.b")
    grant(user, used)

    admin.post(f"{ROLES}{used.pk}/delete/", {"post": "yes"})
    admin.post(f"{ROLES}{unused.pk}/delete/", {"post": "yes"})

    assert list(Role.objects.all()) == [used]


def test_a_user_with_roles_can_be_deleted(admin: Client, make_role: Any, user: Any) -> None:
    grant(user, make_role("clerk", "a.b"))

    assert admin.post(f"/admin/auth/user/{user.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Assignment.objects.exists()


def test_pages_take_as_many_queries_for_fifty_rows_as_for_one(
    admin: Client, make_user: Any, make_role: Any
) -> None:
    role = make_role("role", "svc_rbac.view_role")
    grant(make_user("user"), role)
    pages = (ROLES, GRANTS, f"{ROLES}{role.pk}/change/", f"{GRANTS}add/")
    for page in pages:
        admin.get(page)
    counts = []
    for more in (0, 49):
        for number in range(more):
            grant(make_user(f"user{number}"), make_role(f"role{number}", "a.b"))
            role.permissions.create(pattern=f"svc_rbac.view_role{number}")
        for page in pages:
            with CaptureQueriesContext(connection) as queries:
                assert admin.get(page).status_code == 200
            counts.append(len(queries))

    assert counts[:4] == counts[4:]


def test_grants_are_found_by_user_and_role(admin: Client, make_role: Any, user: Any) -> None:
    grant(user, make_role("clerk", "a.b"))

    for words, found in (("ad", True), ("cler", True), ("nobody", False)):
        assert ("field-role" in admin.get(GRANTS, {"q": words}).content.decode()) is found


def test_a_project_whose_users_have_no_admin_can_still_grant(
    admin: Client, make_role: Any, user: Any, monkeypatch: Any
) -> None:
    from django.contrib import admin as django_admin

    monkeypatch.delitem(django_admin.site._registry, User)

    assert admin.get(f"{GRANTS}add/").status_code == 200
    assert admin.post(f"{GRANTS}add/", grant_form(user, make_role("clerk", "a.b"))).status_code == 302


def test_a_role_includes_others_and_takes_away(admin: Client, make_role: Any, user: Any, fresh: Any) -> None:
    low = make_role("low", "svc_rbac.view_role")
    assert (
        admin.post(
            f"{ROLES}add/", role_form("svc_rbac.*", denies="svc_rbac.add_role", includes=[low])
        ).status_code
        == 302
    )
    role = Role.objects.get(name="clerk")
    grant(user, role)
    assert user.has_perm("svc_rbac.view_role")
    assert not user.has_perm("svc_rbac.add_role")
    page = admin.get(f"{ROLES}{role.pk}/change/").content.decode()
    assert "svc_rbac.*</textarea>" in page
    assert "svc_rbac.add_role</textarea>" in page

    for wrong, told in (
        (role_form(includes=[role]), "cannot include itself"),
        (role_form("svc_rbac.add_role", denies="svc_rbac.add_role"), "given by this role and denied"),
        (role_form(name="low"), "has a role of that name already"),
        (role_form(name="a\r\nb"), "control characters"),
    ):
        assert told in admin.post(f"{ROLES}{role.pk}/change/", wrong).content.decode(), told
    assert admin.post(f"{ROLES}{role.pk}/change/", role_form(name="renamed")).status_code == 302
    role.refresh_from_db()
    assert (role.name, role.includes.count(), role.permissions.count()) == ("renamed", 0, 0)
    assert not fresh(user).has_perm("svc_rbac.view_role")


def test_an_included_role_is_not_deleted(admin: Client, make_role: Any) -> None:
    low = make_role("low")
    make_role("top", includes=[low])

    answer = admin.post(f"{ROLES}{low.pk}/delete/", {"post": "yes"})
    admin.post(ROLES, {"action": "delete_selected", "_selected_action": str(low.pk), "post": "yes"})

    assert "Included by: top" in answer.content.decode()
    assert Role.objects.filter(pk=low.pk).exists()


def test_a_group_and_one_object_are_granted(admin: Client, make_role: Any, user: Any, fresh: Any) -> None:
    role, row = make_role("clerk", "svc_rbac.view_role"), make_role("a row", tenant="acme")
    group = Group.objects.create(name="nights")
    user.groups.add(group)
    named = {"group": group.pk, "object_type": "svc_rbac.role", "object_id": str(row.pk)}

    for wrong, told in (
        ({**named}, "either a user or a group"),
        ({"user": "", **named, "object_id": "7"}, "no such object"),
        ({"user": "", **named, "tenant": "other"}, "of the tenant"),
        ({"user": ""}, "either a user or a group"),
    ):
        assert told in admin.post(f"{GRANTS}add/", grant_form(user, role, **wrong)).content.decode(), told
    assert admin.post(f"{GRANTS}add/", grant_form(user, role, **named, **{"user": ""})).status_code == 302

    assert fresh(user).has_perm("svc_rbac.view_role", row)
    given = Assignment.objects.get()
    assert (given.group, given.tenant, given.object_id) == (group, "acme", str(row.pk))
    assert "group nights" in admin.get(GRANTS).content.decode()
    assert admin.post(f"{GRANTS}{given.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Assignment.objects.exists()


def test_staff_do_not_lift_a_denial_of_what_they_lack(staff: Client, make_role: Any, user: Any) -> None:
    given = grant(user, make_role("barred", denies=["orders.*"]))

    assert staff.post(f"{GRANTS}{given.pk}/delete/", {"post": "yes"}).status_code == 403
    staff.post(GRANTS, {"action": "delete_selected", "_selected_action": str(given.pk), "post": "yes"})

    assert Assignment.objects.exists()
    soon = {"expires_at_0": "2099-01-01", "expires_at_1": "00:00", "reason": ""}
    page = staff.post(f"{GRANTS}{given.pk}/change/", soon)
    assert (page.status_code, "orders.*" in page.content.decode()) == (200, True)
    assert Assignment.objects.get().expires_at is None


def test_staff_who_may_only_add_grants_take_nothing_from_others(
    staff: Client, make_role: Any, user: Any
) -> None:
    barred = make_role("barred", denies=["orders.*"])
    may_delete = Permission.objects.get(codename="delete_assignment")
    member = User.objects.get(username="staff")
    member.user_permissions.remove(may_delete)

    page = staff.post(f"{GRANTS}add/", grant_form(user, barred))
    assert "may not take from others" in page.content.decode()
    assert not Assignment.objects.exists()

    member.user_permissions.add(may_delete)
    assert staff.post(f"{GRANTS}add/", grant_form(user, barred)).status_code == 302


def test_staff_ask_why(admin: Client, staff: Client, make_role: Any, user: Any) -> None:
    row = make_role("a row", tenant="acme")
    grant(user, make_role("clerk", "svc_rbac.view_role"), obj=row)
    asked = {"user": "ada", "permission": "svc_rbac.view_role", "tenant": "acme"}
    about = {"object_type": "svc_rbac.role", "object_id": str(row.pk)}

    assert "Why may somebody?" in admin.get(GRANTS).content.decode()
    assert admin.get(f"{GRANTS}explain/").status_code == 200
    told = admin.get(f"{GRANTS}explain/", {**asked, **about}).content.decode()
    assert "Allowed" in told
    assert "<strong>clerk</strong>" in told
    told = admin.get(f"{GRANTS}explain/", asked).content.decode()
    assert "Denied" in told
    assert "only." in told
    for wrong in ({"user": "nobody"}, {**about, "object_id": "7"}):
        assert "errorlist" in admin.get(f"{GRANTS}explain/", {**asked, **wrong}).content.decode()
    assert staff.get(f"{GRANTS}explain/").status_code == 200
    User.objects.get(username="staff").user_permissions.clear()
    assert staff.get(f"{GRANTS}explain/").status_code == 403
