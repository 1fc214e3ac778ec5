from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.http import HttpRequest
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from svc_infra_django.api import Authenticator
from svc_infra_django.principals import Principal
from svc_infra_django.rbac import check, grant
from svc_infra_django.rbac.models import Assignment, Role

URL = "/api/rbac"
END = (timezone.now() + timedelta(days=1)).isoformat()


def post(client: Client, url: str, body: Any) -> Any:
    return client.post(f"{URL}{url}", json.dumps(body), content_type="application/json")


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def signed_in(client: Client, user: Any) -> Any:
    """Sign ada in with these permissions of the rbac app, given by Django itself."""

    def sign_in(*codenames: str, who: Any = user) -> Any:
        who.user_permissions.add(
            *Permission.objects.filter(content_type__app_label="svc_rbac", codename__in=codenames)
        )
        client.force_login(who)
        return type(who)._default_manager.get(pk=who.pk)

    return sign_in


class TenantOfTheSession(Authenticator):
    """Stands for a credential that carries a tenant: the user's last name is theirs."""

    name = "test"
    scheme = {"type": "apiKey", "in": "header", "name": "X-Test-User"}

    def authenticate(self, request: HttpRequest) -> Principal | None:
        return Principal(request.user, method="session", tenant=request.user.last_name)


@pytest.fixture
def in_tenant(svc_settings: Any) -> Any:
    def move(user: Any, tenant: str) -> None:
        svc_settings(api={"authenticators": (f"{__name__}.TenantOfTheSession",)})
        type(user).objects.filter(pk=user.pk).update(last_name=tenant)

    return move


@pytest.fixture
def root_in_acme(signed_in: Any, make_user: Any, in_tenant: Any) -> Any:
    """A superuser, signed in, whose credential is one of the tenant acme."""
    root = make_user("root", is_superuser=True)
    signed_in(who=root)
    in_tenant(root, "acme")
    return root


@pytest.mark.parametrize(
    ("method", "path", "permission"),
    [
        ("get", "/roles", "view_role"),
        ("post", "/roles", "add_role"),
        pytest.param("get", f"/roles/{uuid4()}", "view_role", id="get-role"),
        pytest.param("patch", f"/roles/{uuid4()}", "change_role", id="patch-role"),
        pytest.param("delete", f"/roles/{uuid4()}", "delete_role", id="delete-role"),
        ("get", "/changes", "view_rolechange"),
        ("get", "/assignments", "view_assignment"),
        ("post", "/assignments", "add_assignment"),
        pytest.param("delete", f"/assignments/{uuid4()}", "delete_assignment", id="delete-assignment"),
    ],
)
def test_every_door_has_its_own_lock(
    signed_in: Any, client: Client, method: str, path: str, permission: str
) -> None:
    body = {"name": "x", "permissions": []} if path == "/roles" else {"user": "1", "role": str(uuid4())}
    writes = method in ("post", "patch")
    body = {"name": "x"} if method == "patch" else body
    options = {"data": json.dumps(body), "content_type": "application/json"} if writes else {}
    assert getattr(client, method)(f"{URL}{path}", **options).status_code == 401

    signed_in()
    refused = getattr(client, method)(f"{URL}{path}", **options)
    assert (refused.status_code, refused.json()["permission"]) == (403, f"svc_rbac.{permission}")

    signed_in(permission)
    assert getattr(client, method)(f"{URL}{path}", **options).status_code not in (401, 403)


def test_a_role_is_made_granted_used_and_taken(signed_in: Any, client: Client, make_user: Any) -> None:
    signed_in(who=make_user("root", is_superuser=True))
    bob = make_user("bob")

    role = post(
        client, "/roles", {"name": "clerk", "permissions": ["orders.add_order", "orders.add_order"]}
    ).json()
    given = post(
        client,
        "/assignments",
        {"user": str(bob.pk), "role": role["id"], "expires_at": END, "reason": "holiday"},
    )

    assert role["permissions"] == ["orders.add_order"]
    assert given.status_code == 201
    assert (given.json()["user"], given.json()["role"]["name"], given.json()["reason"]) == (
        str(bob.pk),
        "clerk",
        "holiday",
    )
    asked = client.get(f"{URL}/check", {"permission": "orders.add_order", "user": bob.pk}).json()
    assert asked["allowed"] is True
    assert client.delete(f"{URL}/roles/{role['id']}").json()["code"] == "rbac.role_in_use"

    assert client.delete(f"{URL}/assignments/{given.json()['id']}").status_code == 204
    assert client.delete(f"{URL}/assignments/{given.json()['id']}").status_code == 404
    assert (
        client.get(f"{URL}/check", {"permission": "orders.add_order", "user": bob.pk}).json()["allowed"]
        is False
    )
    assert client.delete(f"{URL}/roles/{role['id']}").status_code == 204


