from __future__ import annotations

import logging
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError
from django.test import RequestFactory
from django.urls import set_urlconf

from svc_infra_django.api.errors import field_problem, problem, understood
from svc_infra_django.errors import AuthenticationError, ConflictError, UnavailableError
from tests.api.apis import raised

pytestmark = pytest.mark.urls("tests.api.apis")


@pytest.mark.parametrize("way", ["errors", "aerrors"])
@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [
        ("conflict", 409, "things.too_many"),
        ("fields", 422, "validation_error"),
        ("missing", 404, "not_found"),
        ("model", 422, "validation_error"),
        ("bug", 500, "internal_error"),
        ("recursion", 400, "unreadable_body"),
        ("ninja", 418, "im_a_teapot"),
        ("throttled", 429, "rate_limited"),
        ("denied", 403, "permission_denied"),
        ("suspicious", 400, "bad_request"),
        ("too_big", 413, "body_too_large"),
        ("unavailable", 503, "unavailable"),
        ("misconfigured", 500, "misconfigured"),
        ("range", 422, "out_of_range"),
        ("overflow", 500, "internal_error"),
    ],
)
def test_every_error_is_a_problem(call: Any, way: str, kind: str, status: int, code: str) -> None:
    response = call("get", f"/things/{way}/{kind}")

    assert response.status_code == status
    assert response["Content-Type"] == "application/problem+json"
    body = response.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, "about:blank")
    assert body["request_id"] == response["X-Request-ID"]
    assert "secret" not in response.content.decode()


def test_extra_fields_and_headers_reach_the_caller(call: Any) -> None:
    assert call("get", "/things/errors/conflict").json()["limit"] == 3
    assert call("get", "/things/errors/throttled")["Retry-After"] == "7"
    assert call("get", "/things/errors/fields").json()["errors"] == [
        {"pointer": "/body/a~1b", "code": "bad", "message": "No."}
    ]


def test_a_model_s_complaint_points_at_its_field(call: Any) -> None:
    errors = call("get", "/things/errors/model").json()["errors"]

    assert errors == [{"pointer": "/body/name", "code": "invalid", "message": "Too short."}]


def test_what_nobody_foresaw_is_logged_with_its_traceback(
    call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    call("get", "/things/errors/bug")

    record = next(record for record in caplog.records if record.name == "svc_infra_django.api")
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize("kind", ["range", "recursion"])
def test_what_is_blamed_on_the_caller_by_guess_is_logged_too(
    call: Any, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    call("get", f"/things/errors/{kind}")

    record = next(record for record in caplog.records if record.name == "svc_infra_django.api")
    assert record.levelno == logging.WARNING
    assert record.exc_info is not None and type(record.exc_info[1]) is type(raised(kind))


def test_a_duplicate_row_is_a_conflict(call: Any) -> None:
    response = call("post", "/things/duplicate")

    assert (response.status_code, response.json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    ("attribute", "code", "kind", "expected"),
    [
        ("sqlstate", "23505", IntegrityError, ConflictError),
        ("sqlstate", "23503", IntegrityError, ConflictError),
        ("sqlite_errorcode", 2067, IntegrityError, ConflictError),
        ("sqlstate", "23502", IntegrityError, None),
        ("sqlstate", "40P01", OperationalError, UnavailableError),
        ("sqlstate", None, OperationalError, UnavailableError),
        ("sqlite_errorcode", 517, OperationalError, UnavailableError),
        ("sqlite_errorcode", 1, OperationalError, None),
    ],
)
def test_database_errors_are_told_apart_by_code(
    attribute: str, code: object, kind: type[Exception], expected: type[Exception] | None
) -> None:
    cause = Exception()
    setattr(cause, attribute, code)
    error = kind("text in any language")
    error.__cause__ = cause

    found = understood(error)

    assert (type(found) is expected) if expected else found.status == 500


@pytest.mark.parametrize("path", ["/things/nowhere", "/things/things/1/nothing"])
def test_an_unknown_path_under_the_api_is_a_problem(call: Any, path: str, settings: Any) -> None:
    for settings.DEBUG in (False, True):
        response = call("get", path, headers={"Accept": "text/html"})

        assert response.status_code == 404
        assert response["Content-Type"] == "application/problem+json"


def test_a_wrong_method_is_a_problem_that_says_which_are_right(call: Any) -> None:
    response = call("delete", "/things/things")

    assert (response.status_code, response["Allow"]) == (405, "POST")
    assert response.json()["code"] == "method_not_allowed"


def test_an_operation_s_own_error_body_is_left_alone(call: Any) -> None:
    response = call("get", "/things/own-error")

    assert (response.status_code, response.json()) == (400, {"reason": "mine"})


def test_what_other_middlewares_say_to_the_browser_stays(call: Any, settings: Any) -> None:
    settings.SECURE_REFERRER_POLICY = "no-referrer"

    response = call("get", "/things/nowhere")

    assert response["Referrer-Policy"] == "no-referrer"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Content-Type"] == "application/problem+json"
    assert int(response["Content-Length"]) == len(response.content)


def test_outside_the_api_the_caller_chooses_between_page_and_problem(call: Any) -> None:
    page = call("get", "/elsewhere", headers={"Accept": "text/html,application/json;q=0.5"})
    body = call("get", "/elsewhere", headers={"Accept": "application/json"})

    assert page["Content-Type"].startswith("text/html")
    assert body["Content-Type"] == "application/problem+json"
    assert (page.status_code, body.status_code) == (404, 404)


def test_an_error_of_the_suite_in_a_plain_view_is_a_problem(call: Any) -> None:
    response = call("get", "/plain")

    assert (response.status_code, response.json()["code"]) == (409, "things.too_many")


def test_a_pointer_is_escaped_and_cut() -> None:
    assert field_problem(["body", "a/b~c", 0], "x", "y").pointer == "/body/a~1b~0c/0"
    assert len(field_problem(["body", "n" * 10_000], "x", "y" * 10_000).pointer) < 200


def test_the_type_is_a_uri_when_the_project_has_a_page_for_it(svc_settings: Any) -> None:
    svc_settings(api={"problem_type_base": "https://example.com/problems/"})
    set_urlconf("tests.api.apis")

    response = problem(RequestFactory().get("/"), AuthenticationError())

    assert b'"type":"https://example.com/problems/not_authenticated"' in response.content


@pytest.mark.django_db(transaction=True)
def test_an_answered_error_still_undoes_the_request(settings: Any, client: Any) -> None:
    from django.contrib.auth.models import Group
    from django.db import connection

    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert client.post("/things/duplicate").status_code == 409
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = False

    assert not Group.objects.exists()
