"""Secrets at rest: sealed with a key that the database does not hold.

The keys are derived from `SECRET_KEY` and `SECRET_KEY_FALLBACKS` by HKDF (RFC 5869), one for each
purpose, and used with AES-256-GCM. Rotating the Django key therefore rotates these: old rows open
with the fallback until they are sealed again.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache
from hashlib import sha256
from os import urandom

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.utils.encoding import force_bytes

from .errors import ConfigurationError

VERSION = "v1"


class UnsealingFailed(ConfigurationError):
    """A stored secret cannot be opened. Put the SECRET_KEY that sealed it into SECRET_KEY_FALLBACKS."""

    code = "sealing.failed"


def seal(secret: str, *, context: str) -> str:
    """Encrypt `secret` for storage, bound to `context` (say, `webhooks.signing_key:<id>`)."""
    key = derived_keys("sealing")[0]
    nonce = urandom(12)
    box = AESGCM(key).encrypt(nonce, secret.encode(), context.encode())
    return f"{VERSION}.{key_id(key)}.{urlsafe_b64encode(nonce + box).decode()}"


def unseal(sealed: str, *, context: str) -> str:
    """Decrypt what `seal` made with the same `context`. Raises UnsealingFailed if it cannot be opened."""
    version, _, rest = sealed.partition(".")
    wanted, _, body = rest.partition(".")
    key = next((key for key in derived_keys("sealing") if key_id(key) == wanted), None)
    if version != VERSION or key is None:
        raise UnsealingFailed()
    try:
        raw = urlsafe_b64decode(body)
        return AESGCM(key).decrypt(raw[:12], raw[12:], context.encode()).decode()
    except (InvalidTag, ValueError):
        raise UnsealingFailed() from None


def derived_keys(purpose: str) -> tuple[bytes, ...]:
    """256-bit keys for `purpose`, the present one first, then those of the fallbacks."""
    secrets = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    return tuple(_derive(force_bytes(secret), purpose) for secret in secrets)


@lru_cache(maxsize=64)
def key_id(key: bytes) -> str:
    """A short public name for a key: it says which one opens the box, and nothing about the key."""
    return sha256(b"svc_infra_django.key_id" + key).hexdigest()[:8]


@lru_cache(maxsize=64)
def _derive(secret: bytes, purpose: str) -> bytes:
    info = f"svc_infra_django.{purpose}".encode()
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)
