"""The addresses of names, looked up in threads of our own.

One look-up at a time for a name: libcurl has twenty threads for all, and one endpoint whose name servers
hang would keep them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from time import monotonic

CACHE_SECONDS = 60
CACHED_NAMES = 10_000
THREADS = 128
IDLE_SECONDS = 10.0


class Names:
    """Looks names up and makes the socket `wakes` readable when answers are there."""

    def __init__(self, lookup: Callable[[str], list[str]]) -> None:
        self._lookup = lookup
        self._asked: SimpleQueue[str] = SimpleQueue()
        self._answered: SimpleQueue[tuple[str, list[str], str]] = SimpleQueue()
        self._known: dict[str, tuple[float, list[str]]] = {}
        self._under_way: set[str] = set()
        self._threads = self._idle = 0
        self._lock = Lock()
        self.wakes, self._waker = socket.socketpair()
        self.wakes.setblocking(False)
        self._waker.setblocking(False)

    def known(self, name: str) -> list[str] | None:
        """The addresses of a name that was looked up not long ago."""
        expires, addresses = self._known.get(name, (0.0, []))
        return addresses if expires > monotonic() else None

    def ask(self, name: str) -> None:
        """Look a name up, unless somebody is at it."""
        if name in self._under_way:
            return
        self._under_way.add(name)
        self._asked.put(name)
        with self._lock:
            if self._idle >= self._asked.qsize() or self._threads >= THREADS:
                return
            self._threads += 1
        # A daemon, since a look-up cannot be broken off and must not hold up the end of the process.
        Thread(target=self._work, name="webhooks-names", daemon=True).start()

    def answers(self) -> list[tuple[str, list[str], str]]:
        """What was found since: (name, addresses, error)."""
        with suppress(BlockingIOError):
            while self.wakes.recv(4096):
                pass
        found = []
        while True:
            try:
                found.append(self._answered.get_nowait())
            except Empty:
                break
        expires = monotonic() + CACHE_SECONDS
        for name, addresses, _ in found:
            self._under_way.discard(name)
            if len(self._known) >= CACHED_NAMES:
                self._known.clear()
            if addresses:
                self._known[name] = (expires, addresses)
        return found

    def wake(self) -> None:
        """Make `wakes` readable."""
        # Closed: nobody waits any more. Full: it is awake already.
        with suppress(OSError):
            self._waker.send(b".")

    def close(self) -> None:
        """Wait for no answer any more."""
        self.wakes.close()
        self._waker.close()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                name = self._asked.get(timeout=IDLE_SECONDS)
            except Empty:
                name = ""
            with self._lock:
                self._idle -= 1
                if not name:
                    self._threads -= 1
                    return
            try:
                self._answered.put((name, self._lookup(name), ""))
            except (OSError, UnicodeError) as error:
                self._answered.put((name, [], str(error)))
            self.wake()


def addresses_of(name: str) -> list[str]:
    """What the system's resolver says of a name; raises OSError if it has nothing to say."""
    # Bytes, because text would go through Python's own IDNA codec first.
    found = socket.getaddrinfo(name.encode("ascii"), None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(target[0]).partition("%")[0] for *_, target in found))
