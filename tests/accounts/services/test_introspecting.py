from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.utils import timezone

from svc_infra_django.accounts.models import AuthSession
from svc_infra_django.accounts.services.issuing_tokens import Tokens, issue_tokens
from svc_infra_django.apikeys import issue_key

pytestmark = pytest.mark.django_db

FORM = "application/x-www-form-urlencoded"


@pytest.fixture
def tokens(user: Any) -> Tokens:
    return issue_tokens(user, amr=("pwd",), tenant="acme")


@pytest.fixture
def ask(stranger: Any, client: Any) -> Any:
    """A service with an API key asks about a token."""
    stranger.user_permissions.add(Permission.objects.get(codename="introspect_token"))
    _, key = issue_key(owner=stranger, name="gateway", scopes=["svc_accounts.introspect_token"])

    def ask_about(token: str, **headers: str) -> Any:
        return client.post("/api/auth/introspect", {"token": token}, headers={"X-API-Key": key, **headers})

    return ask_about


def test_a_good_access_token_is_described(ask: Any, tokens: Tokens, user: Any) -> None:
    response = ask(tokens.access_token)
    told = response.json()

    assert response["Cache-Control"] == "no-store"
    assert told.pop("exp") - told.pop("iat") == 900
    assert told.pop("jti")
    assert told == {
        "active": True,
        "token_type": "access_token",
        "sub": str(user.pk),
        "sid": str(tokens.session.pk),
        "iss": "svc_infra_django",
        "aud": "svc_infra_django.api",
        "auth_time": int(tokens.session.auth_time.timestamp()),
        "amr": ["pwd"],
        "acr": "sfa",
        "tenant": "acme",
    }


def test_rule_61_a_credential_of_a_tenant_learns_nothing_of_tokens_of_another(
    client: Any, stranger: Any, tokens: Tokens
) -> None:
    stranger.user_permissions.add(Permission.objects.get(codename="introspect_token"))

    def told(tenant: str) -> Any:
        token = issue_tokens(stranger, amr=("pwd",), tenant=tenant).access_token
        headers = {"Authorization": f"Bearer {token}"}
        return client.post("/api/auth/introspect", {"token": tokens.access_token}, headers=headers).json()

    assert told("acme")["active"] is True
    assert told("other") == {"active": False}


def test_a_good_refresh_token_is_described(ask: Any, tokens: Tokens) -> None:
    told = ask(tokens.refresh_token).json()

    assert (told["active"], told["token_type"]) == (True, "refresh_token")


def test_of_anything_else_nothing_is_said(ask: Any, tokens: Tokens, user: Any, ada: Any) -> None:
    used = ada.tokens["refresh_token"]
    ada.refresh()
    for token in ("x", "a.b.c", "rt_unknown", "\u212a", used, tokens.access_token[:-6] + "AAAAAA"):
        response = ask(token)
        assert (response.status_code, response.json()) == (200, {"active": False})


def test_an_answer_is_never_a_remembered_one(ask: Any, tokens: Tokens) -> None:
    assert ask(tokens.access_token).json()["active"]
    AuthSession.objects.filter(pk=tokens.session.pk).revoke(
        now=timezone.now(), reason=AuthSession.Reason.LOGOUT
    )

    for token in (tokens.access_token, tokens.refresh_token):
        assert ask(token).json() == {"active": False}


def test_asking_needs_the_permission(ada: Any, client: Any, tokens: Tokens) -> None:
    assert client.post("/api/auth/introspect", {"token": tokens.access_token}).status_code == 401
    mine = {"Authorization": f"Bearer {tokens.access_token}"}
    answer = client.post("/api/auth/introspect", {"token": tokens.access_token}, headers=mine)
    assert answer.status_code == 403


@pytest.mark.parametrize("which", ["access_token", "refresh_token"])
def test_whoever_has_a_token_can_take_its_session_back(
    client: Any, tokens: Tokens, visitor: Any, which: str, events: Any
) -> None:
    assert visitor.get("me", token=tokens.access_token).status_code == 200
    sent = {"token": getattr(tokens, which), "token_type_hint": which, "client_id": "app"}

    assert client.post("/api/auth/revoke", sent).status_code == 200

    assert visitor.get("me", token=tokens.access_token).status_code == 401
    assert visitor.refresh(tokens.refresh_token).status_code == 401
    assert [event.type.name for event in events] == ["session.ended"]


def test_what_is_no_token_is_taken_back_as_well(client: Any, tokens: Tokens) -> None:
    for token in ("x", "a.b.c", tokens.access_token[:-6] + "AAAAAA", "rt_unknown", "\u212a.x.y"):
        assert client.post("/api/auth/revoke", {"token": token}).status_code == 200

    assert not AuthSession.objects.exclude(revoked_at=None).exists()


@pytest.mark.parametrize("path", ["introspect", "revoke"])
@pytest.mark.parametrize(
    "sent",
    [{}, {"token": ""}, {"token": "x" * 5000}, {"token": "a\x00b"}],
    ids=["none", "empty", "long", "nul"],
)
def test_bad_forms_are_refused(
    client: Any, user: Any, path: str, sent: dict[str, str], tokens: Tokens
) -> None:
    user.user_permissions.add(Permission.objects.get(codename="introspect_token"))
    headers = {"Authorization": f"Bearer {tokens.access_token}"}

    assert client.post(f"/api/auth/{path}", sent, headers=headers).status_code == 422
