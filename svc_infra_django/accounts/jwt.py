"""Access tokens: short-lived signed statements about a session (RFC 9068, RFC 8725)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import jwt
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
        return KeyRing()

    @classmethod
    def opened(cls, token: str) -> AccessToken:
        """Verify `token`. Raises InvalidJWT, whatever is wrong with it."""
        if len(token) > MAX_LENGTH or not token.isascii():
            raise InvalidJWT
        try:
            return cls(token)  # type: ignore[arg-type]  # simplejwt's hint names its own class, its code takes text
        except (TokenError, ArithmeticError, TypeError, ValueError):
            raise InvalidJWT from None
