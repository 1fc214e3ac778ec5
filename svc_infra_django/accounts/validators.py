"""Passwords that are known already: refused without asking anybody outside.

The file is the one that Have I Been Pwned gives away, "ordered by hash": a SHA-1 in hex at the start of
each line, sorted. It is searched where it lies, some thirty reads a password, however large it is.
"""

from __future__ import annotations

import re
from hashlib import sha1
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from django.core.exceptions import ValidationError

from .conf import settings

HEX_LENGTH = 40
LEAST_BESIDE_A_WORD = 8

LINE = re.compile(rb"[0-9A-Fa-f]{40}(:\d+)?\r?\n?")


class KnownPasswordValidator:
    """For AUTH_PASSWORD_VALIDATORS, so that the admin refuses what the API refuses.

    Refuses passwords of `breached_passwords_file`, and those that are little more than one of
    `password_site_words`.
    """

    def validate(self, password: str, user: Any = None) -> None:
        """Raises Django's ValidationError."""
        if is_site_word(password):
            raise ValidationError(
                "This password is little more than our own name.", code="password_site_word"
            )
        path = settings.breached_passwords_file
        if path and is_listed(password, Path(path)):
            raise ValidationError(
                "This password is in lists that attackers have. Choose one that you use nowhere else.",
                code="password_breached",
            )

    def get_help_text(self) -> str:
        return "Your password must not be one that attackers have in their lists, nor our own name."


def is_site_word(password: str) -> bool:
    """Whether fewer than eight letters and digits are left without the words of the site."""
    folded = password.casefold()
    rest = folded
    for word in settings.password_site_words:
        rest = rest.replace(word.casefold(), "")
    return rest != folded and sum(letter.isalnum() for letter in rest) < LEAST_BESIDE_A_WORD


def is_listed(password: str, path: Path) -> bool:
    """Whether the sorted file of SHA-1 digests has the password's."""
    wanted = sha1(password.encode("utf-8", "replace"), usedforsecurity=False).hexdigest().upper().encode()
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as lines:
        low, high = 0, len(lines)
        while low < high:
            start = lines.rfind(b"\n", low, (low + high) // 2) + 1 or low
            found = lines[start : start + HEX_LENGTH].upper()
            if found == wanted:
                return True
            if found < wanted:
                low = (lines.find(b"\n", start, high) + 1) or high
            else:
                high = start
    return False


def looks_sorted(path: Path) -> bool:
    """Whether the file begins as it should, for a check at start-up. Raises OSError if there is none."""
    with path.open("rb") as file:
        first = [file.readline(80) for _ in range(1000)]
    lines = [line for line in first if line]
    digests = [line[:HEX_LENGTH].upper() for line in lines]
    return bool(lines) and all(map(LINE.fullmatch, lines)) and digests == sorted(digests)
