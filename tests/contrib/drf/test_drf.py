from __future__ import annotations

from types import SimpleNamespace

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from rest_framework.request import Request

from svc_infra_django.apikeys import issue_key
from svc_infra_django.contrib.drf.permissions import HasPermission
from svc_infra_django.errors import PermissionDeniedError
from svc_infra_django.principals import Principal
from svc_infra_django.rbac import define_role, grant
from svc_infra_django.rbac.models import Role
from svc_infra_django.testing.assertions import assert_problem

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def site(settings) -> None:
    settings.ROOT_URLCONF = "tests.contrib.drf.site"
    settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": "svc_infra_django.contrib.drf.problem_handler"}


@pytest.fixture
def clerk(user):
    user.user_permissions.set(Permission.objects.filter(codename__in=["view_group", "add_group"]))
    return type(user).objects.get(pk=user.pk)


def test_a_session_is_a_principal(api_client, clerk) -> None:
    assert api_client(clerk).get("/orders").json() == {"user": "ada", "method": "session"}


def test_a_key_is_a_principal_with_its_scopes(api_client, clerk) -> None:
    client = api_client(clerk, scopes={"auth.view_group"})

    assert client.get("/orders").json() == {"user": "ada", "method": "api_key"}
    assert_problem(client.post("/orders"), 403, code="permission_denied", permission="auth.add_group")


def test_a_keys_networks_and_limits_hold_here_too(api_client, clerk) -> None:
    _, far = issue_key(owner=clerk, name="far", allowed_networks=["192.0.2.0/24"])
    _, rare = issue_key(owner=clerk, name="rare", rate="1/day")

    refused = api_client().get("/orders", headers={"X-API-Key": far})
    answers = [api_client().get("/orders", headers={"X-API-Key": rare}) for _ in range(2)]

    assert_problem(refused, 403, code="apikeys.address_not_allowed")
    assert answers[0].status_code == 200
    assert_problem(answers[1], 429, code="apikeys.rate_exceeded", limit="1/day")
    assert int(answers[1]["Retry-After"]) > 80_000


def test_nobody_is_asked_to_sign_in_and_told_how(api_client) -> None:
    for path in ("/orders", "/personal", "/members"):
        response = api_client().get(path)
        assert_problem(response, 401, code="not_authenticated")
        assert "Bearer" in response["WWW-Authenticate"]
        assert "ApiKey" in response["WWW-Authenticate"]


@pytest.mark.parametrize("headers", [{"Authorization": "Bearer nonsense"}, {"X-API-Key": "nonsense"}])
@pytest.mark.parametrize("path", ["/orders", "/raises/conflict"])
def test_a_bad_credential_is_refused_even_where_nobody_would_do(api_client, path, headers) -> None:
    assert_problem(api_client().get(path, headers=headers), 401)


def test_two_credentials_in_one_header_are_refused(api_client) -> None:
    response = api_client().get("/orders", headers={"Authorization": "Bearer a, Bearer b"})

    assert_problem(response, 400, code="ambiguous_credentials")


def test_a_disabled_user_is_refused(api_client, clerk) -> None:
    client = api_client(clerk, scopes={"auth.view_group"})
    type(clerk).objects.update(is_active=False)

    assert_problem(client.get("/orders"), 401)


def test_a_session_needs_the_csrf_token(clerk) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(clerk, backend="django.contrib.auth.backends.ModelBackend")

    assert client.get("/orders").status_code == 200
    assert_problem(client.post("/orders", {}, "application/json"), 403, code="csrf_failed")


def test_without_the_permission_its_name_is_said(api_client, user) -> None:
    assert_problem(api_client(user).get("/orders"), 403, permission="auth.view_group")


def test_a_row_of_another_tenant_or_denied_to_the_caller_is_refused(rf, user) -> None:
    view = SimpleNamespace(required_permission="svc_rbac.view_role")
    rows = {
        name: Role.objects.create(name=name, tenant=tenant)
        for name, tenant in (("ours", "acme"), ("denied", "acme"), ("theirs", "victim-corp"))
    }
    grant(user, define_role("reader", ["svc_rbac.view_role"]))
    grant(user, define_role("barred", denies=["svc_rbac.view_role"]), obj=rows["denied"])

    def may(name: str) -> bool:
        request = Request(rf.get("/"))
        request.auth = Principal(user, "jwt", tenant="acme")
        try:
            return HasPermission().has_object_permission(request, view, rows[name])
        except PermissionDeniedError:
            return False

    assert [may(name) for name in rows] == [True, False, False]


def test_a_method_without_a_permission_is_refused(api_client, clerk) -> None:
    assert_problem(api_client(clerk).put("/orders"), 403)
    assert api_client(clerk).head("/orders").status_code == 200
    assert api_client(clerk).options("/orders").status_code == 200
    assert_problem(api_client().options("/orders"), 401)


def test_a_view_that_forgot_to_say_is_closed(api_client, make_user) -> None:
    client = api_client(make_user("root", is_superuser=True))
    client.raise_request_exception = False

    assert_problem(client.get("/forgotten"), 500)


def test_a_key_is_not_the_user_in_person(api_client, clerk) -> None:
    assert api_client(clerk).get("/personal").status_code == 200
    assert_problem(
        api_client(clerk, scopes={"auth.view_group"}).get("/personal"), 403, code="delegation_refused"
    )


def test_wrong_fields_have_pointers(api_client, clerk) -> None:
    response = api_client(clerk).post(
        "/orders", {"email": "no", "lines": [{"sku": "tea"}, {"sku": "far too long"}]}
    )

    body = assert_problem(response, 422, code="validation_error", pointer="/body/lines/1/sku")
    assert {(error["pointer"], error["code"]) for error in body["errors"]} == {
        ("/body/email", "invalid"),
        ("/body/lines/1/sku", "max_length"),
    }


def test_what_is_wrong_with_the_whole_points_to_the_whole(api_client, clerk) -> None:
    response = api_client(clerk).post("/orders", {"email": "nobody@example.com", "lines": [{"sku": "tea"}]})

    (error,) = assert_problem(response, 422, pointer="/body")["errors"]
    assert error == {"pointer": "/body", "code": "nobody", "message": "Nobody orders nothing."}


@pytest.mark.parametrize(
    "body", ["{", '"\ud800"', "[" * 100_000, "NaN", b"\xff\xfe", '{"email": "a\\u0000b"}']
)
def test_a_hostile_body_is_the_callers_fault(api_client, clerk, body) -> None:
    data = body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")

    response = api_client(clerk).generic("POST", "/orders", data, content_type="application/json")

    assert 400 <= response.status_code < 500
    assert_problem(response, response.status_code)


@pytest.mark.parametrize(
    ("name", "status"),
    [("conflict", 409), ("http404", 404), ("teapot", 418), ("denied", 403), ("fault", 500)],
)
def test_every_error_is_a_problem(api_client, clerk, name, status) -> None:
    client = api_client(clerk)
    client.raise_request_exception = False

    body = assert_problem(client.get(f"/raises/{name}"), status)

    assert "hunter2" not in str(body)
    assert body["request_id"]


def test_other_errors_of_the_framework_are_problems(api_client, clerk) -> None:
    client = api_client(clerk)

    throttled = client.get("/throttled")
    assert_problem(throttled, 429, code="rate_limited")
    assert throttled["Retry-After"] == "7"
    assert_problem(client.delete("/members"), 405)
    assert_problem(client.generic("POST", "/orders", b"<a/>", content_type="text/xml"), 415)