def test_a_role_is_changed_and_included(signed_in: Any, client: Client, make_user: Any, user: Any) -> None:
    signed_in(who=make_user("root", is_superuser=True))
    low = post(client, "/roles", {"name": "low", "permissions": ["orders.view_order"]}).json()
    body = {"name": "clerk", "permissions": ["shop.*"], "denies": ["shop.close"], "includes": [low["id"]]}
    role = post(client, "/roles", body).json()
    grant(user, "clerk")

    assert (role["denies"], role["includes"]) == (["shop.close"], [{"id": low["id"], "name": "low"}])
    assert [check(user, name) for name in ("orders.view_order", "shop.open", "shop.close")] == [
        True,
        True,
        False,
    ]

    def patch(which: Any, body: Any) -> Any:
        return client.patch(f"{URL}/roles/{which['id']}", json.dumps(body), content_type="application/json")

    changed = patch(role, {"permissions": [], "denies": []}).json()
    assert (changed["permissions"], changed["includes"]) == ([], role["includes"])
    assert patch(low, {"includes": [role["id"]]}).json()["code"] == "rbac.role_cycle"
    assert client.delete(f"{URL}/roles/{low['id']}").json()["code"] == "rbac.role_included"
    for wrong, pointer in (
        ({"includes": [str(uuid4())]}, "/body/includes/0"),
        ({"denies": ["x*"]}, "/body/denies/0"),
        ({"permissions": ["a.b"], "denies": ["a.b"]}, "/body/denies/0"),
        ({"name": ""}, "/body/name"),
    ):
        refused = patch(role, wrong)
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)
    assert client.get(f"{URL}/changes").json()["items"][0]["details"] == {
        "permissions": {"added": [], "removed": ["shop.*"]},
        "denies": {"added": [], "removed": ["shop.close"]},
    }


def test_one_object_is_granted_and_asked_about(
    signed_in: Any, client: Client, make_user: Any, make_role: Any, user: Any
) -> None:
    signed_in(who=make_user("root", is_superuser=True))
    row, other = Group.objects.create(name="row"), Group.objects.create(name="other")
    body = {"user": str(user.pk), "role": str(make_role("keeper", "auth.change_group").pk)}

    given = post(client, "/assignments", {**body, "object": {"type": "auth.group", "id": str(row.pk)}}).json()
    assert given["object"] == {"type": "auth.group", "id": str(row.pk)}

    asked = {"permission": "auth.change_group", "user": str(user.pk), "object_type": "auth.group"}
    answers = [client.get(f"{URL}/check", {**asked, "object_id": each.pk}).json() for each in (row, other)]
    assert [answer["allowed"] for answer in answers] == [True, False]
    path = client.get(f"{URL}/explain", {**asked, "object_id": row.pk}).json()["path"]
    assert {"kind": "granted", "name": f"on auth.group {row.pk}"} in path
    assert client.get(f"{URL}/check", asked).status_code == 422
    assert client.delete(f"{URL}/assignments/{given['id']}").status_code == 204
    assert client.get(f"{URL}/check", {**asked, "object_id": row.pk}).json()["allowed"] is False


def test_nobody_makes_or_grants_a_role_beyond_their_own_rights(
    signed_in: Any, client: Client, make_role: Any, stranger: Any
) -> None:
    user = signed_in("add_role", "add_assignment")
    role = make_role("boss", "*")

    made = post(client, "/roles", {"name": "mine", "permissions": ["svc_rbac.add_role", "svc_rbac.*"]})
    given = post(client, "/assignments", {"user": str(stranger.pk), "role": str(role.pk)})
    to_self = post(client, "/assignments", {"user": str(user.pk), "role": str(role.pk)})

    assert [made.status_code, given.status_code, to_self.status_code] == [403, 403, 403]
    assert made.json()["permission"] == "svc_rbac.*"
    assert not Role.objects.filter(name="mine").exists()
    assert not Assignment.objects.exists()
    assert post(client, "/roles", {"name": "mine", "permissions": ["svc_rbac.add_role"]}).status_code == 201


def test_who_may_add_grants_does_not_end_those_that_are_there(
    signed_in: Any, client: Client, make_role: Any, stranger: Any
) -> None:
    signed_in("add_assignment")
    role = make_role("clerk")
    body = {"user": str(stranger.pk), "role": str(role.pk)}
    assert post(client, "/assignments", body).status_code == 201

    refused = post(client, "/assignments", {**body, "expires_at": END})

    assert (refused.status_code, refused.json()["permission"]) == (403, "svc_rbac.change_assignment")
    signed_in("change_assignment")
    assert post(client, "/assignments", {**body, "expires_at": END}).status_code == 201
    assert Assignment.objects.get().expires_at is not None


