"""The rules of security that concern keys, by number; some of 55, 57 and 58 are beside their parts."""

from __future__ import annotations

import json
import logging
from math import log2
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.apps import apps
from django.db import models
from django.test import Client
from rest_framework.request import Request

from svc_infra_django.api import get_current_user
from svc_infra_django.apikeys import change_key, issue_key, revoke_key, rotate_key, verify_key
from svc_infra_django.apikeys.errors import InvalidKey, KeysCannotManageKeys, ScopeNotHeld
from svc_infra_django.apikeys.hashing import ALPHABET, SECRET_LENGTH, checksum, new_key, parse_key
from svc_infra_django.apikeys.models import ApiKey, AuditEntry
from svc_infra_django.apikeys.recorder import recorder
from svc_infra_django.contrib.drf import PrincipalAuthentication
from svc_infra_django.principals import Principal
from svc_infra_django.rbac.models import Role

URL = "/api/api-keys"
CHECK = "/api/rbac/check?permission=a.b"


def test_rule_53_a_key_has_190_random_bits_behind_kind_and_environment() -> None:
    text, parts = new_key(brand="svc", environment="test")

    assert SECRET_LENGTH * log2(len(ALPHABET)) >= 190
    assert text.startswith("svc_sk_test_")
    assert (parts.kind, parts.environment) == ("sk", "test")


def test_rule_53_what_is_malformed_is_refused_without_a_query(
    db: None, client: Client, django_assert_num_queries: Any
) -> None:
    good, _ = new_key(brand="svc", environment="live")
    other = "svc_sk_test_" + good[12:-6]
    mistyped = good[:-1] + ("1" if good.endswith("0") else "0")
    for text in (mistyped, good[:-1], good.replace("sk", "xx"), other + checksum(other), "x" * 5000):
        with django_assert_num_queries(0):
            assert client.get(CHECK, headers={"X-API-Key": text}).status_code == 401
    assert parse_key(good[:-6] + checksum(good[:-6])) is not None


def test_rule_54_the_key_is_in_no_column_of_any_table_and_in_no_log(
    make_user: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    root = make_user("root", is_staff=True, is_superuser=True)
    client = Client()
    client.force_login(root)
    secret = client.post(URL, {"name": "robot"}, content_type="application/json").json()["key"]
    robot = Client(headers={"X-API-Key": secret})
    assert robot.get(CHECK).status_code == 200
    key = ApiKey.objects.get()
    change_key(key, name="android", actor=root)
    _, successor = rotate_key(key, actor=root)
    revoke_key(key, actor=root)
    assert robot.get(CHECK).status_code == 401
    recorder.flush()

    for text in (secret, successor):
        body = text[12:-4]
        for model in apps.get_models():
            assert not [row for row in model._default_manager.values() if body in repr(row)], model
        assert body not in "".join(repr(vars(record)) for record in caplog.records)
        for path in (URL, "/admin/svc_apikeys/apikey/", "/admin/svc_apikeys/auditentry/"):
            assert body not in client.get(path).content.decode()
    columns = [field for field in ApiKey._meta.fields if isinstance(field, models.BinaryField)]
    assert [field.name for field in columns] == ["digest"]


@pytest.mark.parametrize("over", ["revoked", "expired", "rotated out", "owner disabled", "deleted"])
def test_rule_55_what_is_over_is_refused_at_once_by_who_asks_the_database(user: Any, over: str) -> None:
    key, secret = issue_key(owner=user, name="robot")
    verify_key(secret)
    match over:
        case "revoked":
            revoke_key(key)
        case "expired":
            ApiKey.objects.update(expires_at=key.created_at)
        case "rotated out":
            rotate_key(key, grace=key.created_at - key.created_at)
        case "owner disabled":
            type(user).objects.update(is_active=False)
        case "deleted":
            key.delete()

    for _ in range(3):
        with pytest.raises(InvalidKey):
            verify_key(secret)


def test_rule_56_scopes_are_within_the_owners_rights_when_made_and_when_used(user: Any, permit: Any) -> None:
    with pytest.raises(ScopeNotHeld):
        issue_key(owner=user, name="robot", scopes=["svc_rbac.view_role"])
    user = permit(user, "view_role", "add_role")
    _, secret = issue_key(owner=user, name="robot", scopes=["svc_rbac.view_role"])
    robot = Client(headers={"X-API-Key": secret})
    assert robot.get("/api/rbac/roles").status_code == 200

    user.user_permissions.clear()

    assert robot.get("/api/rbac/roles").status_code == 403


def test_rule_56_a_key_may_not_what_only_its_owner_may(make_user: Any, permit: Any) -> None:
    owners = [permit(make_user("ada"), "view_role", "view_assignment"), make_user("root", is_superuser=True)]
    for owner in owners:
        _, secret = issue_key(owner=owner, name="robot", scopes=["svc_rbac.view_role"])
        robot = Client(headers={"X-API-Key": secret})

        assert owner.has_perm("svc_rbac.view_assignment")
        assert robot.get("/api/rbac/roles").status_code == 200
        refused = robot.get("/api/rbac/assignments")
        assert (refused.status_code, refused.json()["permission"]) == (403, "svc_rbac.view_assignment")


def user_of_rest_framework(request: Any) -> Any:
    return Request(request, authenticators=[PrincipalAuthentication()]).user


@pytest.mark.parametrize("ask", [get_current_user, user_of_rest_framework])
def test_rule_56_scopes_bind_the_user_of_the_request_too(make_user: Any, rf: Any, ask: Any) -> None:
    root = make_user("root", is_superuser=True, is_staff=True)
    _, secret = issue_key(owner=root, name="robot", scopes=["svc_rbac.view_role", "auth.*"])
    user = ask(rf.get("/", headers={"X-API-Key": secret}))

    assert (user, user.pk, user.is_active, user.is_authenticated) == (root, root.pk, True, True)
    assert isinstance(user, type(root)) and user.get_username() == "root"
    assert not user.is_staff and not user.is_superuser
    assert user.has_perm("svc_rbac.view_role") and user.has_perms(["svc_rbac.view_role", "auth.view_user"])
    assert not user.has_perm("svc_rbac.add_role")
    assert not user.has_perms(["svc_rbac.view_role", "svc_rbac.add_role"])
    assert user.has_module_perms("auth") and not user.has_module_perms("svc_webhooks")
    assert {each.partition(".")[0] for each in user.get_all_permissions()} == {"svc_rbac", "auth"}
    assert async_to_sync(user.ahas_perm)("auth.view_user")
    assert not async_to_sync(user.ahas_perm)("svc_rbac.add_role")
    made = Role.objects.create(name="made by a key", owner=user)
    assert Role.objects.get(owner=user) == made and made.owner.pk == root.pk

    _, whole = issue_key(owner=root, name="all of it")
    assert ask(rf.get("/", headers={"X-API-Key": whole})).is_superuser


def test_rule_56_a_key_manages_no_keys_passwords_factors_or_roles(make_user: Any) -> None:
    key, secret = issue_key(owner=make_user("root", is_superuser=True), name="robot")
    robot = Client(headers={"X-API-Key": secret})
    document = robot.get("/api/openapi.json").json()

    del document["paths"]["/api/auth/introspect"]  # it answers a question, though by POST (RFC 7662)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/api/api-keys") or (
                path.startswith(("/api/auth", "/api/rbac")) and method != "get"
            ):
                is_public = "security" not in operation
                told = "Not with an API key." in operation.get("description", "")
                assert is_public or told, f"{method} {path}"
    with pytest.raises(KeysCannotManageKeys):
        change_key(key, name="x", actor=Principal(key.owner, "api_key"))


