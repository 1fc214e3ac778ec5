"""Access tokens: short-lived signed statements about a session (RFC 9068, RFC 8725)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from hashlib import blake2b
from secrets import token_hex
from typing import Any
from uuid import UUID

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from django.core.signals import setting_changed
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import InvalidTokenError
from rest_framework_simplejwt import tokens
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError, TokenError

from ..memory import Memory
from ..sealing import derived_keys, key_id
from .conf import settings
from .errors import NoSigningKey

TYPE = "at+jwt"
MAX_LENGTH = 4096
REQUIRED = ("exp", "iat", "jti", "sub", "iss", "aud", "sid")
CLAIMS_LIMIT = 20_000
RSA_BITS = 3072

# RFC 7515, section 2: no padding. Lenient decoders would take many spellings of one token.
COMPACT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


class InvalidJWT(Exception):
    """Not a token of ours, or not any more."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of the ring: one name, one algorithm, and what signs and verifies by it."""

    kid: str
    algorithm: str
    private: Any = field(repr=False)
    public: Any = field(repr=False)

    @property
    def jwk(self) -> dict[str, Any] | None:
        """The public part as a JSON Web Key (RFC 7517); None for HMAC, which has none."""
        if self.algorithm == "HS256":
            return None
        parts = json.loads(get_default_algorithms()[self.algorithm].to_jwk(self.public))
        wanted = {name: value for name, value in parts.items() if name in ("kty", "crv", "x", "y", "n", "e")}
        return {**wanted, "kid": self.kid, "alg": self.algorithm, "use": "sig"}


def new_private(algorithm: str) -> str:
    """A fresh private key for `algorithm`, in PEM; for HS256 256 random bits, in hex."""
    match algorithm:
        case "EdDSA":
            return _pem(ed25519.Ed25519PrivateKey.generate())
        case "ES256":
            return _pem(ec.generate_private_key(ec.SECP256R1()))
        case "RS256":
            return _pem(rsa.generate_private_key(65537, RSA_BITS))
        case "HS256":
            return token_hex(32)
    raise ValueError(f"There is no algorithm {algorithm!r} here.")


def made_key(kid: str, algorithm: str, private: str) -> Key:
    """The key that `new_private` wrote."""
    if algorithm == "HS256":
        secret = bytes.fromhex(private)
        return Key(kid, algorithm, secret, secret)
    opened_key: Any = serialization.load_pem_private_key(private.encode(), password=None)
    return Key(kid, algorithm, opened_key, opened_key.public_key())


def _pem(key: Any) -> str:
    text: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return text.decode()


class KeyRing(TokenBackend):
    """Signs with one key, verifies with the key that `kid` names in the ring.

    Each key has its algorithm; the header's `alg` only has to agree with it.
    """

    def __init__(self, signing: Key | None, verifying: Iterable[Key]) -> None:
        super().__init__(
            "HS256",
            audience=settings.audience,
            issuer=settings.issuer,
            leeway=settings.token_leeway_seconds,
        )
        self.signing = signing
        self.keys: Mapping[str, Key] = {key.kid: key for key in verifying}

    @property
    def jwks(self) -> dict[str, Any]:
        """What others verify our tokens with (RFC 7517, section 5)."""
        return {"keys": [jwk for key in self.keys.values() if (jwk := key.jwk) is not None]}

    def encode(self, payload: dict[str, Any]) -> str:
        if self.signing is None:
            raise NoSigningKey()
        return jwt.encode(
            {**payload, "iss": self.issuer, "aud": self.audience},
            self.signing.private,
            algorithm=self.signing.algorithm,
            headers={"kid": self.signing.kid, "typ": TYPE},
        )

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        try:
            key = self._key(jwt.get_unverified_header(token))
            return jwt.decode(
                token,
                key.public,
                algorithms=[key.algorithm],
                audience=self.audience,
                issuer=self.issuer,
                leeway=self.get_leeway(),
                options={"require": list(REQUIRED)},
            )
        # A forged header or payload may also be JSON of a depth or shape that the parser gives up on.
        except (InvalidTokenError, ValueError, TypeError, RecursionError) as error:
            raise TokenBackendError("Token is invalid") from error

    def _key(self, header: dict[str, Any]) -> Key:
        kid = header.get("kid")
        if header.get("typ") != TYPE or "crit" in header or not isinstance(kid, str) or kid not in self.keys:
            raise TokenBackendError("Token is invalid")
        return self.keys[kid]


