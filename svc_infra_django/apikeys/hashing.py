"""How a key is written, recognised and digested: `{brand}_{kind}_{environment}_{secret}{checksum}`."""

from __future__ import annotations

import hmac
import re
import secrets
from typing import NamedTuple
from zlib import crc32

from ..sealing import derived_keys, key_id
from .conf import settings

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SECRET_LENGTH = 32
"""32 characters of base 62 are 190 bits: no guessing, so a fast digest is enough (ASVS 6.5.2)."""

CHECKSUM_LENGTH = 6
LAST_SHOWN = 4
LONGEST_KEY = 80

PEPPER = "apikeys.pepper"

KEY = re.compile(
    rf"(?P<prefix>[a-z][a-z0-9]{{1,15}}_(?P<kind>[a-z]{{2,4}})_(?P<environment>live|test)_)"
    rf"(?P<body>[0-9A-Za-z]{{{SECRET_LENGTH}}})(?P<checksum>[0-9A-Za-z]{{{CHECKSUM_LENGTH}}})"
)


class Parts(NamedTuple):
    """What may be shown of a key, and where it belongs."""

    prefix: str
    kind: str
    environment: str
    last4: str


def new_key(*, brand: str, environment: str, kind: str = "sk") -> tuple[str, Parts]:
    """A fresh key from the system's random source, and what may be shown of it."""
    prefix = f"{brand}_{kind}_{environment}_"
    text = prefix + "".join(secrets.choice(ALPHABET) for _ in range(SECRET_LENGTH))
    text += checksum(text)
    return text, Parts(prefix, kind, environment, text[-LAST_SHOWN:])


def parse_key(text: str) -> Parts | None:
    """The parts of a well-formed key, or None if its shape or checksum is wrong. Looks nothing up."""
    match = KEY.fullmatch(text)
    if match is None or checksum(text[:-CHECKSUM_LENGTH]) != match["checksum"]:
        return None
    return Parts(match["prefix"], match["kind"], match["environment"], text[-LAST_SHOWN:])


def checksum(text: str) -> str:
    """CRC-32 (ISO 3309) of `text` in base 62, six characters: it finds typing errors, it proves nothing."""
    number = crc32(text.encode())
    digits = ""
    for _ in range(CHECKSUM_LENGTH):
        number, rest = divmod(number, len(ALPHABET))
        digits = ALPHABET[rest] + digits
    return digits


def digest(text: str, *, pepper: bytes) -> bytes:
    """HMAC-SHA-256 (RFC 2104) under a pepper that the database does not hold: 32 bytes."""
    return hmac.digest(pepper, text.encode(), "sha256")


def peppers() -> dict[str, bytes]:
    """The peppers by name, the present one first. Raises SecretUnreadable."""
    own = (hmac.digest(secret.reveal().encode(), PEPPER.encode(), "sha256") for secret in settings.peppers)
    return {key_id(pepper): pepper for pepper in (*own, *derived_keys(PEPPER))}
