"""Secrets by reference: the settings name the place, the value stays there until it is needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from ..errors import ConfigurationError

SHORTEST_SCRUBBED = 8

_revealed: set[str] = set()


class SecretUnreadable(ConfigurationError):
    """A secret cannot be read from the place that the settings name."""

    code = "config.secret_unreadable"


class Secret:
    """A secret kept elsewhere: `Secret("env:NAME")` or `Secret("file:/run/secrets/name")`.

    A file is UTF-8, white space round the value is dropped, and it is read again when it changes, so
    a mounted secret can be rotated without a restart. The value shows in no repr, pickle, log or
    settings dump; ask for it with `reveal()`.
    """

    __slots__ = ("_read", "reference")

    def __init__(self, reference: str) -> None:
        scheme, _, place = reference.partition(":") if isinstance(reference, str) else ("", "", "")
        if scheme not in ("env", "file") or not place:
            # The text may be the secret itself, pasted: it must not show in the error.
            raise SecretUnreadable('A secret is written Secret("env:NAME") or Secret("file:/path").')
        self.reference = reference
        # What the file looked like and what stood in it: one tuple, so that threads see both or neither.
        self._read: tuple[tuple[int, int, int], str] | None = None

    def reveal(self) -> str:
        """The value. Raises SecretUnreadable if the variable or the file is missing or empty."""
        scheme, _, place = self.reference.partition(":")
        value = self._from_file(Path(place)) if scheme == "file" else os.environ.get(place, "")
        if not value:
            where = (
                f"{place} is empty" if scheme == "file" else f"The environment variable {place} is not set"
            )
            raise SecretUnreadable(f"{where}.")
        if len(value) >= SHORTEST_SCRUBBED:
            # A traceback shows a key of several lines as its repr.
            _revealed.update((value, repr(value)[1:-1]))
        return value

    def _from_file(self, path: Path) -> str:
        try:
            stat = path.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
            if self._read is not None and self._read[0] == stamp:
                return self._read[1]
            value = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise SecretUnreadable(f"{path} cannot be read: {type(error).__name__}.") from None
        self._read = stamp, value
        return value

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.reference == other.reference

    def __hash__(self) -> int:
        return hash(self.reference)

    def __reduce__(self) -> tuple[type[Secret], tuple[str]]:
        return Secret, (self.reference,)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(cls._validate)

    @classmethod
    def _validate(cls, value: object) -> Secret:
        if isinstance(value, Secret):
            return value
        raise ValueError('write Secret("env:NAME") or Secret("file:/path"), not the secret itself')


def scrubbed(text: str, *, by: str) -> str:
    """`text` with every value that a `Secret` revealed in this process replaced `by` something harmless.

    Values of fewer than eight characters stay: they would black out innocent words.
    """
    # The longest first: a secret may be the beginning of another one.
    for value in sorted(_revealed, key=len, reverse=True):
        if value in text:
            text = text.replace(value, by)
    return text
