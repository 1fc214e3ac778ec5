"""How services sign their webhooks, and where they say what it is. Bytes and headers in, no Django.

A preset raises VerificationError for whatever is not signed as it must be, malformed or forged, and never
anything else. Headers come as a dict with lower-case names.
"""

from __future__ import annotations

import hmac
import re
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, ClassVar
from urllib.parse import parse_qs

import orjson

from ..errors import VerificationError
from ..signing import MAX_HEADER_LENGTH, MAX_SIGNATURES, secret_key, sign, sign_simply, verify
from ..signing import verify_webhook_signature as verify_simply
from .errors import UnreadableWebhook

ID_LENGTH = 256
TYPE_LENGTH = 255
SIGNER_LENGTH = 32

TIMESTAMP = re.compile(r"[0-9]{1,12}")
UNSTORABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Received:
    """A webhook that was verified and read."""

    source: str
    """The name of its source in the settings."""

    external_id: str
    """The sender's id of it, by which it is known again."""

    event_type: str
    """What the sender calls it: `invoice.paid`, `push`, `orders/create`."""

    data: Any
    """The body, read as JSON."""

    body: bytes = field(repr=False)
    """The body as it came and was signed."""

    headers: Mapping[str, str] = field(repr=False)
    """Those headers that the preset keeps, with lower-case names."""

    signer: str = field(default="", repr=False)
    """Tells customers apart who have a secret each: ids are known again among those of the same one."""


class Preset(ABC):
    """One way to sign and to name webhooks. Subclass it for a sender that is not here."""

    supports_timestamps: ClassVar[bool] = True
    """Whether the signature covers a timestamp, so that a recorded request is refused later."""

    kept_headers: ClassVar[tuple[str, ...]] = ("content-type",)
    """Lower-case names of the headers that are kept with the webhook: nothing that authenticates."""

    @abstractmethod
    def verify(
        self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str], *, tolerance: int, now: float
    ) -> None:
        """Raises VerificationError unless one of `secrets` signed this body at about `now` (unix seconds)."""

    @abstractmethod
    def identify(self, headers: Mapping[str, str], data: Any) -> tuple[str, str]:
        """The sender's id of the webhook, empty if it has none, and its type."""

    @abstractmethod
    def sign(self, body: bytes, *, secret: str, message_id: str, event_type: str, now: int) -> dict[str, str]:
        """The headers that the sender would send with this body. For tests."""

    def parse(self, body: bytes, headers: Mapping[str, str]) -> Any:
        """The body as data. Raises UnreadableWebhook."""
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            raise UnreadableWebhook() from None

    def answer(self, data: Any) -> dict[str, Any] | None:
        """What the sender wants to read at once, without a handler: its question whether we are there."""
        return None


class StandardWebhooks(Preset):
    """Standard Webhooks 1.0, v1 and v1a: this suite, whose challenge it answers, and whoever follows it."""

    kept_headers = ("content-type", "webhook-id", "webhook-timestamp", "traceparent")

    def verify(
        self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str], *, tolerance: int, now: float
    ) -> None:
        verify(body, headers, secrets, tolerance=tolerance, now=now)

    def identify(self, headers: Mapping[str, str], data: Any) -> tuple[str, str]:
        return headers["webhook-id"], _text(data, "type")

    def answer(self, data: Any) -> dict[str, Any] | None:
        if _text(data, "type") == "webhooks.challenge":
            return {"challenge": _text(data.get("data"), "challenge")}
        return None

    def sign(self, body: bytes, *, secret: str, message_id: str, event_type: str, now: int) -> dict[str, str]:
        signature = sign(body, message_id=message_id, timestamp=now, keys=[secret_key(secret)])
        return {"webhook-id": message_id, "webhook-timestamp": str(now), "webhook-signature": signature}


