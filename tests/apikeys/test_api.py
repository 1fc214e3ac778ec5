from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from svc_infra_django.accounts import issue_tokens
from svc_infra_django.apikeys import issue_key, revoke_key, verify_key
from svc_infra_django.apikeys.hashing import new_key
from svc_infra_django.apikeys.models import ApiKey, UsageHour
from tests.conftest import PASSWORD

URL = "/api/api-keys"


@pytest.fixture
def client(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def post(client: Client, url: str, body: Any, **headers: str) -> Any:
    return client.post(url, json.dumps(body), content_type="application/json", headers=headers)


def test_a_key_is_shown_in_the_creating_answer_and_never_again(client: Client, user: Any) -> None:
    answer = post(client, URL, {"name": "robot"})

    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    secret = answer.json()["key"]
    key = verify_key(secret)
    assert (key.owner, key.name) == (user, "robot")
    for url in (URL, f"{URL}/{key.pk}"):
        shown = client.get(url).content.decode()
        assert secret[12:-4] not in shown
        assert key.last4 in shown
        assert "digest" not in shown


def test_making_and_changing_a_key_may_want_a_login_of_late(user: Any, svc_settings: Any) -> None:
    svc_settings(apikeys={"step_up_seconds": 300})
    key, _ = issue_key(owner=user, name="old")
    then = timezone.now() - timedelta(seconds=301)
    tokens = issue_tokens(user, amr=("pwd",), now=then)
    headers = {"Authorization": f"Bearer {tokens.access_token}"}
    calls = [
        ("post", URL, {"name": "robot"}),
        ("post", f"{URL}/{key.pk}/rotate", {}),
        ("patch", f"{URL}/{key.pk}", {"name": "new"}),
    ]

    def statuses() -> list[int]:
        return [
            getattr(Client(), method)(url, body, content_type="application/json", headers=headers).status_code
            for method, url, body in calls
        ]

    assert statuses() == [401, 401, 401]
    stepped = Client().post(
        "/api/auth/step-up", {"password": PASSWORD}, content_type="application/json", headers=headers
    )
    assert stepped.status_code == 204
    assert statuses() == [201, 201, 200]
    assert Client().post(f"{URL}/{key.pk}/revoke", headers=headers).status_code == 200


def test_the_key_opens_the_api_as_its_owner_until_it_is_revoked(
    client: Client, user: Any, permit: Any
) -> None:
    permit(user, "view_role")
    created = post(client, URL, {"name": "robot", "scopes": ["svc_rbac.view_role"]}).json()
    robot = Client(headers={"X-API-Key": created["key"]})
    assert robot.get("/api/rbac/roles").status_code == 200

    assert post(client, f"{URL}/{created['api_key']['id']}/revoke", {}).json()["state"] == "revoked"

    refused = robot.get("/api/rbac/roles")
    assert (refused.status_code, refused.json()["code"]) == (401, "apikeys.invalid")
    assert "ApiKey" in refused["WWW-Authenticate"]


def test_a_scope_that_the_owner_lacks_is_refused_at_creation(client: Client) -> None:
    answer = post(client, URL, {"name": "robot", "scopes": ["svc_rbac.add_role"]})

    assert answer.status_code == 403
    assert answer.json()["permission"] == "svc_rbac.add_role"
    assert answer.json()["errors"][0]["pointer"] == "/body/scopes/0"


def test_a_right_that_the_owner_loses_is_lost_to_the_key_at_once(user: Any, permit: Any) -> None:
    user = permit(user, "view_role")
    _, secret = issue_key(owner=user, name="robot", scopes=["svc_rbac.view_role"])
    robot = Client(headers={"X-API-Key": secret})
    assert robot.get("/api/rbac/roles").status_code == 200

    user.user_permissions.clear()

    refused = robot.get("/api/rbac/roles")
    assert (refused.status_code, refused.json()["permission"]) == (403, "svc_rbac.view_role")


def test_a_key_cannot_do_what_its_scopes_leave_out(user: Any, permit: Any) -> None:
    user = permit(user, "view_role", "view_assignment")
    _, secret = issue_key(owner=user, name="robot", scopes=["svc_rbac.view_assignment"])
    robot = Client(headers={"X-API-Key": secret})

    assert robot.get("/api/rbac/assignments").status_code == 200
    assert robot.get("/api/rbac/roles").status_code == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("get", ""),
        ("post", ""),
        ("get", "/{}"),
        ("patch", "/{}"),
        ("get", "/{}/usage"),
        ("post", "/{}/rotate"),
        ("post", "/{}/revoke"),
    ],
)
def test_strangers_find_every_door_shut(db: None, method: str, path: str) -> None:
    answer = getattr(Client(), method)(URL + path.format(uuid4()), content_type="application/json")

    assert (answer.status_code, answer["Content-Type"]) == (401, "application/problem+json")


