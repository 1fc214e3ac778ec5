"""The rules of security that concern roles, each by its number."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Group, Permission
from django.test import Client
from django.utils import timezone

from svc_infra_django.principals import Principal
from svc_infra_django.rbac import change_role, check, define_role, grant, withdraw
from svc_infra_django.rbac.errors import BeyondOwnRights
from svc_infra_django.rbac.models import Assignment, RoleChange
from svc_infra_django.rbac.services.deciding import Held, Rights, Scope
from svc_infra_django.rbac.services.defining import remove_role
from svc_infra_django.rbac.services.explaining import Way, judged

URL = "/api/rbac"
NOW = timezone.now()


def send(client: Client, method: str, path: str, body: Any = None) -> Any:
    return client.generic(method.upper(), f"{URL}{path}", json.dumps(body), "application/json")


@pytest.fixture
def staff(user: Any) -> Client:
    """Holds every permission of the rbac app, and nothing else."""
    user.user_permissions.add(*Permission.objects.filter(content_type__app_label="svc_rbac"))
    client = Client()
    client.force_login(user)
    return client


def test_rule_59_without_a_grant_nothing_is_allowed(user: Any, make_role: Any) -> None:
    make_role("all", "*")

    for permission in ("a.b", "svc_rbac.view_role", "*", "", "a", "a.*"):
        assert not check(user, permission)
        assert not check(user, permission, tenant="acme")
        assert not check(user, permission, user)


def test_rule_60_nobody_grants_what_they_lack_by_any_door(staff: Client, user: Any, make_role: Any) -> None:
    boss, mine = make_role("boss", "*"), make_role("mine", "svc_rbac.view_role")
    hidden = make_role("harmless", includes=[boss])
    body = {"user": str(user.pk)}

    attempts = [
        send(staff, "post", "/assignments", {**body, "role": str(boss.pk)}),
        send(staff, "post", "/assignments", {**body, "role": str(hidden.pk)}),
        send(staff, "post", "/roles", {"name": "x", "permissions": ["orders.add_order"]}),
        send(staff, "post", "/roles", {"name": "x", "permissions": [], "includes": [str(boss.pk)]}),
        send(staff, "patch", f"/roles/{mine.pk}", {"permissions": ["svc_rbac.*"]}),
        send(staff, "patch", f"/roles/{mine.pk}", {"includes": [str(hidden.pk)]}),
    ]

    assert [answer.status_code for answer in attempts] == [403] * len(attempts)
    assert {answer.json()["code"] for answer in attempts} == {"rbac.beyond_own_rights"}
    assert not Assignment.objects.exists()


def test_rule_60_nobody_grants_in_a_scope_they_lack(user: Any, stranger: Any, make_role: Any) -> None:
    role = make_role("clerk", "auth.change_group")
    row, other = Group.objects.create(name="row"), Group.objects.create(name="other")
    held_in: list[dict[str, Any]] = [{"tenant": "acme"}, {"obj": row}]
    wider: list[dict[str, Any]] = [{}, {"tenant": "victim-corp"}, {"obj": other}]
    for place in held_in:
        Assignment.objects.all().delete()
        grant(stranger, role, **place)
        actor = type(stranger).objects.get(pk=stranger.pk)
        for elsewhere in (*wider, *(each for each in held_in if each is not place)):
            with pytest.raises(BeyondOwnRights):
                grant(user, role, **elsewhere, actor=actor)
        grant(user, role, **place, actor=actor)


def test_rule_60_a_credential_grants_within_its_tenant_and_its_scopes(
    user: Any, make_user: Any, make_role: Any
) -> None:
    viewer, clerk = make_role("viewer", "orders.view_order"), make_role("clerk", "orders.add_order")
    root, boss = make_user("root", is_superuser=True), make_user("boss")
    grant(boss, make_role("everything", "*"))
    for who in (root, boss):
        scoped = Principal(who, "token", tenant="acme", scopes=frozenset({"orders.view_order"}))
        with pytest.raises(BeyondOwnRights):
            grant(user, clerk, tenant="acme", actor=scoped)
        for tenant in ("", "globex"):
            with pytest.raises(BeyondOwnRights):
                grant(user, viewer, tenant=tenant, actor=scoped)
            with pytest.raises(BeyondOwnRights):
                define_role("theirs", ["orders.view_order"], tenant=tenant, actor=scoped)
        grant(user, viewer, tenant="acme", actor=scoped)


@pytest.mark.parametrize("field", ["owner", "tenant", "source", "is_staff", "granted_by", "id"])
def test_rule_60_no_field_of_the_input_sets_more_than_it_should(
    staff: Client, user: Any, make_role: Any, field: str
) -> None:
    role = make_role("mine", "svc_rbac.view_role")

    for method, path, body in (
        ("post", "/roles", {"name": "x", "permissions": []}),
        ("patch", f"/roles/{role.pk}", {"description": "x"}),
        ("post", "/assignments", {"user": str(user.pk), "role": str(role.pk)}),
    ):
        answer = send(staff, method, path, {**body, field: "x"})
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == f"/body/{field}"


def test_rule_61_what_belongs_to_another_tenant_is_not_found(
    staff: Client, user: Any, stranger: Any, make_role: Any
) -> None:
    theirs = make_role("theirs", "svc_rbac.view_role", tenant="victim-corp")
    given = grant(stranger, theirs, tenant="victim-corp")
    for method, path in (
        ("get", f"/roles/{theirs.pk}"),
        ("patch", f"/roles/{theirs.pk}"),
        ("delete", f"/roles/{theirs.pk}"),
        ("delete", f"/assignments/{given.pk}"),
    ):
        there, nowhere = (
            send(staff, method, each, {"description": "x"})
            for each in (path, path.replace(path.rpartition("/")[2], str(uuid4())))
        )
        assert (there.status_code, nowhere.status_code) == (404, 404), (method, path)
    for path in ("/roles", "/assignments", "/changes"):
        assert "victim-corp" not in staff.get(f"{URL}{path}").content.decode()
    assert (
        send(
            staff, "post", "/roles", {"name": "x", "permissions": [], "includes": [str(theirs.pk)]}
        ).status_code
        == 422
    )
    body = {"user": str(user.pk), "role": str(make_role("mine").pk)}
    for row in (theirs.pk, uuid4(), "nonsense"):
        refused = send(
            staff, "post", "/assignments", {**body, "object": {"type": "svc_rbac.role", "id": str(row)}}
        )
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, "/body/object")


def test_rule_61_an_answer_does_not_tell_whether_there_is_a_row(
    user: Any, make_role: Any, svc_settings: Any
) -> None:
    theirs = make_role("theirs", tenant="victim-corp")
    client = Client()
    client.force_login(user)

    for path in ("check", "explain"):
        told = []
        for row in (theirs.pk, uuid4()):
            asked = {
                "permission": "svc_rbac.view_role",
                "object_type": "svc_rbac.role",
                "object_id": str(row),
            }
            told.append(client.get(f"{URL}/{path}", asked).json())
        assert told[0] == told[1]


def test_rule_62_explain_agrees_with_check_on_ten_thousand_models() -> None:
    dice = random.Random(62)  # noqa: S311 - the same models in every run
    patterns = ["a.x", "a.y", "b.x", "a.b.x", "a.*", "b.*", "a.b.*", "*"]
    tenants, objects = ["", "t1", "t2"], [("", ""), ("s.o", "1"), ("s.o", "2")]
    outcomes = {True: 0, False: 0, None: 0}
    for _ in range(10_000):
        ways, held = [], []
        for number in range(dice.randint(0, 5)):
            scope = Scope(dice.choice(tenants), *dice.choice(objects))
            given = Assignment(**scope._asdict())
            pattern, denies = dice.choice(patterns), dice.random() < 0.25
            ways.append(Way(given, ("role",) * (1 + number % 3), pattern, denies))
            held.append(Held(pattern, scope, None, denies))
        asked = Scope(dice.choice(tenants), *dice.choice(objects))
        permission = dice.choice(patterns)
        covering = [way for way in ways if way.speaks_of(permission)]
        denial, gift = judged(covering, asked, asked)
        explained = False if denial else True if gift else None
        rights = Rights(held)
        compiled = False if rights.deny(permission, asked) else rights.allow(permission, asked) or None
        assert explained is compiled, (held, permission, asked)
        outcomes[explained] += 1
    assert min(outcomes.values()) > 500


def test_rule_63_every_change_is_a_row_with_who_what_where_and_request(user: Any, stranger: Any) -> None:
    from svc_infra_django.observability.context import bound

    stranger.is_superuser = True
    actor = Principal(stranger, "jwt", credential_id="session-7", tenant="acme")
    with bound(request_id="request-63"):
        role = define_role("clerk", ["a.b"], tenant="acme", actor=actor)
        grant(user, role, tenant="acme", reason="new here", actor=actor)
        grant(user, role, tenant="acme", reason="longer", expires_at=NOW + timedelta(days=1), actor=actor)
        withdraw(user, role, tenant="acme", reason="left", actor=actor)
        change_role(role, patterns=[], actor=actor)
        remove_role(role, actor=actor)

    rows = list(RoleChange.objects.order_by("id"))
    assert [row.kind for row in rows] == ["defined", "granted", "moved", "withdrawn", "changed", "removed"]
    assert {(row.tenant, row.role, row.role_id, row.actor_key, row.method) for row in rows} == {
        ("acme", "clerk", role.pk or rows[0].role_id, str(stranger.pk), "jwt")
    }
    assert {(row.request_id, row.credential_id) for row in rows} == {("request-63", "session-7")}
    assert [(row.user_key, row.reason) for row in rows[1:4]] == [
        (str(user.pk), "new here"),
        (str(user.pk), "longer"),
        (str(user.pk), "left"),
    ]
    assert rows[2].expires_at == NOW + timedelta(days=1)


def test_rule_63_the_grants_of_a_deleted_user_are_written_down(
    make_user: Any, admin_client: Client, admin_user: Any
) -> None:
    bob = make_user("bob")
    grant(bob, define_role("clerk", ["a.b"]), tenant="acme")
    bobs = str(bob.pk)

    admin_client.post(f"/admin/auth/user/{bobs}/delete/", {"post": "yes"})

    row = RoleChange.objects.get(kind="withdrawn")
    assert (row.user_key, row.role, row.tenant, row.reason) == (
        bobs,
        "clerk",
        "acme",
        "The user was deleted.",
    )
    assert row.actor_key == str(admin_user.pk)


def test_rule_63_who_puts_somebody_into_a_group_is_named(
    user: Any, admin_client: Client, admin_user: Any
) -> None:
    clerks = Group.objects.create(name="clerks")
    grant(clerks, define_role("clerk", ["a.b"]))
    form = admin_client.get(f"/admin/auth/user/{user.pk}/change/").context["adminform"].form
    sent = {name: value for name, value in form.initial.items() if isinstance(value, str)}

    answer = admin_client.post(
        f"/admin/auth/user/{user.pk}/change/",
        {
            **sent,
            "date_joined_0": "2026-01-01",
            "date_joined_1": "00:00",
            "is_active": "on",
            "groups": [clerks.pk],
        },
    )

    assert answer.status_code == 302
    assert RoleChange.objects.get(kind="joined").actor_key == str(admin_user.pk)


def test_rule_63_a_refused_grant_is_logged(
    user: Any, stranger: Any, make_role: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BeyondOwnRights):
        grant(user, make_role("boss", "*"), actor=stranger)

    assert "a grant was refused" in caplog.text


def test_rule_63_changes_are_read_and_never_written(staff: Client, user: Any, make_user: Any) -> None:
    grant(user, define_role("clerk", ["a.b"]), reason="new here")

    told = staff.get(f"{URL}/changes", {"user": str(user.pk)}).json()["items"]

    assert [(row["kind"], row["user"], row["reason"], row["actor"]) for row in told] == [
        ("granted", str(user.pk), "new here", None)
    ]
    root = make_user("root", is_staff=True, is_superuser=True)
    staff.force_login(root)
    page = f"/admin/svc_rbac/rolechange/{RoleChange.objects.first().pk}"  # type: ignore[union-attr]
    assert staff.get("/admin/svc_rbac/rolechange/").status_code == 200
    assert staff.get(f"{page}/change/").status_code == 200
    assert staff.post(f"{page}/delete/", {"post": "yes"}).status_code == 403
    assert staff.get("/admin/svc_rbac/rolechange/add/").status_code == 403