def test_who_may_add_grants_does_not_take_from_others_by_a_role_that_denies(
    signed_in: Any, client: Client, make_role: Any, stranger: Any
) -> None:
    signed_in("add_assignment")
    suspended = make_role("suspended", includes=[make_role("barred", denies=["*"])])
    body = {"user": str(stranger.pk), "role": str(suspended.pk)}

    refused = post(client, "/assignments", body)

    assert (refused.status_code, refused.json()["permission"]) == (403, "svc_rbac.delete_assignment")
    signed_in("delete_assignment")
    assert post(client, "/assignments", body).status_code == 201


def test_roles_and_grants_of_another_tenant_are_not_there(
    root_in_acme: Any, client: Client, make_role: Any, stranger: Any
) -> None:
    make_role("everywhere", "a.b")
    make_role("ours", "a.b", tenant="acme")
    theirs = make_role("theirs", "a.b", tenant="victim-corp")
    other = grant(stranger, theirs, tenant="victim-corp")

    listed = client.get(f"{URL}/roles").json()["items"]
    assert {role["name"] for role in listed} == {"everywhere", "ours"}
    assert client.get(f"{URL}/assignments").json()["items"] == []
    assert client.get(f"{URL}/assignments", headers={"X-Tenant-Id": "victim-corp"}).json()["items"] == []
    for answer in (
        client.get(f"{URL}/roles/{theirs.pk}"),
        client.delete(f"{URL}/roles/{theirs.pk}"),
        client.delete(f"{URL}/assignments/{other.pk}"),
        client.get(f"{URL}/check", {"permission": "a.b", "user": stranger.pk}),
    ):
        assert answer.status_code == 404, answer.content
    given = post(client, "/assignments", {"user": str(root_in_acme.pk), "role": str(theirs.pk)})
    assert given.status_code == 422
    assert Assignment.objects.count() == 1


def test_a_role_made_in_a_tenant_stays_in_it(root_in_acme: Any, client: Client, stranger: Any) -> None:
    role = post(client, "/roles", {"name": "clerk", "permissions": ["a.b"]}).json()
    given = post(client, "/assignments", {"user": str(stranger.pk), "role": role["id"]}).json()

    assert (role["tenant"], given["tenant"]) == ("acme", "acme")
    assert not stranger.has_perm("a.b")
    assert Principal(stranger, "jwt", tenant="acme").can("a.b")


def test_everybody_may_ask_about_themselves_and_the_permitted_about_others(
    signed_in: Any, client: Client, stranger: Any
) -> None:
    user = signed_in()

    mine = client.get(f"{URL}/explain", {"permission": "orders.add_order"})
    assert mine.json()["user"] == str(user.pk)
    assert mine.json()["missing"].startswith("No role of theirs has it")
    for path in ("check", "explain"):
        asked = {"permission": "a.b", "user": stranger.pk}
        assert client.get(f"{URL}/{path}", asked).json()["permission"] == "svc_rbac.view_assignment"
        assert client.get(f"{URL}/{path}", {**asked, "user": 10**30}).status_code == 422

    signed_in("view_assignment")
    for path in ("check", "explain"):
        assert client.get(f"{URL}/{path}", asked).json()["allowed"] is False
        assert client.get(f"{URL}/{path}", {**asked, "user": 10**9}).status_code == 404


def test_explain_gives_the_path(signed_in: Any, client: Client, make_role: Any) -> None:
    user = signed_in()
    grant(user, make_role("clerk", "orders.*"))

    answer = client.get(f"{URL}/explain", {"permission": "orders.add_order"}).json()

    assert answer["allowed"] is True
    assert answer["path"] == [
        {"kind": "user", "name": "ada"},
        {"kind": "role", "name": "clerk"},
        {"kind": "pattern", "name": "orders.*"},
        {"kind": "permission", "name": "orders.add_order"},
    ]


