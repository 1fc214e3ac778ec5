"""Secrets by reference: the settings name the place, the value stays there until it is needed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema

from ..errors import ConfigurationError


class SecretUnreadable(ConfigurationError):
    """A secret cannot be read from the place that the settings name."""

    code = "config.secret_unreadable"


class Secret:
    """A secret kept elsewhere: `Secret("env:NAME")` or `Secret("file:/run/secrets/name")`.

    A file is read again when it changes, so a mounted secret can be rotated without a restart. The
    value shows in no repr, log or settings dump; ask for it with `reveal()`.
    """

    __slots__ = ("_mtime", "_value", "reference")

    def __init__(self, reference: str) -> None:
        scheme, _, place = reference.partition(":")
        if scheme not in ("env", "file") or not place:
            # The text may be the secret itself, pasted: it must not show in the error.
            raise SecretUnreadable('A secret is written Secret("env:NAME") or Secret("file:/path").')
        self.reference = reference
        self._value: str | None = None
        self._mtime = 0

    def reveal(self) -> str:
        """The value. Raises SecretUnreadable if the variable is unset or empty, or the file cannot be read."""
        scheme, _, place = self.reference.partition(":")
        if scheme == "env":
            value = os.environ.get(place, "")
            if not value:
                raise SecretUnreadable(f"The environment variable {place} is not set.")
            return value
        return self._read(Path(place))

    def _read(self, path: Path) -> str:
        try:
            mtime = path.stat().st_mtime_ns
            if self._value is None or mtime != self._mtime:
                self._value, self._mtime = path.read_text().strip(), mtime
        except (OSError, UnicodeDecodeError) as error:
            raise SecretUnreadable(f"{path} cannot be read: {type(error).__name__}.") from None
        if not self._value:
            raise SecretUnreadable(f"{path} is empty.")
        return self._value

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.reference == other.reference

    def __hash__(self) -> int:
        return hash(self.reference)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(cls._validate)

    @classmethod
    def _validate(cls, value: object) -> Secret:
        if isinstance(value, Secret):
            return value
        raise ValueError('write Secret("env:NAME") or Secret("file:/path"), not the secret itself')
