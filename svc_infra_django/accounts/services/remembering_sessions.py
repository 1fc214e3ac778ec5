"""What this process remembers of sessions, so that not every request asks somebody else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from time import monotonic
from typing import Any
from uuid import UUID

from django.core.signals import setting_changed

from ..conf import settings

LIMIT = 20_000
STRIPES = 256

NOTHING: dict[int, tuple[float, SessionState]] = {}

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


@dataclass(frozen=True, slots=True)
class Ticket:
    """When a read began, and what had been forgotten by then."""

    number: int
    until: float


class Memory:
    """Good sessions by user and id, each for `revocation_seconds` at most; bounded, shared by threads.

    Only good news is kept. A reader takes a ticket before it reads: if the user was forgotten
    meanwhile, what it read may be older than the change, and is not kept.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._forgotten = [0] * STRIPES
        # By the session's number: a UUID is hashed in Python, a number is not.
        self._young: dict[str, dict[int, tuple[float, SessionState]]] = {}
        self._old: dict[str, dict[int, tuple[float, SessionState]]] = {}
        self._count = 0

    def recall(self, subject: str, session_id: UUID) -> SessionState | None:
        """The session if it was read lately, else None."""
        for generation in (self._young, self._old):
            found = generation.get(subject, NOTHING).get(session_id.int)
            if found is not None and found[0] > monotonic():
                return found[1]
        return None

    def ticket(self, subject: str) -> Ticket:
        """To be had before the database is read."""
        until = monotonic() + settings.revocation_seconds * SHARE
        return Ticket(self._forgotten[hash(subject) % STRIPES], until)

    def keep(self, subject: str, session_id: UUID, state: SessionState, ticket: Ticket) -> None:
        """Remember what was read with the ticket."""
        if ticket.until <= monotonic():
            return
        with self._lock:
            if self._forgotten[hash(subject) % STRIPES] != ticket.number:
                return
            if self._count >= LIMIT // 2:
                self._old, self._young, self._count = self._young, {}, 0
            self._young.setdefault(subject, {})[session_id.int] = (ticket.until, state)
            self._count += 1

    def drop(self, subject: str) -> None:
        """Forget the user's sessions, and what is being read of them."""
        with self._lock:
            self._forgotten[hash(subject) % STRIPES] += 1
            self._young.pop(subject, None)
            self._old.pop(subject, None)

    def clear(self, **_: Any) -> None:
        """Forget everything."""
        with self._lock:
            self._forgotten = [number + 1 for number in self._forgotten]
            self._young, self._old, self._count = {}, {}, 0


memory = Memory()
setting_changed.connect(memory.clear, dispatch_uid="svc_infra_django.accounts.remembering_sessions")
