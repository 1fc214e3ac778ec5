"""Keys in mails: signed, good for one purpose, for a while, and for one state of the account.

Nothing is stored. Using a key changes the state that it is bound to, so it cannot be used again.
"""

from __future__ import annotations

from typing import Any

from django.core import signing

from .errors import InvalidKey
from .hashing import keyed_states

VERIFY = "accounts.email_key"
RESET = "accounts.reset_key"


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
