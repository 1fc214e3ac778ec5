"""Fixtures for pytest. In your `conftest.py`: `pytest_plugins = ["svc_infra_django.testing.plugin"]`.

They need pytest-django. Nothing of Django is imported before a fixture is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from time import time
from typing import TYPE_CHECKING, Any

import pytest

from ..events import Event, any_event

if TYPE_CHECKING:
    from django.conf import LazySettings

    from .client import JsonClient
    from .senders import WebhookSender


class EventRecorder(list[Event[Any]]):
    """The events of a test, oldest first."""

    def of(self, name: str) -> list[Event[Any]]:
        """The events of one type, by its name: `events.of("order.placed")`."""
        return [event for event in self if event.type.name == name]

    @property
    def names(self) -> list[str]:
        """The names of all events, oldest first."""
        return [event.type.name for event in self]


@pytest.fixture
def events() -> Iterator[EventRecorder]:
    """Every event that is emitted during the test, also by what is rolled back later."""
    recorder = EventRecorder()

    def record(event: Event[Any], **_: Any) -> None:
        recorder.append(event)

    any_event.connect(record)
    yield recorder
    any_event.disconnect(record)


@pytest.fixture
def svc_settings(settings: LazySettings) -> Callable[..., None]:
    """Merge into SVC_INFRA for this test: `svc_settings(webhooks={"batch_size": 2})`."""

    def merge(**sections: dict[str, object]) -> None:
        merged = {**getattr(settings, "SVC_INFRA", {})}
        for name, values in sections.items():
            merged[name] = {**merged.get(name, {}), **values}
        settings.SVC_INFRA = merged

    return merge


@pytest.fixture
def run_jobs(db: None) -> Callable[..., int]:
    """Run the jobs that are due, in this thread: `run_jobs()`, or `run_jobs(now=tomorrow)`.

    Returns how many attempts ran. What a job raises is its outcome and is not raised here.
    """
    from ..jobs.worker import drain

    def run(now: datetime | None = None) -> int:
        return drain(now)

    return run


@pytest.fixture
def api_client(db: None) -> Callable[..., JsonClient]:
    """Make a client that sends and accepts JSON: `api_client(user).post("/api/orders", {"sku": "tea"})`.

    `api_client()` is nobody, `api_client(user)` has the user's session, begun with two factors, and
    `api_client(user, scopes={"orders.view_order"})` an API key with these scopes.
    """
    from ..api.authentication import LOGIN_SESSION_KEY
    from .client import JsonClient

    def make(user: Any = None, *, scopes: Iterable[str] | None = None, tenant: str = "") -> JsonClient:
        client = JsonClient()
        if scopes is not None:
            from ..apikeys import issue_key

            _, key = issue_key(owner=user, name="tests", scopes=sorted(scopes), tenant=tenant)
            client.defaults["HTTP_X_API_KEY"] = key
        elif user is not None:
            client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
            session = client.session
            session[LOGIN_SESSION_KEY] = {"amr": ["pwd", "otp", "mfa"], "auth_time": int(time())}
            session.save()
        return client

    return make


@pytest.fixture
def webhook_sender(db: None) -> Callable[..., WebhookSender]:
    """Make a sender of signed webhooks: `webhook_sender("stripe").post("/hooks/stripe", {"id": "evt_1"})`."""
    from .senders import WebhookSender

    return WebhookSender


def pytest_unconfigure() -> None:
    """What keys were used in tests is no use of the project's."""
    if "svc_infra_django.apikeys.recorder" in sys.modules:
        from ..apikeys.recorder import recorder

        recorder.stop()
