"""Deny by default: whatever may be called without a caller, or by any caller, is written down here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from uuid import uuid4

import pytest
from django.conf import settings
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from svc_infra_django.accounts import issue_tokens
from svc_infra_django.apikeys import issue_key
from tests.urls import api

Operation = tuple[str, str]

PUBLIC = {
    ("GET", "/api/auth/csrf"),
    ("POST", "/api/auth/login"),
    ("POST", "/api/auth/signup"),
    ("POST", "/api/auth/refresh"),
    ("POST", "/api/auth/revoke"),
    ("POST", "/api/auth/mfa/verify"),
    ("POST", "/api/auth/mfa/enrol"),
    ("POST", "/api/auth/mfa/email/send"),
    ("GET", "/api/oauth/providers"),
    ("GET", "/api/oauth/authorize"),
    ("GET", "/api/oauth/callback"),
    ("POST", "/api/oauth/exchange"),
    ("POST", "/api/auth/mfa/enrol/confirm"),
    ("POST", "/api/auth/email/verify"),
    ("POST", "/api/auth/password/reset"),
    ("POST", "/api/auth/password/reset/confirm"),
}
"""Nobody has to be signed in: these are the ways to become somebody."""

OF_ONES_OWN = {
    ("GET", "/api/auth/me"),
    ("PATCH", "/api/auth/me"),
    ("POST", "/api/auth/email/change"),
    ("POST", "/api/auth/email/change/confirm"),
    ("GET", "/api/auth/sessions"),
    ("DELETE", "/api/auth/sessions/{session_id}"),
    ("POST", "/api/auth/logout"),
    ("POST", "/api/auth/logout-all"),
    ("POST", "/api/auth/password/change"),
    ("GET", "/api/auth/mfa/devices"),
    ("DELETE", "/api/auth/mfa/devices/{device_id}"),
    ("POST", "/api/oauth/connect"),
    ("GET", "/api/oauth/accounts"),
    ("DELETE", "/api/oauth/accounts/{account}"),
    ("POST", "/api/auth/step-up"),
    ("POST", "/api/auth/mfa/totp"),
    ("POST", "/api/auth/mfa/email"),
    ("POST", "/api/auth/mfa/email/confirm"),
    ("POST", "/api/auth/mfa/email/code"),
    ("POST", "/api/auth/mfa/totp/confirm"),
    ("POST", "/api/auth/mfa/recovery-codes"),
    ("POST", "/api/auth/mfa/disable"),
    ("GET", "/api/api-keys"),
    ("POST", "/api/api-keys"),
    ("GET", "/api/api-keys/{key_id}"),
    ("PATCH", "/api/api-keys/{key_id}"),
    ("GET", "/api/api-keys/{key_id}/usage"),
    ("POST", "/api/api-keys/{key_id}/rotate"),
    ("POST", "/api/api-keys/{key_id}/revoke"),
    ("GET", "/api/rbac/check"),
    ("GET", "/api/rbac/explain"),
    ("GET", "/api/webhooks/event-types"),
    ("GET", "/api/webhooks/event-types/openapi"),
    ("GET", "/api/webhooks/event-types/{name}/versions"),
    ("GET", "/api/webhooks/event-types/{name}"),
    ("GET", "/api/webhooks/endpoints"),
    ("POST", "/api/webhooks/endpoints"),
    ("GET", "/api/webhooks/endpoints/{endpoint_id}"),
    ("PATCH", "/api/webhooks/endpoints/{endpoint_id}"),
    ("DELETE", "/api/webhooks/endpoints/{endpoint_id}"),
    ("POST", "/api/webhooks/endpoints/{endpoint_id}/rotate-secret"),
    ("GET", "/api/webhooks/endpoints/{endpoint_id}/keys"),
    ("POST", "/api/webhooks/endpoints/{endpoint_id}/sign-publicly"),
    ("GET", "/api/webhooks/endpoints/{endpoint_id}/health"),
    ("POST", "/api/webhooks/endpoints/{endpoint_id}/pause"),
    ("POST", "/api/webhooks/endpoints/{endpoint_id}/enable"),
    ("POST", "/api/webhooks/endpoints/{endpoint_id}/disable"),
    ("POST", "/api/webhooks/endpoints/{endpoint_id}/test"),
    ("POST", "/api/webhooks/endpoints/{endpoint_id}/replay"),
    ("GET", "/api/webhooks/messages"),
    ("GET", "/api/webhooks/messages/{message_id}"),
    ("GET", "/api/webhooks/deliveries"),
    ("GET", "/api/webhooks/deliveries/{delivery_id}"),
    ("POST", "/api/webhooks/deliveries/{delivery_id}/replay"),
    ("GET", "/api/webhooks/deliveries/{delivery_id}/attempts"),
    ("POST", "/api/webhooks/messages/{message_id}/expunge"),
    ("POST", "/api/webhooks/replays/count"),
    ("POST", "/api/webhooks/replays"),
    ("GET", "/api/webhooks/replays"),
    ("GET", "/api/webhooks/replays/{replay_id}"),
    ("POST", "/api/webhooks/replays/{replay_id}/cancel"),
}
"""Every user may, without any permission, and reaches nothing but what is theirs."""

OF_ALL_TENANTS = ("/api/jobs", "/api/inbound")
"""Of these there is one for all tenants, so no credential of a tenant may see or change them."""

OF_A_KEY = {
    ("GET", "/api/auth/me"),
    ("GET", "/api/rbac/check"),
    ("GET", "/api/rbac/explain"),
    ("GET", "/api/webhooks/event-types"),
    ("GET", "/api/webhooks/event-types/openapi"),
    ("GET", "/api/webhooks/event-types/{name}/versions"),
    ("GET", "/api/webhooks/event-types/{name}"),
}
"""A key without any scope may."""

BODIES = {
    "/api/api-keys": {"name": "mine"},
    "/api/auth/mfa/disable": {"code": "000000"},
    "/api/auth/mfa/totp/confirm": {"code": "000000"},
    "/api/auth/mfa/email/confirm": {"code": "00000000"},
    "/api/auth/email/change": {"email": "next@example.com"},
    "/api/auth/email/change/confirm": {"key": "x"},
    "/api/auth/password/change": {"current_password": "wrong", "password": "another long enough one 8"},
    "/api/jobs/schedules": {"key": "mine", "task": "tests.jobs.work.hourly", "every_seconds": 60},
    "/api/oauth/connect": {"provider": "corp"},
    "/api/rbac/assignments": {"role": str(uuid4()), "user": "1"},
    "/api/rbac/roles": {"name": "clerk", "permissions": []},
    "/api/webhooks/endpoints": {"url": "https://receiver.example/hook"},
    "/api/webhooks/messages/batch": {"messages": [{"event_type": "order.placed", "data": {}}]},
    "/api/webhooks/messages": {"event_type": "tests.done", "data": {}},
}
"""The guard has its say after the body was read, so it needs a good one."""

FORMS = {"/api/auth/introspect": "token=x"}
"""The same for operations that read a form."""

VIEWS = {"healthz", "readyz", "startupz", "metrics", "jwks"}
"""Plain Django views outside of the admin."""


def operations() -> Iterator[Operation]:
    for path, methods in api.get_openapi_schema()["paths"].items():
        for method in methods:
            yield method.upper(), path


OPERATIONS = sorted(operations())

once = pytest.mark.sqlite  # guards are asked before any database, and answer the same beside all


@pytest.fixture
def call(db, settings):
    # Cookies that other tests left, or throttles that count, would answer for the guard.
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

    def send(operation: Operation, client: Client, **headers: str) -> int:
        method, path = operation
        path = re.sub(r"\{\w+_id\}", lambda _: str(uuid4()), path).replace("{name}", "default")
        path = path.replace("{account}", "1")
        form = FORMS.get(operation[1])
        body = json.dumps(BODIES.get(operation[1], {})) if form is None else form
        kind = "application/json" if form is None else "application/x-www-form-urlencoded"
        return client.generic(method, path, body, kind, headers=headers).status_code

    return send


def test_the_lists_name_what_is_there() -> None:
    assert set(OPERATIONS) >= PUBLIC | OF_ONES_OWN | OF_A_KEY
    assert not PUBLIC & OF_ONES_OWN
    assert len(OPERATIONS) > len(PUBLIC | OF_ONES_OWN)


def test_no_path_of_the_api_is_left_out_of_its_document() -> None:
    own = {"openapi-json", "openapi-view", "api-root"}
    routes = {f"/api/{pattern.pattern}" for pattern in api.urls[0] if pattern.name not in own}

    assert {re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", route) for route in routes} == {
        path for _, path in OPERATIONS
    }


@once
@pytest.mark.parametrize("operation", OPERATIONS, ids="-".join)
def test_rule_59_nobody_gets_in_unless_it_is_public(call, operation) -> None:
    status = call(operation, Client())

    assert (status == 401) is (operation not in PUBLIC), f"anonymous: {status}"
    assert status < 500


@once
@pytest.mark.parametrize("operation", OPERATIONS, ids="-".join)
def test_rule_59_a_user_without_permissions_reaches_their_own_only(call, operation, user) -> None:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")

    status = call(operation, client)

    assert status < 500
    if operation not in PUBLIC:
        assert (status == 403) is (operation not in OF_ONES_OWN), f"a plain user: {status}"


@once
@pytest.mark.parametrize("operation", OPERATIONS, ids="-".join)
def test_rule_59_a_key_without_scopes_reaches_nothing(call, operation, make_user) -> None:
    root = make_user("root", is_superuser=True, is_staff=True)
    _, key = issue_key(owner=root, name="no scopes", scopes=[])

    status = call(operation, Client(), **{"X-API-Key": key})

    assert status < 500
    if operation not in PUBLIC:
        assert (status == 403) is (operation not in OF_A_KEY), f"a key: {status}"


def test_rule_61_what_all_tenants_share_is_not_reached_from_one(call, make_user) -> None:
    root = make_user("root", is_superuser=True, is_staff=True)
    token = issue_tokens(root, amr=("pwd", "otp", "mfa"), tenant="acme").access_token
    behind_a_permission = [each for each in OPERATIONS if each not in PUBLIC | OF_ONES_OWN]

    statuses = {each: call(each, Client(), Authorization=f"Bearer {token}") for each in behind_a_permission}

    refused = {each for each, status in statuses.items() if status == 403}
    assert refused == {each for each in behind_a_permission if each[1].startswith(OF_ALL_TENANTS)}
    assert refused


def patterns(resolver: URLResolver) -> Iterator[URLPattern]:
    for each in resolver.url_patterns:
        if isinstance(each, URLPattern):
            yield each
        elif each.app_name not in ("admin", "ninja"):
            yield from patterns(each)


def test_rule_59_no_view_stands_beside_the_admin_and_the_api_unseen() -> None:
    beside = {pattern.name for pattern in patterns(get_resolver(settings.ROOT_URLCONF))}

    assert beside == VIEWS