def test_a_key_manages_no_keys_and_no_roles(make_user: Any) -> None:
    key, secret = issue_key(owner=make_user("root", is_superuser=True), name="robot")
    robot = Client(headers={"X-API-Key": secret})

    for answer in (
        robot.get(URL),
        robot.get(f"{URL}/{key.pk}"),
        post(robot, URL, {"name": "child"}),
        post(robot, f"{URL}/{key.pk}/rotate", {}),
        post(robot, f"{URL}/{key.pk}/revoke", {}),
        robot.patch(f"{URL}/{key.pk}", {"rate": ""}, content_type="application/json"),
        robot.get(f"{URL}/{key.pk}/usage"),
        post(robot, "/api/rbac/roles", {"name": "boss", "permissions": ["*"]}),
    ):
        assert answer.status_code == 403, answer.content
    assert list(ApiKey.objects.values_list("pk", "revoked_at")) == [(key.pk, None)]


def test_keys_of_others_are_not_there(client: Client, stranger: Any) -> None:
    key, secret = issue_key(owner=stranger, name="theirs")

    assert client.get(URL).json()["items"] == []
    for answer in (
        client.get(f"{URL}/{key.pk}"),
        post(client, f"{URL}/{key.pk}/rotate", {}),
        post(client, f"{URL}/{key.pk}/revoke", {}),
        client.patch(f"{URL}/{key.pk}", {"name": "mine"}, content_type="application/json"),
        client.get(f"{URL}/{key.pk}/usage"),
        client.get(f"{URL}/{uuid4()}"),
    ):
        assert answer.status_code == 404
    verify_key(secret)


def test_the_tenant_comes_from_the_key_and_from_no_header(make_user: Any, user: Any) -> None:
    _, secret = issue_key(owner=make_user("root", is_superuser=True), name="robot", tenant="acme")
    issue_key(owner=user, name="other", tenant="victim-corp")
    robot = Client(headers={"X-API-Key": secret, "X-Tenant-Id": "victim-corp"})

    asked = robot.get("/api/rbac/check?permission=a.b&tenant=victim-corp")
    assert asked.status_code == 200
    assert robot.get("/api/rbac/assignments").json()["items"] == []


def test_a_tenant_header_of_an_anonymous_caller_opens_nothing(db: None) -> None:
    assert Client(headers={"X-Tenant-Id": "victim-corp"}).get(URL).status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        "x",
        "svc_sk_live_" + "A" * 38,
        "é" * 50,
        "A" * 5000,
        "a,b",
        "\udcff",
        pytest.param(new_key(brand="svc", environment="live")[0], id="nobody's key"),
    ],
)
def test_a_bad_key_is_a_401_even_beside_a_good_session(client: Client, header: str) -> None:
    answer = client.get(URL, headers={"X-API-Key": header})

    assert answer.status_code == 401
    assert answer.json()["detail"] == "This API key is not valid."


def test_two_keys_in_one_request_are_none(user: Any) -> None:
    one, other = (issue_key(owner=user, name=name)[1] for name in ("one", "other"))

    assert (
        Client().get("/api/rbac/check?permission=a.b", headers={"X-API-Key": f"{one},{other}"}).status_code
        == 401
    )


def test_a_key_is_taken_from_the_header_only(user: Any) -> None:
    _, secret = issue_key(owner=user, name="robot")

    client = Client()
    client.cookies["X-API-Key"] = secret
    assert client.get(f"/api/rbac/check?permission=a.b&api_key={secret}&X-API-Key={secret}").status_code in (
        401,
        422,
    )


def test_made_up_keys_are_never_a_new_identity(db: None) -> None:
    for _ in range(30):
        made_up = new_key(brand="svc", environment="live")[0]
        assert Client().get(URL, headers={"X-API-Key": made_up}).status_code == 401


def test_rotation_over_http(client: Client, user: Any) -> None:
    key, old = issue_key(owner=user, name="robot")

    answer = post(client, f"{URL}/{key.pk}/rotate", {"grace_seconds": 10**6})

    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    verify_key(old)
    assert str(verify_key(answer.json()["key"]).pk) == answer.json()["api_key"]["id"]
    shown = client.get(f"{URL}/{key.pk}").json()
    assert (shown["state"], shown["successor_id"]) == ("rotated", answer.json()["api_key"]["id"])
    assert post(client, f"{URL}/{key.pk}/rotate", {}).status_code == 409