class Stripe(Preset):
    """`Stripe-Signature: t=…,v1=…`, the hex HMAC-SHA256 of `t.body` under the secret's text."""

    def verify(
        self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str], *, tolerance: int, now: float
    ) -> None:
        pairs = [item.partition("=") for item in _bounded(headers, "stripe-signature").split(",")]
        moments = [value for name, _, value in pairs if name == "t"]
        if len(moments) != 1:
            raise VerificationError()
        _check_age(moments[0], tolerance=tolerance, now=now)
        offered = [value for name, _, value in pairs if name == "v1"]
        _check(offered, [_hex(secret, f"{moments[0]}.".encode() + body) for secret in secrets])

    def identify(self, headers: Mapping[str, str], data: Any) -> tuple[str, str]:
        return _text(data, "id"), _text(data, "type")

    def sign(self, body: bytes, *, secret: str, message_id: str, event_type: str, now: int) -> dict[str, str]:
        return {"stripe-signature": f"t={now},v1={_hex(secret, f'{now}.'.encode() + body)}"}


class GitHub(Preset):
    """`X-Hub-Signature-256: sha256=…` over the body. Its id is in a header that is not signed."""

    supports_timestamps = False
    kept_headers = ("content-type", "x-github-delivery", "x-github-event", "x-github-hook-id")

    def verify(
        self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str], *, tolerance: int, now: float
    ) -> None:
        offered = _bounded(headers, "x-hub-signature-256")
        _check([offered], [f"sha256={_hex(secret, body)}" for secret in secrets])

    def identify(self, headers: Mapping[str, str], data: Any) -> tuple[str, str]:
        kind, action = headers.get("x-github-event", ""), _text(data, "action")
        return headers.get("x-github-delivery", ""), f"{kind}.{action}" if action else kind

    def parse(self, body: bytes, headers: Mapping[str, str]) -> Any:
        if headers.get("content-type", "").startswith(FORM):
            body = _form_field(body, "payload")
        return super().parse(body, headers)

    def sign(self, body: bytes, *, secret: str, message_id: str, event_type: str, now: int) -> dict[str, str]:
        return {
            "x-hub-signature-256": f"sha256={_hex(secret, body)}",
            "x-github-delivery": message_id,
            "x-github-event": event_type,
        }


class Shopify(Preset):
    """`X-Shopify-Hmac-Sha256`, base64 over the body. Its id is in a header that is not signed."""

    supports_timestamps = False
    kept_headers = (
        "content-type", "x-shopify-webhook-id", "x-shopify-event-id", "x-shopify-topic",
        "x-shopify-shop-domain", "x-shopify-api-version", "x-shopify-triggered-at",
    )  # fmt: skip

    def verify(
        self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str], *, tolerance: int, now: float
    ) -> None:
        _check([_bounded(headers, "x-shopify-hmac-sha256")], [_base64(secret, body) for secret in secrets])

    def identify(self, headers: Mapping[str, str], data: Any) -> tuple[str, str]:
        return headers.get("x-shopify-webhook-id", ""), headers.get("x-shopify-topic", "")

    def sign(self, body: bytes, *, secret: str, message_id: str, event_type: str, now: int) -> dict[str, str]:
        return {
            "x-shopify-hmac-sha256": _base64(secret, body),
            "x-shopify-webhook-id": message_id,
            "x-shopify-topic": event_type,
        }