class AccessToken(tokens.AccessToken):
    """simplejwt's access token with our key ring and our claims: `sub`, `sid`, `amr`, `auth_time`."""

    def __init__(self, ring: KeyRing, token: str | None = None) -> None:
        self.ring = ring
        # simplejwt's hint names its own class, its code takes text.
        super().__init__(token)  # type: ignore[arg-type]

    @property
    def lifetime(self) -> timedelta:  # type: ignore[override]  # a class attribute there, a setting here
        return timedelta(seconds=settings.access_token_seconds)

    def get_token_backend(self) -> KeyRing:
        return self.ring


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says: whose it is, of which session, until when, and by which key."""

    subject: str
    session_id: UUID
    session_text: str
    token_id: str
    auth_time: int
    issued_at: int
    expires_at: int
    kid: str


def opened(token: str, name: bytes, *, ring: KeyRing, now: datetime) -> Claims:
    """Verify `token`. Raises InvalidJWT, whatever is wrong with it.

    The claims of a good token are remembered by `name`, a digest that no other text has, until it expires
    or its key leaves the ring: a signature is checked once in each process.
    """
    if len(token) > MAX_LENGTH:
        raise InvalidJWT
    claims = verified.recall(name)
    if claims is None:
        if not COMPACT.fullmatch(token):
            raise InvalidJWT
        claims = _verify(token, ring)
        verified.keep(name, claims, verified.ticket())
    if claims.kid not in ring.keys or claims.expires_at <= now.timestamp() - settings.token_leeway_seconds:
        raise InvalidJWT
    return claims


def digest_of(text: str) -> bytes:
    """By what a token, or a header with one, is remembered: a digest, and nothing that could be sent."""
    # Python's own, so that a request need not go through the providers of OpenSSL for it.
    return blake2b(text.encode("utf-8", "surrogatepass")).digest()


def named_key(token: str) -> str:
    """The `kid` that a token names, unverified; empty if it names none."""
    try:
        kid = jwt.get_unverified_header(token).get("kid") if len(token) <= MAX_LENGTH else ""
    except (InvalidTokenError, ValueError, TypeError, RecursionError, AttributeError):
        return ""
    return kid if isinstance(kid, str) else ""


def _verify(token: str, ring: KeyRing) -> Claims:
    try:
        claims = AccessToken(ring, token)
        return Claims(
            subject=str(claims["sub"]),
            session_id=(session_id := UUID(claims["sid"])),
            session_text=str(session_id),
            token_id=str(claims["jti"]),
            auth_time=int(claims.get("auth_time", 0)),
            issued_at=int(claims["iat"]),
            expires_at=int(claims["exp"]),
            kid=named_key(token),
        )
    except (TokenError, ArithmeticError, AttributeError, TypeError, ValueError):
        raise InvalidJWT from None


@cache
def derived_ring() -> KeyRing:
    """The ring made from SECRET_KEY, which signs, and SECRET_KEY_FALLBACKS, which verify; prepared once."""
    keys = [_derived_key(secret) for secret in derived_keys(f"accounts.jwt.{settings.signing_algorithm}")]
    return KeyRing(keys[0], keys)


def _derived_key(secret: bytes) -> Key:
    kid, algorithm = key_id(secret), settings.signing_algorithm
    if algorithm == "HS256":
        return Key(kid, algorithm, secret, secret)
    private = ed25519.Ed25519PrivateKey.from_private_bytes(secret)
    return Key(kid, algorithm, private, private.public_key())


verified = Memory[Claims](CLAIMS_LIMIT)


def _forget_keys(**_: Any) -> None:
    derived_ring.cache_clear()
    verified.clear()


setting_changed.connect(_forget_keys, dispatch_uid="svc_infra_django.accounts.jwt")
