from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient, AsyncRequestFactory
from django.test.client import FakePayload

from svc_infra_django.api import Authenticator
from svc_infra_django.api.authentication import Authentication
from svc_infra_django.errors import AuthenticationError
from svc_infra_django.principals import Principal

pytestmark = pytest.mark.urls("tests.api.apis")

SECRETS: dict[str, Any] = {}


class Header(Authenticator):
    """A credential of its own: the header X-Test names a user."""

    name = "test"
    scheme = {"type": "http", "scheme": "bearer"}

    def authenticate(self, request: Any) -> Principal | None:
        value = request.headers.get("X-Test")
        if value is None:
            return None
        if value not in SECRETS:
            raise AuthenticationError("This test credential is not good.")
        return Principal(
            SECRETS[value], method="api_key", credential_id=value, scopes=frozenset({"auth.view_group"})
        )


@pytest.fixture
def header(svc_settings: Any, user: Any) -> None:
    SECRETS.clear()
    SECRETS["good"] = user
    path = "svc_infra_django.api.authentication.SessionAuthenticator"
    svc_settings(api={"authenticators": (f"{__name__}.Header", path)})


@pytest.mark.parametrize("path", ["/things/me", "/things/ame"])
def test_nobody_is_told_to_sign_in(call: Any, path: str, header: None) -> None:
    response = call("get", path)

    assert (response.status_code, response.json()["code"]) == (401, "not_authenticated")
    assert response["WWW-Authenticate"] == "Bearer, ApiKey"


@pytest.mark.parametrize("path", ["/things/me", "/things/ame"])
def test_a_session_is_a_principal(call: Any, user: Any, path: str) -> None:
    body = call("get", path, user=user).json()

    assert (body["name"], body["method"]) == ("ada", "session")


@pytest.mark.parametrize("path", ["/things/me", "/things/ame"])
def test_the_first_credential_that_is_known_wins(call: Any, stranger: Any, header: None, path: str) -> None:
    body = call("get", path, user=stranger, headers={"X-Test": "good"}).json()

    assert (body["name"], body["method"], body.get("same", True)) == ("ada", "api_key", True)


@pytest.mark.parametrize("path", ["/things/me", "/things/ame"])
def test_a_bad_credential_is_not_made_good_by_a_session(
    call: Any, user: Any, header: None, path: str
) -> None:
    response = call("get", path, user=user, headers={"X-Test": "bad"})

    assert response.status_code == 401
    assert response.json()["detail"] == "This test credential is not good."


@pytest.mark.parametrize("path", ["/things/me", "/things/ame"])
def test_two_credentials_in_one_header_are_ambiguous(call: Any, user: Any, path: str) -> None:
    response = call("get", path, user=user, headers={"Authorization": "Bearer a, Bearer b"})

    assert (response.status_code, response.json()["code"]) == (400, "ambiguous_credentials")


def test_two_authorization_headers_are_ambiguous(db: None) -> None:
    client = AsyncClient()
    scope = AsyncRequestFactory()._base_scope(path="/things/me", method="GET")
    scope["headers"] += [(b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")]

    response = async_to_sync(client.request)(**scope, _body_file=FakePayload())

    assert response.status_code == 400


def test_a_user_who_was_switched_off_is_nobody(call: Any, user: Any, header: None) -> None:
    user.is_active = False
    user.save()

    assert call("get", "/things/me", headers={"X-Test": "good"}).status_code == 401


@pytest.mark.parametrize("path", ["/things/things", "/things/athings"])
def test_a_session_needs_its_csrf_token_to_change_something(call: Any, user: Any, path: str) -> None:
    body = {"data": b'{"name": "a"}', "content_type": "application/json", "user": user, "csrf": True}
    token = "a" * 32

    without = call("post", path, **body)
    wrong = call("post", path, cookies={"csrftoken": token}, headers={"X-CSRFToken": "b" * 32}, **body)
    right = call("post", path, cookies={"csrftoken": token}, headers={"X-CSRFToken": token}, **body)

    assert [without.status_code, wrong.status_code, right.status_code] == [403, 403, 201]
    assert without.json()["code"] == "csrf_failed"


def test_a_header_credential_needs_no_csrf_token(call: Any, header: None) -> None:
    body = {"data": b'{"name": "a"}', "content_type": "application/json", "csrf": True}

    assert call("post", "/things/things", headers={"X-Test": "good"}, **body).status_code == 201


def test_the_loop_is_not_blocked_by_an_authenticator(header: None) -> None:
    # Ninja hands what is not a coroutine function to a thread.
    assert not asyncio.iscoroutinefunction(Authentication().__call__)