def test_revoking_twice_is_a_conflict(client: Client, user: Any) -> None:
    key = revoke_key(issue_key(owner=user, name="robot")[0])

    assert post(client, f"{URL}/{key.pk}/revoke", {}).json()["code"] == "apikeys.already_revoked"


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/body/name"),
        ({"name": ""}, "/body/name"),
        ({"name": None}, "/body/name"),
        ({"name": "x" * 1_000_000}, "/body/name"),
        ({"name": "a\0b"}, "/body/name"),
        ({"name": ["a"]}, "/body/name"),
        ({"name": "a", "owner": 1}, "/body/owner"),
        ({"name": "a", "tenant": "victim-corp"}, "/body/tenant"),
        ({"name": "a", "scopes": "a.b"}, "/body/scopes"),
        ({"name": "a", "scopes": ["a.b", 7]}, "/body/scopes/1"),
        ({"name": "a", "scopes": ["a.b", "a b"]}, "/body/scopes/1"),
        ({"name": "a", "scopes": ["a.b\n"]}, "/body/scopes/0"),
        ({"name": "a", "scopes": ["a.b"] * 101}, "/body/scopes"),
        ({"name": "a", "expires_at": "soon"}, "/body/expires_at"),
        ({"name": "a", "expires_at": "2199-01-01T00:00:00"}, "/body/expires_at"),
        ({"name": "a", "expires_at": "9999-12-31T23:59:59-12:00"}, "/body/expires_at"),
        ({"name": "a", "expires_at": "0001-01-01T00:00:00+12:00"}, "/body/expires_at"),
        ({"name": "a", "expires_at": 10**30}, "/body/expires_at"),
    ],
)
def test_bad_bodies_are_a_422_that_points_at_the_field(client: Client, body: Any, pointer: str) -> None:
    answer = post(client, URL, body)

    assert answer.status_code == 422, answer.content
    assert pointer in [problem["pointer"] for problem in answer.json()["errors"]]
    assert not ApiKey.objects.exists()


@pytest.mark.parametrize("grace", [-1, "soon", 10**30, 1.5, [], {}])
def test_bad_graces_are_a_422(client: Client, issued: Any, grace: Any) -> None:
    answer = post(client, f"{URL}/{issued[0].pk}/rotate", {"grace_seconds": grace})

    assert answer.status_code == 422


def test_listing_fifty_keys_takes_as_many_queries_as_listing_one(client: Client, user: Any) -> None:
    issue_key(owner=user, name="robot")
    client.get(URL)
    with CaptureQueriesContext(connection) as one:
        assert len(client.get(URL).json()["items"]) == 1
    for number in range(49):
        issue_key(owner=user, name=f"robot {number}")

    with CaptureQueriesContext(connection) as fifty:
        assert len(client.get(URL).json()["items"]) == 50

    assert len(fifty) == len(one)


def test_pages_follow_one_another(client: Client, user: Any) -> None:
    for number in range(5):
        issue_key(owner=user, name=f"robot {number}", now=timezone.now() - timedelta(number))

    first = client.get(URL, {"limit": 3}).json()
    second = client.get(URL, {"limit": 3, "cursor": first["next_cursor"]}).json()

    assert [key["name"] for key in first["items"] + second["items"]] == [f"robot {n}" for n in range(5)]
    assert second["next_cursor"] is None
    assert client.get(URL, {"cursor": "nonsense"}).json()["errors"][0]["pointer"] == "/query/cursor"


def test_a_call_with_a_key_costs_one_query_more_than_the_work(
    user: Any, django_assert_num_queries: Any
) -> None:
    _, secret = issue_key(owner=user, name="robot", scopes=[])
    robot = Client(headers={"X-API-Key": secret})
    url = "/api/rbac/check?permission=a.b"
    robot.get(url)

    with django_assert_num_queries(1):
        assert robot.get(url).json()["allowed"] is False