def test_nobody_is_told_names_of_roles_that_they_may_not_see(
    signed_in: Any, client: Client, make_role: Any, stranger: Any
) -> None:
    secret = make_role("takeover team", "orders.*")
    user = signed_in("view_assignment")
    asked = {"permission": "orders.add_order"}

    def missing(**more: Any) -> str:
        return str(client.get(f"{URL}/explain", {**asked, **more}).json()["missing"])

    assert "takeover" not in missing()
    grant(stranger, secret, tenant="victim-corp")
    assert "takeover" not in missing(user=stranger.pk)
    signed_in("view_role")
    assert "takeover" in missing()
    assert "victim-corp" not in missing(user=stranger.pk)

    user.user_permissions.clear()
    signed_in("view_assignment")
    grant(stranger, secret)
    path = client.get(f"{URL}/explain", {**asked, "user": stranger.pk}).json()["path"]
    assert [link["name"] for link in path] == ["mallory", "", "orders.*", "orders.add_order"]
    grant(user, secret)
    assert "takeover team" in str(client.get(f"{URL}/explain", asked).json()["path"])


def test_staff_of_a_tenant_learn_no_names_by_making_strangers_theirs(
    root_in_acme: Any, client: Client, stranger: Any
) -> None:
    role = post(client, "/roles", {"name": "clerk", "permissions": ["a.b"]}).json()
    assert post(client, "/assignments", {"user": str(stranger.pk), "role": role["id"]}).status_code == 201

    for permission in ("a.b", "a.c"):
        told = client.get(f"{URL}/explain", {"permission": permission, "user": stranger.pk})
        assert told.json()["path"][0] == {"kind": "user", "name": str(stranger.pk)}
        assert "mallory" not in told.content.decode()
    assert client.get(f"{URL}/explain", {"permission": "a.b"}).json()["path"][0]["name"] == "root"


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/roles", {"name": "a"}, "/body/permissions"),
        ("/roles", {"name": "a", "permissions": "*"}, "/body/permissions"),
        ("/roles", {"name": "a", "permissions": ["a.b", "a*"]}, "/body/permissions/1"),
        ("/roles", {"name": "a", "permissions": ["a.b\0"]}, "/body/permissions/0"),
        ("/roles", {"name": "a" * 101, "permissions": []}, "/body/name"),
        ("/roles", {"name": "clerk\r\nboss", "permissions": []}, "/body/name"),
        ("/roles", {"name": "a", "permissions": [], "tenant": "x"}, "/body/tenant"),
        ("/roles", {"name": "a", "permissions": [], "source": "code"}, "/body/source"),
        ("/assignments", {"user": "x", "role": str(uuid4())}, "/body/user"),
        ("/assignments", {"user": "1" * 60, "role": str(uuid4())}, "/body/user"),
        ("/assignments", {"user": "1" * 40, "role": str(uuid4())}, "/body/user"),
        (
            "/assignments",
            {"user": "1", "role": str(uuid4()), "expires_at": "0001-01-01T00:00:00+12:00"},
            "/body/expires_at",
        ),
        ("/assignments", {"user": 1, "role": str(uuid4())}, "/body/user"),
        ("/assignments", {"user": "1", "role": "clerk"}, "/body/role"),
        ("/assignments", {"user": "1", "role": str(uuid4()), "granted_by": 1}, "/body/granted_by"),
        (
            "/assignments",
            {"user": "1", "role": str(uuid4()), "expires_at": "9999-12-31T23:59:59-12:00"},
            "/body/expires_at",
        ),
    ],
)
def test_bad_bodies_point_at_the_field(
    signed_in: Any, client: Client, make_user: Any, path: str, body: Any, pointer: str
) -> None:
    signed_in(who=make_user("root", is_superuser=True))

    answer = post(client, path, body)

    assert answer.status_code == 422, answer.content
    assert pointer in [problem["pointer"] for problem in answer.json()["errors"]]


def test_a_name_is_taken_once_in_a_tenant(
    signed_in: Any, client: Client, make_role: Any, make_user: Any
) -> None:
    signed_in(who=make_user("root", is_superuser=True))
    make_role("clerk", tenant="acme")

    assert post(client, "/roles", {"name": "clerk", "permissions": []}).status_code == 201
    assert post(client, "/roles", {"name": "clerk", "permissions": []}).json()["code"] == "rbac.role_exists"


def test_lists_take_as_many_queries_for_fifty_rows_as_for_one(
    signed_in: Any, client: Client, make_user: Any, make_role: Any
) -> None:
    signed_in(who=make_user("root", is_superuser=True))
    grant(make_user("user"), make_role("role", "a.b", "a.c"))
    counts = []
    for more in (0, 49):
        for number in range(more):
            grant(make_user(f"user{number}"), make_role(f"role{number}", "a.b", "a.c"))
        for path in ("/roles", "/assignments"):
            with CaptureQueriesContext(connection) as queries:
                assert len(client.get(f"{URL}{path}").json()["items"]) == more + 1
            counts.append(len(queries))

    assert counts[:2] == counts[2:]
