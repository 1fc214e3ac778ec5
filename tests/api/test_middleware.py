from __future__ import annotations

from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import Client

from svc_infra_django.accounts import issue_tokens
from svc_infra_django.api.events import ACCESS_REFUSED
from svc_infra_django.apikeys import issue_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def refused() -> Any:
    """What was told of refusals."""
    told: list[Any] = []

    def note(*, event: Any, **_: Any) -> None:
        told.append(event.payload)

    ACCESS_REFUSED.connect(note)
    yield told
    ACCESS_REFUSED.disconnect(note)


def test_rule_63_refusals_by_any_view_and_credential_are_told(
    user: Any, make_user: Any, client: Any, refused: Any
) -> None:
    _, key = issue_key(owner=user, name="robot")
    client.post("/api/auth/logout-all", headers={"X-API-Key": key})
    client.force_login(make_user("clerk", is_staff=True))
    assert client.get("/admin/svc_accounts/authsession/").status_code == 403
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)
    assert browser.post("/api/auth/logout-all").status_code == 403
    assert browser.post("/admin/login/", {"username": "x", "password": "y"}).status_code == 403

    assert [(each.credential, each.code, each.route) for each in refused] == [
        ("api_key", "delegation_refused", "/api/auth/logout-all"),
        ("session", "permission_denied", "/admin/svc_accounts/authsession/"),
        ("session", "csrf_failed", "/api/auth/logout-all"),
        ("session", "permission_denied", "/admin/login/"),
    ]


def test_strangers_and_other_answers_tell_nothing(user: Any, client: Any, refused: Any) -> None:
    stranger = Client(enforce_csrf_checks=True)
    assert stranger.post("/admin/login/", {"username": "x"}).status_code == 403
    assert client.get("/api/auth/me").status_code == 401
    client.force_login(user)
    assert client.get("/api/nowhere").status_code == 404

    assert refused == []


@pytest.mark.django_db(transaction=True)
def test_rule_63_a_refusal_of_an_asynchronous_caller_is_told(
    make_user: Any, async_client: Any, refused: Any
) -> None:
    token = issue_tokens(make_user("ada"), amr=("pwd",)).access_token

    async def ask() -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return int((await async_client.get("/api/auth/audit", headers=headers)).status_code)

    assert async_to_sync(ask)() == 403
    assert [each.permission for each in refused] == ["svc_accounts.view_auditevent"]
