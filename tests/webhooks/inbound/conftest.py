from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.http import HttpRequest
from django.urls import path
from ninja import NinjaAPI, Router

from svc_infra_django.api import create_api
from svc_infra_django.config import Secret
from svc_infra_django.webhooks.inbound import Received, signed_by, webhook_receiver

HMAC_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SOURCES = ("standard", "stripe", "github", "shopify", "slack", "simple")


class Shop:
    """What the handlers below were given, and what they do with it."""

    def __init__(self) -> None:
        self.heard: list[Received] = []
        self.acts: Callable[[Received], Any] = lambda message: None

    def handle(self, message: Received) -> None:
        self.heard.append(message)
        self.acts(message)


shop = Shop()


def _view(source: str, **options: Any) -> Any:
    def handler(message: Received) -> None:
        shop.handle(message)

    handler.__qualname__ = f"handler_of_{source}"
    return webhook_receiver(source, **options)(handler)


async def _asynchronously(message: Received) -> None:
    from django.contrib.auth.models import Group

    await Group.objects.acreate(name=message.event_type)
    shop.handle(message)


router = Router()
router.post("/hook", auth=None)(_view("ninja"))


@router.post("/peek", auth=signed_by("stripe"))
def peek(request: HttpRequest) -> dict[str, str]:
    return {"type": request.auth.event_type}  # type: ignore[attr-defined]


def _secrets_of_customer(request: HttpRequest) -> list[str]:
    return [f"secret of {request.resolver_match.kwargs['customer']}"]  # type: ignore[union-attr]


api: NinjaAPI = create_api(urls_namespace="inbound-tests")
api.add_router("/", router)

urlpatterns = [
    *[path(f"hooks/{source}", _view(source)) for source in SOURCES],
    path("hooks/later", _view("later", later=True)),
    path("hooks/async", webhook_receiver("async")(_asynchronously)),
    path("hooks/<str:customer>/own", _view("own", secrets=_secrets_of_customer)),
    path("hooks/nowhere", _view("nowhere")),
    path("ninja/", api.urls),
]


@pytest.fixture(autouse=True)
def sources(svc_settings: Callable[..., None], settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_STANDARD_SECRET", HMAC_SECRET)
    monkeypatch.setenv("TEST_SHARED_SECRET", "hush, this is shared")
    monkeypatch.setenv("TEST_OLD_SECRET", "hush, this was shared before")
    shared = [Secret("env:TEST_SHARED_SECRET"), Secret("env:TEST_OLD_SECRET")]
    standard = {"preset": "standard", "secrets": [Secret("env:TEST_STANDARD_SECRET")]}
    named = {name: {"preset": name, "secrets": shared} for name in SOURCES if name != "standard"}
    others = dict.fromkeys(("standard", "later", "async", "ninja"), standard)
    settings.ROOT_URLCONF = __name__
    svc_settings(inbound={"sources": {**named, **others, "own": {"preset": "simple"}}})


@pytest.fixture(autouse=True)
def at_work() -> Iterator[Shop]:
    """The shop behind the views, empty."""
    shop.heard.clear()
    shop.acts = lambda message: None
    yield shop
    shop.acts = lambda message: None
