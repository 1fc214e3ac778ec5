"""Signatures of Standard Webhooks 1.0, v1 and v1a, and the older form of one header over the body.

Plain functions of bytes. What is malformed is refused like what is forged: `verify` raises
VerificationError and `verify_webhook_signature` returns False, neither ever anything else.

Three kinds of keys, as the standard serializes them: `whsec_` is the secret of v1 that sender and receiver
share, `whsk_` the sender's private key of v1a, `whpk_` the public key that goes with it and may be shown to
anybody.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from binascii import b2a_base64
from collections.abc import Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest, digest
from secrets import token_bytes
from time import time
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .errors import VerificationError

SECRET_PREFIX = "whsec_"  # noqa: S105 -- the public prefix of a secret, not one
PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"
TOLERANCE_SECONDS = 300

MAX_SIGNATURES = 16
MAX_HEADER_LENGTH = 4096
KNOWN_KEYS = 4096
BLOCK_SIZE = 64

ID_HEADER = "webhook-id"
TIMESTAMP_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"

# An id without a dot and a timestamp of digits, as they are signed: so there is one way to read them.
is_signed_head = re.compile(r"[!-\-/-~]{1,256}\.[0-9]{1,12}\.").fullmatch
HEX_DIGEST = re.compile(r"[0-9a-fA-F]{64}")

Key = bytes | Ed25519PrivateKey
"""What signs: the bytes of a v1 secret, or the private key of v1a."""


def new_secret() -> str:
    """A fresh `whsec_…` secret of 32 random bytes (the standard asks for 24 to 64)."""
    return SECRET_PREFIX + b64encode(token_bytes(32)).decode()


def new_private_key() -> str:
    """A fresh `whsk_…` key for v1a (Ed25519, RFC 8032): the seed and the public key, 64 bytes."""
    seed = token_bytes(32)
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return PRIVATE_PREFIX + b64encode(seed + public).decode()


def public_key(private_key: str) -> str:
    """The `whpk_…` key that verifies what this `whsk_…` key signs. Raises ValueError for anything else."""
    key = secret_key(private_key)
    if isinstance(key, bytes):
        raise ValueError("A private key begins with `whsk_`.")
    return PUBLIC_PREFIX + b64encode(key.public_key().public_bytes_raw()).decode()


def secret_key(secret: str) -> Key:
    """The key inside a `whsec_…` secret, with or without its prefix, or inside a `whsk_…` private key.

    Raises ValueError if there is none.
    """
    if secret.startswith(PRIVATE_PREFIX):
        raw = _decoded(secret.removeprefix(PRIVATE_PREFIX))
        key = Ed25519PrivateKey.from_private_bytes(raw[:32]) if len(raw) == 64 else None
        if key is None or key.public_key().public_bytes_raw() != raw[32:]:
            raise ValueError("A private key is `whsk_` and the base64 of its seed and its public key.")
        return key
    return _decoded(secret.removeprefix(SECRET_PREFIX))


def sign(body: bytes, *, message_id: str, timestamp: int, keys: Iterable[Key]) -> str:
    """The `webhook-signature` header: an item for each key (Standard Webhooks, "Signature scheme").

    `v1,` and the HMAC-SHA256 for a secret, `v1a,` and the Ed25519 signature for a private key. `timestamp`
    is of the attempt, in whole unix seconds; several keys of a kind mean a rotation.
    """
    content = b"%b.%d.%b" % (message_id.encode(), timestamp, body)
    return " ".join([_item(key, content) for key in keys])


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
    `secrets` is one or several `whsec_…` secrets and `whpk_…` public keys; one right signature is enough.
    A secret verifies v1 items only and a public key v1a items only. The timestamp may lie `tolerance`
    seconds from `now` (unix seconds) on either side. Raises VerificationError.
    """
    try:
        return _verified(body, headers, secrets, tolerance, time() if now is None else now)
    except (ValueError, TypeError, AttributeError, KeyError):
        # A body that is no bytes, headers that are no mapping of text, a secret that is none.
        raise VerificationError() from None


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


