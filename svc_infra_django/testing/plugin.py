"""Fixtures for pytest. In your `conftest.py`: `pytest_plugins = ["svc_infra_django.testing.plugin"]`.

They need pytest-django. Nothing of Django is imported before a fixture is asked for.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from time import time
from typing import TYPE_CHECKING, Any

import pytest

from ..events import Event, any_event

if TYPE_CHECKING:
    from django.conf import LazySettings

    from .client import JsonClient
    from .senders import WebhookSender


class Clock:
    """The time of a test: it stands still until it is moved. `timezone.now()` says it everywhere."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def advance(self, **span: float) -> datetime:
        """Move on by a span, `clock.advance(hours=2)`; returns the new time."""
        return self.move_to(self.now + timedelta(**span))

    def move_to(self, moment: datetime) -> datetime:
        """Make it `moment`, earlier or later, with its zone. Raises ValueError for one without."""
        if moment.tzinfo is None:
            raise ValueError("Give the moment a time zone: datetime(..., tzinfo=UTC).")
        self.now = moment
        return moment


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
def inline_jobs(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each job the moment it is enqueued, if it is due: for tests that want its effects, not the job.

    It runs in the test's thread and transaction. What it raises is its outcome and is not raised here.
    """
    from ..jobs.services import enqueueing
    from ..jobs.worker import drain

    announce, is_draining = enqueueing._announce, False

    def announce_and_run(*args: Any) -> None:
        nonlocal is_draining
        announce(*args)
        # What a job enqueues is run by the round that runs the job.
        if not is_draining:
            is_draining = True
            try:
                drain()
            finally:
                is_draining = False

    monkeypatch.setattr(enqueueing, "_announce", announce_and_run)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that stands still: `clock.advance(hours=2)`, `clock.move_to(moment)`, `clock.now`.

    It is what `django.utils.timezone.now()` returns, and so what `run_jobs` and `fire_schedules` go by. The
    database's own clock goes on.
    """
    from django.utils import timezone

    made = Clock(timezone.now())
    monkeypatch.setattr(timezone, "now", lambda: made.now)
    return made


@pytest.fixture
def fire_schedules(db: None) -> Callable[..., int]:
    """Make the jobs of the periodic schedules that are due, now or at `fire_schedules(now=tomorrow)`.

    Schedules of the code begin when the fixture is asked for. Returns how many fired; run their jobs with
    `run_jobs`.
    """
    from django.utils import timezone

    from ..jobs.decorators import discover
    from ..jobs.scheduler import fire_due, sync_schedules

    discover()
    sync_schedules(now=timezone.now())

    def fire(now: datetime | None = None) -> int:
        return fire_due(now=now or timezone.now())

    return fire


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
