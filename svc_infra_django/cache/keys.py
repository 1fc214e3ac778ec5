"""How a call becomes a key: equal calls the same one, different calls never."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from inspect import Signature
from string import Formatter
from typing import Any
from urllib.parse import quote
from uuid import UUID

from .errors import UncacheableArgument

LONGEST = 180
PORTABLE = re.compile(r"[\w.~:@/+=,%-]{1,180}", re.ASCII)
SCALARS = (bool, int, float, str, bytes, type(None), UUID, datetime, date, time, timedelta, Decimal)


def bound(signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by parameter name, defaults included, so that f(1), f(x=1) and a default are one call."""
    call = signature.bind(*args, **kwargs)
    call.apply_defaults()
    return dict(call.arguments)


def call_key(name: str, arguments: Mapping[str, Any]) -> str:
    """A key for a call of the function `name`. Raises UncacheableArgument."""
    return portable(f"{name}:{_digest(canonical(list(arguments.items())))}")


def filled(template: str, arguments: Mapping[str, Any], *, escaped: bool) -> str:
    """`template` with its `{argument}` fields replaced; `escaped`, so that no value can look like two."""
    return _Template(escaped).vformat(template, (), arguments)


def portable(text: str) -> str:
    """`text` as a key that every cache server takes: no blanks, no control characters, not too long."""
    if PORTABLE.fullmatch(text):
        return text
    quoted = quote(text, safe="-_.~:@/+=,%", errors="surrogatepass")
    return quoted if len(quoted) <= LONGEST else _digest(text)


def canonical(value: Any) -> str:
    """A text that equal values of equal types share and others do not. Raises UncacheableArgument."""
    kind = type(value)
    if isinstance(value, Enum):
        return f"{kind.__module__}.{kind.__qualname__}({canonical(value.value)})"
    if kind in SCALARS:
        return f"{kind.__name__}({value!r})"
    if kind in (list, tuple):
        return f"{kind.__name__}({','.join(map(canonical, value))})"
    if kind in (set, frozenset):
        return f"{kind.__name__}({','.join(sorted(map(canonical, value)))})"
    if kind is dict:
        return f"dict({','.join(sorted(canonical(pair) for pair in value.items()))})"
    raise UncacheableArgument(
        f"{kind.__module__}.{kind.__qualname__} cannot be part of a cache key: "
        "pass its primary key instead, or give `key=`."
    )


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:40]


class _Template(Formatter):
    def __init__(self, escaped: bool) -> None:
        self._escaped = escaped

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        value, used = super().get_field(field_name, args, kwargs)
        if type(value) not in SCALARS and not isinstance(value, Enum):
            raise UncacheableArgument(
                f"{{{field_name}}} is a {type(value).__qualname__}: name an attribute of it, such as `.pk`."
            )
        text = str(value.value if isinstance(value, Enum) else value)
        return quote(text, safe="", errors="surrogatepass") if self._escaped else text, used
