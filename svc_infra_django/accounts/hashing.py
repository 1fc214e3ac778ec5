"""Tokens and codes that only need to be recognised: made here, kept as digests."""

from __future__ import annotations

import re
from hashlib import sha256
from secrets import choice, token_urlsafe

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


def plain_recovery_code(code: str) -> str:
    """The code without what people add or change when they type it."""
    return code.lower().replace("-", "").replace(" ", "")


def looks_like_recovery_code(code: str) -> bool:
    """Whether `code` can be a recovery code at all."""
    return RECOVERY_CODE.fullmatch(plain_recovery_code(code)) is not None
