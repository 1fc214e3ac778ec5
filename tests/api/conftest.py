from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client


@pytest.fixture(params=["wsgi", "asgi"])
def call(request: Any, db: None) -> Callable[..., Any]:
    """Call the test API through one kind of handler: `call("get", "/things/me", user=user)`."""

    def synchronous(method: str, path: str, *, user: Any = None, **options: Any) -> Any:
        client = Client(raise_request_exception=False, enforce_csrf_checks=options.pop("csrf", False))
        if user is not None:
            client.force_login(user)
        client.cookies.load(options.pop("cookies", {}))
        return client.generic(method.upper(), path, **options)

    def asynchronous(method: str, path: str, *, user: Any = None, **options: Any) -> Any:
        client = AsyncClient(raise_request_exception=False, enforce_csrf_checks=options.pop("csrf", False))
        if user is not None:
            client.force_login(user)
        client.cookies.load(options.pop("cookies", {}))

        async def run() -> Any:
            return await client.generic(method.upper(), path, **options)

        return async_to_sync(run)()

    return synchronous if request.param == "wsgi" else asynchronous
