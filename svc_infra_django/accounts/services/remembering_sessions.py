"""What this process remembers of tokens and their sessions, so that not every request asks somebody else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.core.signals import setting_changed

from ...memory import Memory, Ticket
from ..conf import settings

LIMIT = 20_000

# What is remembered lives so much shorter than promised: the rest is for the commit to be told about.
SHARE = 0.9


@dataclass(frozen=True, slots=True)
class SessionState:
    """A session that was good when it was read; it is at `ends_at` at the latest that it is not."""

    user_id: Any
    tenant: str
    amr: tuple[str, ...]
    auth_time: datetime
    ends_at: datetime


class GoodToken(NamedTuple):
    """A token that was good when its session was read, until what ends first (in seconds since 1970)."""

    kid: str
    ends_at: float
    user_id: Any
    read_user: Callable[[], Any]
    told: tuple[Any, ...]
    """What its principal says but for the user."""


memory = Memory[GoodToken](LIMIT)
"""Only good news is kept, for `revocation_seconds` at most; the group is the user's key as text."""

unchanged = Memory[SessionState](LIMIT)
"""What good sessions are worth, by the fingerprint of their columns and their owner's."""


def _forget_everything(**_: Any) -> None:
    memory.clear()
    unchanged.clear()


setting_changed.connect(_forget_everything, dispatch_uid="svc_infra_django.accounts.remembering_sessions")


def ticket(subject: str) -> Ticket:
    """To be had before the user's session is read."""
    return memory.ticket(subject, seconds=settings.revocation_seconds * SHARE)
