"""What can be stored as JSON in every database. Plain checks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .compat import normalize_json


def plain(value: Any, *, limit: int) -> Any:
    """`value` as JSON types.

    Raises TypeError for what JSON does not know, ValueError for what it knows and databases refuse (NaN
    and infinities, NUL characters, lone surrogates), OverflowError for more than `limit` bytes.
    """
    normal = normalize_json(value)
    text = json.dumps(normal, allow_nan=False)
    if len(text) > limit:
        raise OverflowError(f"{len(text)} bytes of JSON; the limit is {limit}")
    if "\\u0000" in text or "\\ud" in text:
        for part in _texts(normal):
            if "\x00" in part:
                raise ValueError("text with a NUL character")
            try:
                part.encode()
            except UnicodeEncodeError:
                raise ValueError("text with a lone surrogate") from None
    return normal


def storable(text: str) -> str:
    """`text` with a replacement for each character that databases refuse."""
    return text.replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _texts(key)
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
