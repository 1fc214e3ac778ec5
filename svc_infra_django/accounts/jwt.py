"""Access tokens: short-lived signed statements about a session (RFC 9068, RFC 8725)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any
from uuid import UUID

import jwt
from django.core.signals import setting_changed
from jwt.exceptions import InvalidTokenError
from rest_framework_simplejwt import tokens
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError, TokenError

from ..sealing import derived_keys, key_id
from .conf import settings

ALGORITHM = "HS256"
TYPE = "at+jwt"
MAX_LENGTH = 4096
REQUIRED = ("exp", "iat", "jti", "sub", "iss", "aud", "sid")
CLAIMS_LIMIT = 20_000

# RFC 7515, section 2: no padding. Lenient decoders would take many spellings of one token.
COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class InvalidJWT(Exception):
    """Not a token of ours, or not any more."""


class KeyRing(TokenBackend):
    """Signs with the present key, verifies with the key that `kid` names in the ring.

    The algorithm is fixed here; the header's `alg` only has to agree. Keys are derived from SECRET_KEY
    and SECRET_KEY_FALLBACKS, so a rotated secret verifies old tokens and signs none.
    """

    def __init__(self) -> None:
        super().__init__(
            ALGORITHM,
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.token_leeway_seconds,
        )
        keys = derived_keys("accounts.jwt")
        self.signing_kid = key_id(keys[0])
        self.ring = {key_id(key): key for key in keys}

    def encode(self, payload: dict[str, Any]) -> str:
        return jwt.encode(
            {**payload, "iss": self.issuer, "aud": self.audience},
            self.ring[self.signing_kid],
            algorithm=ALGORITHM,
            headers={"kid": self.signing_kid, "typ": TYPE},
        )

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        try:
            return jwt.decode(
                token,
                self._key(jwt.get_unverified_header(token)),
                algorithms=[ALGORITHM],
                audience=self.audience,
                issuer=self.issuer,
                leeway=self.get_leeway(),
                options={"require": list(REQUIRED)},
            )
        # A forged header or payload may also be JSON of a depth or shape that the parser gives up on.
        except (InvalidTokenError, ValueError, TypeError, RecursionError) as error:
            raise TokenBackendError("Token is invalid") from error

    def _key(self, header: dict[str, Any]) -> bytes:
        kid = header.get("kid")
        if header.get("typ") != TYPE or "crit" in header or not isinstance(kid, str) or kid not in self.ring:
            raise TokenBackendError("Token is invalid")
        return self.ring[kid]


class AccessToken(tokens.AccessToken):
    """simplejwt's access token with our key ring and our claims: `sub`, `sid`, `amr`, `auth_time`."""

    @property
    def lifetime(self) -> timedelta:  # type: ignore[override]  # a class attribute there, a setting here
        return timedelta(seconds=settings.access_token_seconds)

    def get_token_backend(self) -> KeyRing:
        return key_ring()


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says: whose it is, of which session, until when."""

    subject: str
    session_id: UUID
    expires_at: int


def opened(token: str, *, now: datetime) -> Claims:
    """Verify `token`. Raises InvalidJWT, whatever is wrong with it.

    The claims of a good token are remembered under a digest of the whole of it, until it expires: its
    signature is checked once in each process.
    """
    if len(token) > MAX_LENGTH or not COMPACT.fullmatch(token):
        raise InvalidJWT
    digest = sha256(token.encode()).digest()
    claims = _verified.get(digest)
    if claims is None:
        claims = _verify(token)
        _verified.put(digest, claims)
    if claims.expires_at <= now.timestamp() - settings.token_leeway_seconds:
        raise InvalidJWT
    return claims


def _verify(token: str) -> Claims:
    try:
        # simplejwt's hint names its own class, its code takes text.
        claims = AccessToken(token)  # type: ignore[arg-type]
        return Claims(str(claims["sub"]), UUID(claims["sid"]), int(claims["exp"]))
    except (TokenError, ArithmeticError, AttributeError, TypeError, ValueError):
        raise InvalidJWT from None


@cache
def key_ring() -> KeyRing:
    """The ring of the present settings, prepared once."""
    return KeyRing()


class _Verified:
    """Claims by the digest of their token, in two generations: the older goes when the younger is full."""

    def __init__(self) -> None:
        self._young: dict[bytes, Claims] = {}
        self._old: dict[bytes, Claims] = {}

    def get(self, digest: bytes) -> Claims | None:
        return self._young.get(digest) or self._old.get(digest)

    def put(self, digest: bytes, claims: Claims) -> None:
        if len(self._young) >= CLAIMS_LIMIT // 2:
            self._old, self._young = self._young, {}
        self._young[digest] = claims

    def clear(self) -> None:
        self._young, self._old = {}, {}


_verified = _Verified()


def _forget_keys(**_: Any) -> None:
    key_ring.cache_clear()
    _verified.clear()


setting_changed.connect(_forget_keys, dispatch_uid="svc_infra_django.accounts.jwt")
