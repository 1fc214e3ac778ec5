"""What the apikeys app refuses, in the words its caller reads."""

from __future__ import annotations

from typing import Any

from ..errors import AuthenticationError, ConflictError, PermissionDeniedError, RateLimitedError

CHALLENGE = "ApiKey"
"""The scheme that WWW-Authenticate names for the header (RFC 9110, section 11.6.1)."""


class InvalidKey(AuthenticationError):
    """This API key is not valid."""

    # One message for malformed, unknown, revoked, expired and disabled: a guesser learns nothing.
    code = "apikeys.invalid"

    def __init__(self, message: str | None = None, **options: Any) -> None:
        super().__init__(message, **options)
        self.headers["WWW-Authenticate"] = CHALLENGE


class ScopeNotHeld(PermissionDeniedError):
    """A key cannot have a scope that its owner, or whoever makes it, does not hold."""

    code = "apikeys.scope_not_held"


class KeysCannotManageKeys(PermissionDeniedError):
    """An API key cannot make, change or list API keys; sign in as a user."""

    code = "apikeys.not_for_keys"


class ForeignTenant(PermissionDeniedError):
    """A key can only be made in the tenant of whoever makes it."""

    code = "apikeys.foreign_tenant"


class LimitLoosened(PermissionDeniedError):
    """You may tighten the networks, the rate and the quota of a key, not loosen them."""

    code = "apikeys.limit_loosened"


class TooManyKeys(ConflictError):
    """You have as many keys as you may; revoke one first."""

    code = "apikeys.too_many_keys"


class OwnerDisabled(ConflictError):
    """The owner is disabled, so no key can act for them."""

    code = "apikeys.owner_disabled"


class KeyNotUsable(ConflictError):
    """This key is revoked, expired or rotated already; issue a new one."""

    code = "apikeys.not_usable"


class KeyAlreadyRevoked(ConflictError):
    """This key was revoked already."""

    code = "apikeys.already_revoked"


class AddressNotAllowed(PermissionDeniedError):
    """This API key may not be used from this address."""

    code = "apikeys.address_not_allowed"


class RateExceeded(RateLimitedError):
    """This API key is used too often; wait as long as Retry-After says."""

    code = "apikeys.rate_exceeded"


class QuotaExceeded(RateLimitedError):
    """The quota of this API key is used up; wait as long as Retry-After says."""

    code = "apikeys.quota_exceeded"
