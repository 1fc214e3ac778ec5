"""What only we can make: keyed digests of an account's state, and the keys in mails that are bound to one.

Of a key in a mail nothing is stored. Using it changes the state, so it cannot be used again.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from hashlib import blake2b, sha256
from typing import Any

from django.core import signing

from ..sealing import derived_keys
from .errors import InvalidKey

VERIFY = "accounts.email_key"
RESET = "accounts.reset_key"
CHANGE = "accounts.address_key"


def make_key(purpose: str, subject: object, state: tuple[object, ...]) -> str:
    """A key for `subject`, good while the account's `state` is what it is now."""
    return signing.dumps([str(subject), keyed_states(purpose, *state)[0]], salt=f"svc_infra_django.{purpose}")


def subject_of(purpose: str, key: str, *, max_age: int) -> tuple[str, str]:
    """Whom the key is for, and the digest of the state it wants. Raises InvalidKey."""
    try:
        subject, state = signing.loads(key, salt=f"svc_infra_django.{purpose}", max_age=max_age)
    except (signing.BadSignature, ValueError, TypeError):
        raise bad_key() from None
    return str(subject), str(state)


def demand_state(purpose: str, wanted: str, state: tuple[object, ...]) -> None:
    """Raise InvalidKey unless the account is still in the state that the key was made for."""
    if wanted not in keyed_states(purpose, *state):
        raise bad_key()


def bad_key() -> InvalidKey:
    """The one refusal for every fault of a key."""
    return InvalidKey.at("/body/key", InvalidKey().message)


def verification_state(address: Any) -> tuple[object, ...]:
    """What a verification key is bound to: the address, unproven, and the password of who signed up."""
    return (address.pk, address.email, address.verified, address.user.password)


def reset_state(user: Any, addresses: list[str]) -> tuple[object, ...]:
    """What a reset key is bound to: password, last login and every address of the user."""
    return (user.pk, user.password, getattr(user, "last_login", ""), *addresses)


def address_state(user: Any, addresses: list[str]) -> tuple[object, ...]:
    """What a key for another address is bound to: password and every address of the user."""
    return (user.pk, user.password, *addresses)


def subject_digest(subject: str) -> str:
    """A keyed name for an account or client that is counted: the table gives no addresses away."""
    return hmac.new(
        derived_keys("accounts.throttle")[0], subject.encode("utf-8", "replace"), sha256
    ).hexdigest()


def password_state(user: Any) -> str:
    """A keyed digest of the stored password hash: it differs after every change, by whatever path."""
    return password_states(user)[0]


def password_states(user: Any) -> list[str]:
    """The same under every key that is still good, the present one first."""
    return keyed_states("accounts.password_state", user.pk, user.password)


def has_password_state(user: Any, state: str) -> bool:
    """Whether the user's password is still what it was when `state` was taken."""
    return any(
        hmac.compare_digest(known, state)
        for known in _states("accounts.password_state", user.pk, user.password)
    )


def keyed_states(purpose: str, *parts: object) -> list[str]:
    """Keyed digests of `parts`, one under each of the keys for `purpose`, the present one first."""
    return list(_states(purpose, *parts))


def _states(purpose: str, *parts: object) -> Iterator[str]:
    message = "\x00".join(str(part) for part in parts).encode("utf-8", "replace")
    # Keyed BLAKE2b (RFC 7693): every strict check asks for it, and it is Python's own, without OpenSSL.
    return (blake2b(message, key=key, digest_size=32).hexdigest() for key in derived_keys(purpose))
