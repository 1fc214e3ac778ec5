"""What a process remembers for a moment: bounded, and never older than what it was told to forget."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from threading import Lock
from time import monotonic
from typing import Generic, NamedTuple, TypeVar

ValueT = TypeVar("ValueT")

STRIPES = 256


class Ticket(NamedTuple):
    """When a read began, as until when what it finds may be believed; and what had been forgotten by then."""

    until: float
    stripe: int
    forgotten: int

    @property
    def seconds_left(self) -> float:
        """Until what was read is too old to be believed."""
        return self.until - monotonic()


class Memory(Generic[ValueT]):
    """Values by name, each believed until its moment; shared by threads.

    A reader takes a ticket before it reads, for the group (a user, a key) that the value is of. If the
    group is forgotten meanwhile or later, the value is not believed: so nobody who read slowly puts
    back what was true before a change. Other groups of the same stripe are read once more, too.

    At most `limit` values are kept, in two generations: the older goes when the younger is full.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = Lock()
        self._forgotten = [0] * STRIPES
        self._young: dict[bytes, tuple[float, int, int, ValueT]] = {}
        self._old: dict[bytes, tuple[float, int, int, ValueT]] = {}

    def recall(self, name: bytes) -> ValueT | None:
        """The value, if it may be believed."""
        entry = self._young.get(name) or self._old.get(name)
        if entry is None:
            return None
        until, stripe, forgotten, value = entry
        return value if until > monotonic() and self._forgotten[stripe] == forgotten else None

    def ticket(self, group: Hashable = "", *, seconds: float = inf) -> Ticket:
        """To be had before the value is read."""
        stripe = hash(group) % STRIPES
        return Ticket(monotonic() + seconds, stripe, self._forgotten[stripe])

    def keep(self, name: bytes, value: ValueT, ticket: Ticket) -> None:
        """Remember what was read with the ticket."""
        if ticket.seconds_left <= 0:
            return
        with self._lock:
            if len(self._young) >= self._limit // 2:
                self._old, self._young = self._young, {}
            self._young[name] = (*ticket, value)

    def forget(self, group: Hashable) -> None:
        """Believe nothing of the group any more, and nothing that is being read of it."""
        with self._lock:
            self._forgotten[hash(group) % STRIPES] += 1

    def clear(self, **_: object) -> None:
        """Forget everything, and what is being read."""
        with self._lock:
            self._forgotten = [number + 1 for number in self._forgotten]
            self._young, self._old = {}, {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
