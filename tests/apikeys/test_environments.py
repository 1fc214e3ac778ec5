from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.http import HttpRequest
from django.test import Client
from django.urls import path

from svc_infra_django.api import WithTestKeys, create_api, get_current_user
from svc_infra_django.api.authentication import LiveKeysOnly
from svc_infra_django.apikeys import issue_key, rotate_key, verify_key
from svc_infra_django.apikeys.errors import InvalidKey, ScopeNotHeld
from svc_infra_django.apikeys.models import ApiKey
from svc_infra_django.contrib.drf.authentication import PrincipalAuthentication
from svc_infra_django.errors import ValidationError
from svc_infra_django.principals import Principal, tenant_of_tests
from svc_infra_django.rbac import define_role, grant, list_objects
from svc_infra_django.rbac.models import Role
from svc_infra_django.rbac.services.explaining import explain

pytestmark = pytest.mark.django_db


@pytest.fixture
def both(svc_settings: Callable[..., None]) -> None:
    svc_settings(apikeys={"test_keys": True})


api = create_api(urls_namespace="environments")


@api.get("/live")
def live(request: Any) -> str:
    return str(request.principal.tenant)


@api.get("/both", auth=WithTestKeys())
def either(request: Any) -> str:
    return str(request.principal.tenant)


urlpatterns = [path("service/", api.urls)]


def call(place: str, secret: str) -> Any:
    return Client().get(f"/service{place}", headers={"X-API-Key": secret})


def test_without_the_setting_there_are_no_test_keys(user: Any, svc_settings: Any) -> None:
    with pytest.raises(ValidationError):
        issue_key(owner=user, name="robot", environment="test")
    svc_settings(apikeys={"test_keys": True})
    _, secret = issue_key(owner=user, name="robot", environment="test")
    assert secret.startswith("svc_sk_test_")

    svc_settings(apikeys={"test_keys": False})

    with pytest.raises(InvalidKey):
        verify_key(secret)


def test_both_are_accepted_and_a_successor_is_of_the_same(both: None, user: Any) -> None:
    _, of_live = issue_key(owner=user, name="robot")
    tests, of_tests = issue_key(owner=user, name="robot", environment="test")
    _, of_successor = rotate_key(tests)

    assert of_live.startswith("svc_sk_live_")
    assert of_successor.startswith("svc_sk_test_")
    assert [verify_key(each).environment for each in (of_live, of_tests)] == ["live", "test"]


@pytest.mark.urls(__name__)
def test_an_operation_that_does_not_declare_test_keys_refuses_them(both: None, user: Any) -> None:
    _, of_live = issue_key(owner=user, name="robot", tenant="acme")
    _, of_tests = issue_key(owner=user, name="robot", tenant="acme", environment="test")

    assert call("/live", of_live).json() == call("/both", of_live).json() == "acme"
    refused = call("/live", of_tests)
    assert (refused.status_code, refused.json()["code"]) == (403, "test_key_refused")
    assert call("/both", of_tests).json() == "test:acme"


def test_nor_does_any_other_door_take_them(both: None, user: Any) -> None:
    request = HttpRequest()
    request.META["HTTP_X_API_KEY"] = issue_key(owner=user, name="robot", environment="test")[1]

    with pytest.raises(LiveKeysOnly):
        get_current_user(request)
    with pytest.raises(LiveKeysOnly):
        PrincipalAuthentication().authenticate(type("Wrapped", (), {"_request": request})())  # type: ignore[arg-type]


def test_a_test_key_reaches_rows_of_its_tests_only(both: None, user: Any) -> None:
    grant(user, define_role("reader", ["svc_rbac.*", "auth.*"]))
    rows = {
        tenant: Role.objects.create(name="r", tenant=tenant) for tenant in ("", "acme", "test:acme", "test:")
    }
    group = Group.objects.create(name="without a tenant")
    principal = Principal(user, "api_key", tenant=tenant_of_tests("acme"))

    assert principal.is_test
    assert principal.can("svc_rbac.view_role")
    assert [tenant for tenant, row in rows.items() if principal.can("svc_rbac.view_role", row)] == [
        "test:acme"
    ]
    named = Role.objects.filter(name="r")
    assert list(list_objects(principal, "svc_rbac.view_role", named)) == [rows["test:acme"]]
    assert not principal.can("auth.view_group", group)
    assert not list_objects(principal, "auth.view_group", Group.objects.all()).exists()
    for row in (*rows.values(), group):
        permission = "auth.view_group" if row is group else "svc_rbac.view_role"
        told = explain(user, permission, obj=row, tenant="test:acme")
        assert told.allowed is principal.can(permission, row)


def test_a_live_key_of_a_tenant_reaches_none_of_its_tests(both: None, user: Any) -> None:
    grant(user, define_role("reader", ["svc_rbac.*"]))
    row = Role.objects.create(name="r", tenant="test:acme", owner=user)

    assert not Principal(user, "api_key", tenant="acme").can("svc_rbac.view_role", row)
    assert not Role.objects.owned_by(Principal(user, "api_key", tenant="acme")).exists()
    assert not Role.objects.owned_by(Principal(user, "api_key")).exists()
    assert Role.objects.owned_by(Principal(user, "api_key", tenant="test:acme")).get() == row


def test_nobody_makes_a_live_key_of_a_tenant_of_tests(both: None, user: Any) -> None:
    with pytest.raises(ValidationError):
        issue_key(owner=user, name="robot", tenant="test:acme")


def test_scopes_must_be_held_where_the_key_acts(both: None, user: Any) -> None:
    grant(user, define_role("clerk", ["orders.add_order"]), tenant="acme")
    wanted: dict[str, Any] = {
        "owner": user,
        "name": "robot",
        "tenant": "acme",
        "scopes": ["orders.add_order"],
    }

    issue_key(**wanted)
    with pytest.raises(ScopeNotHeld):
        issue_key(**wanted, environment="test")
    grant(user, "clerk", tenant="test:acme")
    key, _ = issue_key(**wanted, environment="test")
    assert ApiKey.objects.get(pk=key.pk).acting_tenant == "test:acme"