def test_rule_59_every_operation_on_keys_wants_somebody(db: None) -> None:
    document = Client().get("/api/openapi.json").json()
    operations = [
        operation
        for path, methods in document["paths"].items()
        if path.startswith(URL)
        for operation in methods.values()
    ]

    assert len(operations) == 7
    assert all(operation["security"] for operation in operations)


@pytest.mark.parametrize(
    "field",
    [
        "owner",
        "owner_id",
        "tenant",
        "environment",
        "digest",
        "revoked_at",
        "is_staff",
        "is_superuser",
        "roles",
    ],
)
def test_rule_60_no_field_of_a_key_sets_who_it_is_or_where(user: Any, field: str) -> None:
    client = Client()
    client.force_login(user)
    key, _ = issue_key(owner=user, name="robot")

    for answer in (
        client.post(URL, {"name": "x", field: "7"}, content_type="application/json"),
        client.patch(f"{URL}/{key.pk}", {field: "7"}, content_type="application/json"),
        client.post(f"{URL}/{key.pk}/rotate", {field: "7"}, content_type="application/json"),
    ):
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == f"/body/{field}"


def test_rule_61_keys_of_others_and_of_other_tenants_are_not_there(user: Any, stranger: Any) -> None:
    client = Client()
    client.force_login(user)
    keys = [issue_key(owner=stranger, name="theirs")[0], issue_key(owner=user, name="far", tenant="acme")[0]]

    assert client.get(URL).json()["items"] == []
    for key in keys:
        for method, path, body in (
            ("get", "", None),
            ("get", "/usage", None),
            ("patch", "", {"name": "mine"}),
            ("post", "/rotate", {}),
            ("post", "/revoke", {}),
        ):
            answer = client.generic(
                method.upper(), f"{URL}/{key.pk}{path}", json.dumps(body), content_type="application/json"
            )
            assert answer.status_code == 404, f"{method} {path}"
    assert not ApiKey.objects.exclude(name__in=["theirs", "far"], revoked_at=None).exists()


@pytest.mark.parametrize(
    ("offered", "is_kept"),
    [
        ("request-1234", True),
        ("short", False),
        ("a" * 129, False),
        ("a b c d e f g", False),
        ("line\r\nbreak: 1", False),
        ("null\x00byte", False),
    ],
)
def test_rule_64_only_a_harmless_request_id_gets_into_the_audit_log(
    user: Any, offered: str, is_kept: bool
) -> None:
    client = Client()
    client.force_login(user)
    client.post(URL, {"name": "robot"}, content_type="application/json", HTTP_X_REQUEST_ID=offered)

    assert (AuditEntry.objects.get().request_id == offered) is is_kept
    assert AuditEntry.objects.get().request_id
