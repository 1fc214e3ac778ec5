"""What other processes do with a key, on the test's database and cache."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from time import monotonic
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
django.setup()

from django.conf import settings  # noqa: E402  # Django must be set up first
from django.db import connections  # noqa: E402

from svc_infra_django.apikeys import verify_key  # noqa: E402
from svc_infra_django.apikeys.errors import InvalidKey  # noqa: E402
from svc_infra_django.errors import RateLimitedError  # noqa: E402


def _join(database: str, caches: dict[str, Any], section: dict[str, Any]) -> None:
    connections.settings["default"]["NAME"] = database
    settings.CACHES = caches
    settings.SVC_INFRA = {"apikeys": {"usage_flush_seconds": 3600, **section}}


def until_refused(
    database: str, caches: dict[str, Any], section: dict[str, Any], text: str, pipe: Connection
) -> None:
    """Use the key without a pause until it is refused: `used` when it was first taken, then `refused`."""
    _join(database, caches, section)
    verify_key(text)
    pipe.send("used")
    last = monotonic()
    try:
        while True:
            # Before the call: how long the machine takes over it says nothing about what was believed.
            begun = monotonic()
            verify_key(text)
            last = begun
    except InvalidKey:
        pipe.send(("refused", last))
    # Once refused, refused for good: nothing old may come back.
    again = 0
    while monotonic() < last + 0.5:
        try:
            verify_key(text)
            again += 1
        except InvalidKey:
            pass
    pipe.send(again)
    os._exit(0)


def use_and_end(
    database: str, caches: dict[str, Any], section: dict[str, Any], text: str, pipe: Connection
) -> None:
    """Use the key once, and end as a worker of a server does that is told to stop."""
    _join(database, caches, section)
    verify_key(text)
    pipe.send("used")


def as_often_as_allowed(
    database: str, caches: dict[str, Any], section: dict[str, Any], text: str, tries: int, pipe: Connection
) -> None:
    """Use the key so many times, when told to, and send how often that was allowed."""
    _join(database, caches, section)
    connections["default"].ensure_connection()
    pipe.send("ready")
    pipe.recv()
    allowed = 0
    for _ in range(tries):
        try:
            verify_key(text)
            allowed += 1
        except RateLimitedError:
            pass
    pipe.send(allowed)
    os._exit(0)
