from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
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


def role_form(*patterns: str, role: Role | None = None, **fields: Any) -> dict[str, Any]:
    kept = list(role.permissions.all()) if role else []
    form = {
        "name": "clerk",
        "tenant": "",
        "description": "",
        "permissions-TOTAL_FORMS": len(kept) + len(patterns),
        "permissions-INITIAL_FORMS": len(kept),
    }
    for number, permission in enumerate(kept):
        form[f"permissions-{number}-id"] = str(permission.pk)
        form[f"permissions-{number}-pattern"] = permission.pattern
    for number, pattern in enumerate(patterns, len(kept)):
        form[f"permissions-{number}-pattern"] = pattern
    return {**form, **fields}


def grant_form(to: Any, role: Role, **fields: Any) -> dict[str, Any]:
    empty = {"tenant": "", "expires_at_0": "", "expires_at_1": "", "reason": ""}
    return {"user": to.pk, "role": str(role.pk), **empty, **fields}


def test_a_role_is_made_from_permissions_that_exist(admin: Client, root: Any) -> None:
    page = admin.get(f"{ROLES}add/").content.decode()
    assert page.count('<option value="svc_rbac.add_role">') == 1

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
        answer = staff.post(f"{ROLES}{role.pk}/change/", role_form(pattern, role=role))
        assert "Nobody gives what they lack" in answer.content.decode()
    assert (
        staff.post(f"{ROLES}{role.pk}/change/", role_form("svc_rbac.add_role", role=role)).status_code == 302
    )
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
        ({"tenant": "other"}, "belongs to another tenant"),
        ({"user": "999999999"}, "errorlist"),
    ],
)
def test_a_bad_grant_is_told_in_the_form(
    admin: Client, make_role: Any, user: Any, fields: Any, told: str
) -> None:
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
    assert admin.post(f"{ROLES}{role.pk}/change/", role_form("*", role=role)).status_code == 403
    assert admin.post(f"{ROLES}{role.pk}/delete/", {"post": "yes"}).status_code == 403
    assert role.permissions.count() == 1

    svc_settings(rbac={"roles": {}})
    sync_declared_roles()
    assert admin.post(f"{ROLES}{role.pk}/change/", role_form("*", role=role)).status_code == 403
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
    from django.contrib.auth.models import User

    monkeypatch.delitem(django_admin.site._registry, User)

    assert admin.get(f"{GRANTS}add/").status_code == 200
    assert admin.post(f"{GRANTS}add/", grant_form(user, make_role("clerk", "a.b"))).status_code == 302
