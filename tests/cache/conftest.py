from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.core.cache import caches

from svc_infra_django.cache import cache
from tests.servers import redis


@pytest.fixture(autouse=True)
def fresh_cache(settings: Any) -> Iterator[None]:
    """Each test has caches of its own, and nobody waits for an outage of the test before."""
    settings.CACHES = memory_caches()
    cache._asks_again_at = float("-inf")
    yield
    cache._asks_again_at = float("-inf")


def memory_caches(**options: Any) -> dict[str, Any]:
    place = uuid4().hex
    return {
        "default": {
            "BACKEND": "svc_infra_django.cache.backends.LayeredCache",
            "LOCATION": place,
            "OPTIONS": {"l2": "shared", **options},
        },
        "shared": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": place},
    }


def redis_caches(url: str, **options: Any) -> dict[str, Any]:
    made = memory_caches(**options)
    made["shared"] = {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": url,
        "KEY_PREFIX": uuid4().hex,
        "OPTIONS": {"SOCKET_CONNECT_TIMEOUT": 1, "SOCKET_TIMEOUT": 1},
    }
    return made


@pytest.fixture
def behind() -> Callable[[], Any]:
    """The shared cache, as another process would write it: past this process's memory."""
    return lambda: caches["shared"]


@pytest.fixture
def own_redis(settings: Any) -> Iterator[Any]:
    """A Redis that the test may stop: `own_redis.stop()`."""
    manager = redis()
    url = manager.__enter__()
    stopped = []

    class Server:
        def stop(self) -> None:
            if not stopped:
                stopped.append(True)
                manager.__exit__(None, None, None)

    settings.CACHES = redis_caches(url)
    try:
        yield Server()
    finally:
        Server().stop()
