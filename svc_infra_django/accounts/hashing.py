"""Digests: of tokens that only need to be recognised, of passwords' states, of who is being counted."""

from __future__ import annotations

import hmac
import re
from hashlib import sha256
from secrets import choice, token_urlsafe
from string import ascii_uppercase
from typing import Any

from ..sealing import derived_keys

ASCII_LOWER = str.maketrans({letter: letter.lower() for letter in ascii_uppercase})

# Crockford's alphabet: no letter that looks like a digit. 24 characters are 120 bits.
RECOVERY_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
RECOVERY_LENGTH = 24
RECOVERY_CODE = re.compile(rf"[{RECOVERY_ALPHABET}]{{{RECOVERY_LENGTH}}}")


def new_token(prefix: str) -> str:
    """An opaque token of 256 random bits; `prefix` tells people and scanners what it is."""
    return f"{prefix}_{token_urlsafe(32)}"


def token_digest(token: str) -> str:
    """What is stored of a token. Plain SHA-256 is enough: nobody guesses 256 random bits."""
    return sha256(token.encode()).hexdigest()


def new_recovery_code() -> str:
    """A recovery code of 120 random bits, in groups that can be copied by hand."""
    letters = "".join(choice(RECOVERY_ALPHABET) for _ in range(RECOVERY_LENGTH))
    return "-".join(letters[start : start + 6] for start in range(0, RECOVERY_LENGTH, 6))


def recovery_digest(code: str) -> str | None:
    """The digest of what may be a recovery code, however it was typed; None if it cannot be one."""
    plain = code.translate(ASCII_LOWER).replace("-", "").replace(" ", "")
    return token_digest(plain) if RECOVERY_CODE.fullmatch(plain) else None


def folded(address: str) -> str:
    """An e-mail address as it is compared: ASCII letters in lower case, blanks around it gone.

    Unicode is never folded: the Kelvin sign and the dotless i are not k and i.
    """
    return address.strip(" \t\r\n").translate(ASCII_LOWER)


def subject_digest(subject: str) -> str:
    """A keyed name for an account or client that is counted: the table gives no addresses away."""
    return hmac.new(
        derived_keys("accounts.throttle")[0], subject.encode("utf-8", "replace"), sha256
    ).hexdigest()


def password_state(user: Any) -> str:
    """A keyed digest of the stored password hash: it differs after every change, by whatever path."""
    return _password_state(user, derived_keys("accounts.password_state")[0])


def has_password_state(user: Any, state: str) -> bool:
    """Whether the user's password is still what it was when `state` was taken."""
    keys = derived_keys("accounts.password_state")
    return any(hmac.compare_digest(_password_state(user, key), state) for key in keys)


def _password_state(user: Any, key: bytes) -> str:
    return hmac.new(key, f"{user.pk}:{user.password}".encode(), sha256).hexdigest()
