"""A sender of webhooks for tests: signs as Stripe, GitHub or who the source is, and posts to your view."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import orjson
from django.test import Client

from ..webhooks.inbound.handlers import configured, preset_of


class WebhookSender:
    """Posts what the source would post: signed with its first secret, or with `secret`."""

    def __init__(self, source: str, *, secret: str | None = None, client: Client | None = None) -> None:
        self.source = source
        self.secret = secret
        self.client = client or Client()

    def post(
        self,
        path: str,
        data: Any,
        *,
        event_type: str = "",
        message_id: str | None = None,
        at: float | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Any:
        """The answer to a webhook with this body; `data` is written as JSON unless it is bytes.

        `message_id` posts the same one again, `at` (unix seconds) signs at another time, `headers` replaces
        or adds some.
        """
        body = data if isinstance(data, bytes) else orjson.dumps(data)
        signed = self.headers(body, event_type=event_type, message_id=message_id, at=at)
        return self.client.post(
            path, body, content_type=content_type, headers={**signed, **(headers or {})}
        )  # fmt: skip

    def headers(
        self, body: bytes, *, event_type: str = "", message_id: str | None = None, at: float | None = None
    ) -> dict[str, str]:
        """The headers that go with this body."""
        secret = configured(self.source).secrets[0].reveal() if self.secret is None else self.secret
        return preset_of(self.source).sign(
            body,
            secret=secret,
            message_id=message_id or f"msg_{uuid4().hex}",
            event_type=event_type,
            now=int(time.time() if at is None else at),
        )
