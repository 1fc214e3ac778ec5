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
    return password_states(user)[0]


def password_states(user: Any) -> list[str]:
    """The same under every key that is still good, the present one first."""
    return keyed_states("accounts.password_state", user.pk, user.password)


def has_password_state(user: Any, state: str) -> bool:
    """Whether the user's password is still what it was when `state` was taken."""
    return any(hmac.compare_digest(known, state) for known in password_states(user))


def keyed_states(purpose: str, *parts: object) -> list[str]:
    """Keyed digests of `parts`, one under each of the keys for `purpose`, the present one first."""
    message = "\x00".join(str(part) for part in parts).encode("utf-8", "replace")
    return [hmac.new(key, message, sha256).hexdigest() for key in derived_keys(purpose)]
