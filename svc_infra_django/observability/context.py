"""What a request, job or delivery is about: bound once, found in every log line below it.

The values live in structlog's context variables, so they follow `await` and `sync_to_async`, and
travel with work that runs later as a small dict of strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from secrets import token_hex
from typing import Any

from structlog.contextvars import bind_contextvars, bound_contextvars, clear_contextvars, get_contextvars

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{8,128}")
# Version 00 ends after the flags; of a later version we read the part we know.
TRACEPARENT = re.compile(
    r"(?:00(?=.{53}\Z)|(?!00|ff)[0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?"
)

CARRIED = ("request_id", "trace_id", "trace_flags")


@contextmanager
def bound(**values: Any) -> Iterator[None]:
    """Bind `values` to every log line written inside the block."""
    with bound_contextvars(**values):
        yield


class isolated:
    """Run the block with `values` as the whole context; what it binds and forgets ends with the block.

    A server's thread goes on to the next request, so each request starts from nothing.
    """

    def __init__(self, **values: Any) -> None:
        self.values = values

    def __enter__(self) -> None:
        self.before = get_contextvars()
        if self.before:
            clear_contextvars()
        bind_contextvars(**self.values)

    def __exit__(self, *_: object) -> None:
        clear_contextvars()
        if self.before:
            bind_contextvars(**self.before)


def current() -> dict[str, Any]:
    """All values bound here."""
    return dict(get_contextvars())


def request_id() -> str:
    """The id of the request that this work goes back to, or an empty string."""
    return str(get_contextvars().get("request_id", ""))


def carried() -> dict[str, str]:
    """The part of the context that work for later takes along; store it beside the work."""
    values = get_contextvars()
    return {name: str(values[name]) for name in CARRIED if values.get(name)}


@contextmanager
def carrying(headers: Mapping[str, str], **values: Any) -> Iterator[None]:
    """Bind what `carried` returned where the work was made, and `values` beside it."""
    with bound_contextvars(**{name: str(headers[name]) for name in CARRIED if headers.get(name)}, **values):
        yield


def accepted_request_id(offered: str | None) -> str | None:
    """The caller's X-Request-ID if it is harmless, else None."""
    return offered if offered and REQUEST_ID.fullmatch(offered) else None


def parsed_traceparent(header: str | None) -> dict[str, str] | None:
    """Trace id and flags of a `traceparent` (W3C Trace Context, section 3.2), or None if malformed."""
    match = TRACEPARENT.fullmatch(header) if header else None
    return {"trace_id": match[1], "trace_flags": match[2]} if match else None


def new_trace() -> dict[str, str]:
    """A fresh trace, marked as not sampled."""
    return {"trace_id": token_hex(16), "trace_flags": "00"}


def traceparent() -> str:
    """A `traceparent` for an outgoing call made here, with a new span id; empty if there is no trace."""
    values = get_contextvars()
    if "trace_id" not in values:
        return ""
    return f"00-{values['trace_id']}-{token_hex(8)}-{values.get('trace_flags', '00')}"