def _verified(
    body: bytes, headers: Mapping[str, str], secrets: str | Iterable[str], tolerance: int, now: float
) -> str:
    keys = [_verifying_key(secrets)] if isinstance(secrets, str) else [_verifying_key(one) for one in secrets]
    find = headers.get
    message_id, timestamp, offered = find(ID_HEADER), find(TIMESTAMP_HEADER), find(SIGNATURE_HEADER)
    if message_id is None or timestamp is None or offered is None:
        named = {name.lower(): value for name, value in headers.items()}
        message_id, timestamp, offered = named[ID_HEADER], named[TIMESTAMP_HEADER], named[SIGNATURE_HEADER]

    head = f"{message_id}.{timestamp}."
    if not is_signed_head(head) or len(offered) > MAX_HEADER_LENGTH:
        raise VerificationError()
    if abs(now - int(timestamp)) > tolerance:
        raise VerificationError()

    content = head.encode() + body
    items = offered.split(" ")[:MAX_SIGNATURES]
    for key in keys:
        if _is_signed(content, items, key):
            return message_id
    raise VerificationError()


def _item(key: Key, content: bytes) -> str:
    if isinstance(key, bytes):
        inner, outer = _keyed(key)
        inner, outer = inner.copy(), outer.copy()
        inner.update(content)
        outer.update(inner.digest())
        return "v1," + b2a_base64(outer.digest(), newline=False).decode()
    return "v1a," + b2a_base64(key.sign(content), newline=False).decode()


def _is_signed(content: bytes, items: Iterable[str], key: bytes | Ed25519PublicKey) -> bool:
    if isinstance(key, bytes):
        own = _item(key, content)
        for item in items:  # noqa: SIM110 -- a generator takes as long as the HMAC
            # compare_digest refuses text outside ASCII with a TypeError.
            if item.isascii() and compare_digest(item, own):
                return True
        return False
    return any(_is_signed_by(key, item, content) for item in items if item.startswith("v1a,"))


def _is_signed_by(key: Ed25519PublicKey, item: str, content: bytes) -> bool:
    try:
        key.verify(b64decode(item.removeprefix("v1a,"), validate=True), content)
    except (InvalidSignature, Base64Error, ValueError):
        return False
    return True


@lru_cache(maxsize=KNOWN_KEYS)
def _keyed(key: bytes) -> tuple[Any, Any]:
    """The inner and the outer hash of HMAC, begun with the key (RFC 2104).

    Every message under the key goes on from a copy. That costs half of what `hmac.digest` does, which
    begins both anew, and less than a copy of an `hmac.HMAC`, which goes through layers of Python.
    """
    block = (sha256(key).digest() if len(key) > BLOCK_SIZE else key).ljust(BLOCK_SIZE, b"\0")
    return sha256(bytes(byte ^ 0x36 for byte in block)), sha256(bytes(byte ^ 0x5C for byte in block))


@lru_cache(maxsize=KNOWN_KEYS)
def _verifying_key(secret: str) -> bytes | Ed25519PublicKey:
    if secret.startswith(PUBLIC_PREFIX):
        return Ed25519PublicKey.from_public_bytes(_decoded(secret.removeprefix(PUBLIC_PREFIX)))
    key = secret_key(secret)
    if not isinstance(key, bytes):
        raise ValueError("A receiver verifies with the public key, `whpk_…`.")
    return key


def _decoded(text: str) -> bytes:
    try:
        raw = b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (Base64Error, ValueError):
        raise ValueError("A webhook key is a prefix and base64.") from None
    if not raw:
        raise ValueError("A webhook key is not empty.")
    return raw


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
    return any(compare_digest(f"sha256={offered.lower()}", own) for own in expected)
