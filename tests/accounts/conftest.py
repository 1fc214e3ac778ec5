from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from svc_infra_django.accounts import models
from svc_infra_django.accounts.services.issuing_tokens import Client as Where
from svc_infra_django.accounts.services.issuing_tokens import Tokens
from svc_infra_django.accounts.services.logging_in import SecondStep, begun, prove_login
from svc_infra_django.accounts.services.verifying_mfa import begin_session, challenge_of, finish_second_step
from svc_infra_django.accounts.totp import step_at
from tests.conftest import PASSWORD


class Visitor:
    """A client of the API: posts JSON, remembers the tokens it was given."""

    def __init__(self, **defaults: Any) -> None:
        self.http = Client(**defaults)
        self.tokens: dict[str, Any] = {}

    def call(
        self, method: str, path: str, data: Any = None, *, token: str | None = None, **extra: Any
    ) -> Any:
        token = token if token is not None else self.tokens.get("access_token")
        if token:
            extra.setdefault("headers", {})["Authorization"] = f"Bearer {token}"
        body = {} if data is None else {"data": data, "content_type": "application/json"}
        return getattr(self.http, method)(f"/api/auth/{path}", **body, **extra)

    def get(self, path: str, **extra: Any) -> Any:
        return self.call("get", path, **extra)

    def post(self, path: str, data: Any = None, **extra: Any) -> Any:
        return self.call("post", path, data, **extra)

    def patch(self, path: str, data: Any, **extra: Any) -> Any:
        return self.call("patch", path, data, **extra)

    def delete(self, path: str, **extra: Any) -> Any:
        return self.call("delete", path, **extra)

    def login(self, email: str = "ada@example.com", password: str = PASSWORD, **extra: Any) -> Any:
        response = self.post("login", {"email": email, "password": password}, token="", **extra)
        if response.status_code == 200:
            self.tokens = response.json()
        return response

    def refresh(self, token: str | None = None) -> Any:
        sent = {"refresh_token": token or self.tokens["refresh_token"]}
        response = self.post("refresh", sent, token="")
        if response.status_code == 200:
            self.tokens = response.json()
        return response


def log_in(email: str, password: str, *, client: Where, now: datetime) -> Tokens | SecondStep:
    """What `auth/login` does with an address and a password."""
    return begun(prove_login(email, password, client=client, now=now), client=client, now=now)


def finish_login(mfa_token: str, code: str, *, client: Where, now: datetime) -> Tokens:
    """What `auth/mfa/verify` does with a code."""
    proven = finish_second_step(challenge_of(mfa_token, now=now), code, now=now)
    return begin_session(proven, client=client, now=now)


@pytest.fixture(autouse=True)
def one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes are those of one step, however long the test takes: nothing here happens on its edge."""
    present = step_at(timezone.now())
    monkeypatch.setattr(models, "step_at", lambda moment: present)


@pytest.fixture
def visitor() -> Visitor:
    return Visitor()


@pytest.fixture
def new_visitor() -> Callable[..., Visitor]:
    return Visitor


@pytest.fixture
def ada(user: Any) -> Visitor:
    """Logged in as the user ada."""
    visitor = Visitor()
    assert visitor.login().status_code == 200
    return visitor


@pytest.fixture
def events(db: None) -> Any:
    """Names of the events that were emitted, in order."""
    from svc_infra_django.events import any_event

    seen: list[Any] = []

    def note(event: Any, **_: Any) -> None:
        seen.append(event)

    any_event.connect(note)
    yield seen
    any_event.disconnect(note)
