"""Signatures of Standard Webhooks 1.0, and the older form of one header over the body.

Plain functions of bytes. What is malformed is refused like what is forged: `verify` raises
VerificationError and `verify_webhook_signature` returns False, neither ever anything else.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from hashlib import sha256
from hmac import compare_digest, digest
from secrets import token_bytes
from time import time

from .errors import VerificationError

SECRET_PREFIX = "whsec_"  # noqa: S105 -- the public prefix of a secret, not one
TOLERANCE_SECONDS = 300

MAX_SIGNATURES = 16
MAX_HEADER_LENGTH = 4096

ID = re.compile(r"[!-\-/-~]{1,256}")
TIMESTAMP = re.compile(r"[0-9]{1,12}")
HEX_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


def new_secret() -> str:
    """A fresh `whsec_…` secret of 32 random bytes (the standard asks for 24 to 64)."""
    return SECRET_PREFIX + b64encode(token_bytes(32)).decode()


def secret_key(secret: str) -> bytes:
    """The key inside a `whsec_…` secret, with or without its prefix. Raises ValueError if there is none."""
    text = secret.removeprefix(SECRET_PREFIX).rstrip("=")
    try:
        key = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (Base64Error, ValueError):
        raise ValueError("A webhook secret is `whsec_` and base64.") from None
    if not key:
        raise ValueError("A webhook secret is not empty.")
    return key


def sign(body: bytes, *, message_id: str, timestamp: int, keys: Iterable[bytes]) -> str:
    """The `webhook-signature` header: a `v1,` item for each key (Standard Webhooks, "Signature scheme").

    `timestamp` is of the attempt, in whole unix seconds; several keys mean a rotation.
    """
    content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return " ".join(f"v1,{b64encode(digest(key, content, sha256)).decode()}" for key in keys)


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secrets: str | Iterable[str],
    *,
    tolerance: int = TOLERANCE_SECONDS,
    now: float | None = None,
) -> str:
    """Check a received webhook and return its id, by which the receiver drops what it saw before.

    `headers` may be Django's `request.headers` or any mapping; names are compared without case.
    `secrets` is one `whsec_…` or several. The timestamp may lie `tolerance` seconds from `now`
    (unix seconds) on either side. Raises VerificationError.
    """
    try:
        keys = [secret_key(secret) for secret in ((secrets,) if isinstance(secrets, str) else secrets)]
        values = {str(name).lower(): str(value) for name, value in headers.items()}
    except (ValueError, TypeError, AttributeError):
        raise VerificationError() from None
    if not isinstance(body, (bytes, bytearray, memoryview)):
        raise VerificationError()

    message_id = values.get("webhook-id", "")
    timestamp = values.get("webhook-timestamp", "")
    offered = values.get("webhook-signature", "")
    if not ID.fullmatch(message_id) or not TIMESTAMP.fullmatch(timestamp) or len(offered) > MAX_HEADER_LENGTH:
        raise VerificationError()
    if abs((time() if now is None else now) - int(timestamp)) > tolerance:
        raise VerificationError()

    expected = sign(bytes(body), message_id=message_id, timestamp=int(timestamp), keys=keys).split()
    items = offered.split(" ")[:MAX_SIGNATURES]
    if not any(_same(item, own) for item in items for own in expected):
        raise VerificationError()
    return message_id


def verify_webhook_signature(
    payload: bytes,
    signature: str | None = None,
    secret: str | Iterable[str] = "",
    *,
    headers: Mapping[str, str] | None = None,
    tolerance: int = TOLERANCE_SECONDS,
    now: float | None = None,
) -> bool:
    """Whether a received webhook is genuine.

    With `headers` it is checked by Standard Webhooks, timestamp included. With `signature` alone it is
    the weaker, older form: the hex HMAC-SHA256 of the raw body under the secret's text, bare or after
    `sha256=`, as an `X-Signature` header carries it. That form has no timestamp, so whoever recorded a
    request can send it again.
    """
    if headers is not None:
        try:
            verify(payload, headers, secret, tolerance=tolerance, now=now)
        except VerificationError:
            return False
        return True
    return _simple(payload, signature, secret)


def sign_simply(body: bytes, *, secret: str) -> str:
    """The older form's value: `sha256=` and the hex HMAC-SHA256 of the body under the secret's text."""
    return f"sha256={digest(secret.encode(), body, sha256).hex()}"


def _simple(payload: bytes, signature: str | None, secrets: str | Iterable[str]) -> bool:
    if not isinstance(signature, str) or not isinstance(payload, (bytes, bytearray, memoryview)):
        return False
    offered = signature.removeprefix("sha256=")
    if not HEX_DIGEST.fullmatch(offered):
        return False
    try:
        candidates = [secrets] if isinstance(secrets, str) else list(secrets)
        expected = [sign_simply(bytes(payload), secret=secret) for secret in candidates if secret]
    except (AttributeError, TypeError, UnicodeEncodeError):
        return False
    return any(_same(f"sha256={offered.lower()}", own) for own in expected)


def _same(offered: str, own: str) -> bool:
    # compare_digest refuses text outside ASCII with a TypeError; bytes it always compares.
    return compare_digest(offered.encode(errors="replace"), own.encode())
