"""Identifiers that sort by time of birth."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from uuid_utils import compat


def uuid7() -> UUID:
    """A UUID of version 7 (RFC 9562, section 5.7): made here, so bulk inserts need no answer."""
    return compat.uuid7()


def uuid7_at(moment: datetime) -> UUID:
    """The smallest that can be made at `moment`: everything made earlier sorts before it."""
    milliseconds = int(moment.timestamp() * 1000)
    return UUID(int=max(0, milliseconds) << 80 | 0x7 << 76 | 0x2 << 62)