class Slack(Preset):
    """`X-Slack-Signature: v0=…`, the hex HMAC-SHA256 of `v0:timestamp:body`; answers its url_verification."""

    kept_headers = ("content-type", "x-slack-request-timestamp", "x-slack-retry-num", "x-slack-retry-reason")

    def verify(
        self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str], *, tolerance: int, now: float
    ) -> None:
        moment = _bounded(headers, "x-slack-request-timestamp")
        _check_age(moment, tolerance=tolerance, now=now)
        offered = _bounded(headers, "x-slack-signature")
        _check([offered], [self._signature(secret, moment, body) for secret in secrets])

    def identify(self, headers: Mapping[str, str], data: Any) -> tuple[str, str]:
        inner = data.get("event") if isinstance(data, dict) else None
        return _text(data, "event_id"), _text(inner, "type") or _text(data, "command") or _text(data, "type")

    def parse(self, body: bytes, headers: Mapping[str, str]) -> Any:
        if not headers.get("content-type", "").startswith(FORM):
            return super().parse(body, headers)
        # Interactions come as a field of JSON, commands as plain fields.
        if payload := _form_field(body, "payload"):
            return super().parse(payload, headers)
        return {name: values[0] for name, values in _form(body).items()}

    def answer(self, data: Any) -> dict[str, Any] | None:
        if _text(data, "type") == "url_verification":
            return {"challenge": _text(data, "challenge")}
        return None

    def sign(self, body: bytes, *, secret: str, message_id: str, event_type: str, now: int) -> dict[str, str]:
        return {
            "x-slack-request-timestamp": str(now),
            "x-slack-signature": self._signature(secret, str(now), body),
        }

    def _signature(self, secret: str, moment: str, body: bytes) -> str:
        return "v0=" + _hex(secret, f"v0:{moment}:".encode() + body)


class Simple(Preset):
    """`X-Signature`, the hex HMAC-SHA256 of the body and nothing more: the weaker form of old senders."""

    supports_timestamps = False
    kept_headers = ("content-type", "x-event-id", "x-topic")

    def verify(
        self, body: bytes, headers: Mapping[str, str], secrets: Sequence[str], *, tolerance: int, now: float
    ) -> None:
        if not verify_simply(payload=body, signature=headers.get("x-signature"), secret=secrets):
            raise VerificationError()

    def identify(self, headers: Mapping[str, str], data: Any) -> tuple[str, str]:
        return (
            headers.get("x-event-id") or _text(data, "id"),
            headers.get("x-topic") or _text(data, "type") or _text(data, "topic"),
        )

    def sign(self, body: bytes, *, secret: str, message_id: str, event_type: str, now: int) -> dict[str, str]:
        return {
            "x-signature": sign_simply(body, secret=secret),
            "x-event-id": message_id,
            "x-topic": event_type,
        }


PRESETS: dict[str, type[Preset]] = {
    "standard": StandardWebhooks,
    "stripe": Stripe,
    "github": GitHub,
    "shopify": Shopify,
    "slack": Slack,
    "simple": Simple,
}


def storable(text: str, *, length: int) -> str:
    """`text` as a column of this length can keep it: no control characters, no lone surrogates."""
    return UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)[:length]


def _check(offered: Sequence[str], expected: Sequence[str]) -> None:
    """Raises VerificationError unless one of the first few of `offered` is one of `expected`."""
    matches = [
        hmac.compare_digest(one.encode(errors="replace"), own.encode())
        for one in offered[:MAX_SIGNATURES]
        for own in expected
    ]
    if not any(matches):
        raise VerificationError()


def _check_age(timestamp: str, *, tolerance: int, now: float) -> None:
    if not TIMESTAMP.fullmatch(timestamp) or abs(now - int(timestamp)) > tolerance:
        raise VerificationError()


def _bounded(headers: Mapping[str, str], name: str) -> str:
    value = headers.get(name, "")
    if len(value) > MAX_HEADER_LENGTH:
        raise VerificationError()
    return value


def _hex(secret: str, content: bytes) -> str:
    return hmac.digest(_key(secret), content, sha256).hex()


def _base64(secret: str, content: bytes) -> str:
    return b64encode(hmac.digest(_key(secret), content, sha256)).decode()


def _key(secret: str) -> bytes:
    if not secret:
        # Everybody can sign with an empty key.
        raise VerificationError()
    try:
        return secret.encode()
    except UnicodeEncodeError:
        raise VerificationError() from None


def _text(data: Any, name: str) -> str:
    value = data.get(name) if isinstance(data, dict) else None
    return str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""


def _form(body: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        raise UnreadableWebhook() from None


def _form_field(body: bytes, name: str) -> bytes:
    return (_form(body).get(name) or [""])[0].encode(errors="replace")