def test_networks_and_limits_are_given_changed_and_shown(client: Client, user: Any) -> None:
    limits = {"allowed_networks": ["192.0.2.0/24"], "rate": "9/minute", "quota": "90/day"}
    created = post(client, URL, {"name": "robot", **limits}).json()["api_key"]
    assert {name: created[name] for name in limits} == limits

    url = f"{URL}/{created['id']}"
    changed = client.patch(url, {"name": "android", "rate": "1/minute"}, content_type="application/json")

    assert changed.status_code == 200
    assert client.get(url).json() == changed.json()
    assert {name: changed.json()[name] for name in ("name", "rate", "quota")} == {
        "name": "android",
        "rate": "1/minute",
        "quota": "90/day",
    }
    looser = client.patch(url, {"rate": "", "quota": "91/day"}, content_type="application/json")
    assert (looser.status_code, looser.json()["code"]) == (403, "apikeys.limit_loosened")
    assert [problem["pointer"] for problem in looser.json()["errors"]] == ["/body/rate", "/body/quota"]
    assert client.patch(url, {}, content_type="application/json").json() == changed.json()


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"allowed_networks": ["10.0.0.1/8"]}, "/body/allowed_networks/0"),
        ({"allowed_networks": ["10.0.0.0/8", "here"]}, "/body/allowed_networks/1"),
        ({"allowed_networks": "10.0.0.0/8"}, "/body/allowed_networks"),
        ({"allowed_networks": ["10.0.0.0/8"] * 51}, "/body/allowed_networks"),
        ({"allowed_networks": ["1" * 1_000_000]}, "/body/allowed_networks/0"),
        ({"rate": "often"}, "/body/rate"),
        ({"rate": "0/minute"}, "/body/rate"),
        ({"rate": 5}, "/body/rate"),
        ({"rate": "5/minute\n"}, "/body/rate"),
        ({"quota": "1/week"}, "/body/quota"),
        ({"quota": "9" * 30 + "/day"}, "/body/quota"),
        ({"scopes": ["*"]}, "/body/scopes"),
        ({"owner": 1}, "/body/owner"),
        ({"expires_at": None}, "/body/expires_at"),
    ],
)
def test_bad_changes_are_a_422_that_points_at_the_field(
    client: Client, issued: Any, body: Any, pointer: str
) -> None:
    answer = client.patch(f"{URL}/{issued[0].pk}", body, content_type="application/json")

    assert answer.status_code == 422, answer.content
    assert pointer in [problem["pointer"] for problem in answer.json()["errors"]]


def test_a_key_that_is_over_cannot_be_changed(client: Client, issued: Any) -> None:
    revoke_key(issued[0])

    answer = client.patch(f"{URL}/{issued[0].pk}", {"name": "x"}, content_type="application/json")

    assert (answer.status_code, answer.json()["code"]) == (409, "apikeys.not_usable")


def test_the_hours_of_a_key_are_shown(client: Client, issued: Any) -> None:
    now = timezone.now()
    for days in (0, 1, 8):
        UsageHour.objects.create(key=issued[0], hour=now - timedelta(days), used=days + 1, refused=days)

    week = client.get(f"{URL}/{issued[0].pk}/usage").json()

    assert (week["used"], week["refused"]) == (3, 1)
    assert [hour["used"] for hour in week["hours"]] == [2, 1]
    assert client.get(f"{URL}/{issued[0].pk}/usage", {"days": 30}).json()["used"] == 12
    assert client.get(f"{URL}/{issued[0].pk}/usage", {"days": 91}).status_code == 422


def test_rule_57_a_key_is_taken_from_its_networks_by_the_real_peer(user: Any, svc_settings: Any) -> None:
    _, secret = issue_key(owner=user, name="robot", allowed_networks=["192.0.2.0/24"])
    url = "/api/rbac/check?permission=a.b"
    robot = Client(headers={"X-API-Key": secret})
    forged = {"X-Forwarded-For": "192.0.2.1"}

    assert robot.get(url, REMOTE_ADDR="192.0.2.1").status_code == 200
    assert robot.get(url, REMOTE_ADDR="::ffff:192.0.2.1").status_code == 200
    refused = robot.get(url, REMOTE_ADDR="198.51.100.1", headers=forged)
    assert (refused.status_code, refused.json()["code"]) == (403, "apikeys.address_not_allowed")
    svc_settings(observability={"trusted_proxies": ["198.51.100.0/24"]})
    assert robot.get(url, REMOTE_ADDR="198.51.100.1", headers=forged).status_code == 200


def test_a_key_that_is_used_too_often_is_told_when_to_come_again(user: Any) -> None:
    _, secret = issue_key(owner=user, name="robot", rate="2/hour")
    url = "/api/rbac/check?permission=a.b"
    robot = Client(headers={"X-API-Key": secret})

    answers = [robot.get(url) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert (answers[2].json()["code"], answers[2].json()["limit"]) == ("apikeys.rate_exceeded", "2/hour")
    assert 1700 < int(answers[2]["Retry-After"]) <= 1800
