"""Secrets leave no trace in the log: by the name of the key, by known value, by shape of the text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from itertools import filterfalse
from typing import Any

from django.http import HttpRequest
from pydantic import BaseModel

from ..config.secrets import Secret, scrubbed

REDACTED = "[redacted]"

DEEPEST = 8
"""Nesting below this is cut: a log line is no place for it, and it may go round in a circle."""

LONGEST_NAME = 200

SECRET_NAME = re.compile(
    r"(?:^|_)(?:pass(?:word|wd|phrase|code)?s?|secrets?|tokens?|authorization|cookies?|api_?keys?"
    r"|(?:access|private|signing|secret|encryption)_?keys?|signatures?|t?otps?|recovery_?codes?"
    r"|sessionid|session_key|csrf[a-z]*|jwt|credentials)(?:_|$)"
)

# What gives a secret away in running text, such as a message, a repr or a traceback. Callers choose
# that text: every repetition here ends where its next start begins, so the time grows with the length.
SHAPES = re.compile(
    r"""
      (?<![\w-])eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*
    | \bwhsec_[A-Za-z0-9+/=]{8,}
    | \b[a-z][a-z0-9]{1,15}_[a-z]{2,4}_(?:live|test)_[0-9A-Za-z]{38}
    | (?P<scheme>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}
    | (?P<user>://[^/\s:@]*:)[^/\s]+(?=@)
    | (?P<name>(?:password|passwd|passphrase|secret|token|api[_-]?key|authorization|signature|otp)
        (?:['"]?\s?[:=]\s?))(?P<quote>['"])(?:\\.|(?!(?P=quote))[^\\])+(?P=quote)
    | (?P<parameter>(?:password|passwd|passphrase|secret|token|api[_-]?key|signature|otp)=)[^\s&'",;)}\]]+
    """,
    re.VERBOSE | re.IGNORECASE,
)


# A shape has one of these in it when case is folded; most text has none, and is found harmless fifty times
# sooner. None has an i: to the expression above, a dotless one is the same letter.
HINTS = ("eyj", "sec", "ve_", "est_", "bear", "bas", "://", "pass", "tok", "key", "autho", "natur", "otp")

# Ways to be known to us, which are in the line of every request.
HARMLESS = frozenset({"api_key"})

PLAIN = frozenset({str, int, float, bool, type(None)})


def redacted(value: Any, *, depth: int = 0) -> Any:
    """`value` without its secrets, as plain data; the original is left alone."""
    if isinstance(value, str):
        return redacted_text(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth >= DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        return {key: _named(key, inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, HttpRequest):
        # Its repr holds the query string, where links carry their tokens.
        return f"{value.method} {value.path}"
    if isinstance(value, Secret):
        return repr(value)
    if isinstance(value, BaseModel):
        return redacted(dict(value), depth=depth)
    if is_dataclass(value) and not isinstance(value, type):
        shown = {field.name: getattr(value, field.name) for field in fields(value) if field.repr}
        return redacted(shown, depth=depth)
    if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[0], (str, bytes)):
        # A header of a request, as servers hand them on.
        return [redacted(value[0], depth=depth + 1), _named(value[0], value[1], depth + 1)]
    if isinstance(value, (list, tuple, set, frozenset)):
        return [redacted(inner, depth=depth + 1) for inner in value]
    try:
        return redacted_text(str(value))
    except Exception:  # frontier: an object without words must not cost the line
        return f"<{type(value).__qualname__} that cannot be printed>"


def _named(key: object, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    name = key.decode("latin-1") if isinstance(key, bytes) else str(key)
    return REDACTED if is_secret_name(name) else redacted(value, depth=depth)


def redacted_text(text: str) -> str:
    """`text` without the values of known `Secret`s and without what is shaped like a secret."""
    text = scrubbed(text, by=REDACTED)
    return SHAPES.sub(_without_secret, text) if _is_suspicious(text) else text


def redacted_line(values: dict[str, Any]) -> dict[str, Any]:
    """As `redacted`, for the values of a log line: most are harmless, and looked at all at once."""
    if PLAIN.issuperset(map(type, values.values())) and not _has_secret_name(tuple(values)):
        texts = [value for value in values.values() if type(value) is str]
        whole = "\n".join(texts)
        # Every shape has a mark in it that is no letter and no digit.
        marked = "\n".join(filterfalse(HARMLESS.__contains__, filterfalse(str.isalnum, texts)))
        if not _is_suspicious(marked) and scrubbed(whole, by=REDACTED) == whole:
            return values
    return {name: _named(name, value, 1) for name, value in values.items()}


def _is_suspicious(text: str) -> bool:
    return any(map(text.casefold().__contains__, HINTS))


@lru_cache(maxsize=2048)
def is_secret_name(name: str) -> bool:
    """Whether a key of this name holds a secret, in any spelling: `apiKey`, `API-KEY`, `api_key`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[-.\s]+", "_", name[:LONGEST_NAME]).lower()
    return SECRET_NAME.search(spaced) is not None


@lru_cache(maxsize=2048)
def _has_secret_name(names: tuple[str, ...]) -> bool:
    return any(map(is_secret_name, names))


def _without_secret(match: re.Match[str]) -> str:
    before = match["scheme"] or match["user"] or match["name"] or match["parameter"] or ""
    quote = match["quote"] or ""
    return f"{before}{quote}{REDACTED}{quote}"
