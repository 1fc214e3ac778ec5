"""The story of the tour: what people do with the service, step by step, over real HTTP.

Each step is a function; its docstring is its title. `check` prints one line with a tick, or ends the
tour with what was seen instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

from .browser import Browser, Page

PATIENCE_SECONDS = 8.0

FoundT = TypeVar("FoundT")


class StoryFailed(Exception):
    """A step did not go as it should."""


@dataclass
class Scene:
    """Where the story plays, and what its steps hand to one another."""

    url: str
    log: Path
    mail: Path
    say: Callable[[str], None]
    admin: Browser = field(init=False)
    api: Browser = field(init=False)
    tokens: dict[str, str] = field(default_factory=dict)
    order: dict[str, Any] = field(default_factory=dict)
    request_id: str = ""

    def __post_init__(self) -> None:
        self.admin, self.api = Browser(self.url), Browser(self.url)

    def check(self, what: str, *, holds: object, saw: object = "", look: str = "") -> None:
        """Say that `what` holds, and where to `look`; raise StoryFailed with what we `saw` if it does not."""
        if not holds:
            shown = f"{saw.status} {saw.url}\n{saw.body[:1500]!r}" if isinstance(saw, Page) else repr(saw)
            raise StoryFailed(f"{what}\nSaw: {shown}")
        self.say(f"   \N{CHECK MARK} {what}" + (f"\n       look at {look}" if look else ""))

    def wait_for(self, find: Callable[[], FoundT]) -> FoundT:
        """Ask again and again until the answer is true, or patience is at its end."""
        deadline = monotonic() + PATIENCE_SECONDS
        while not (found := find()) and monotonic() < deadline:
            sleep(0.05)
        return found

    def as_user(self, name: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[name]}"}

    def log_lines(self) -> Iterator[dict[str, Any]]:
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                yield json.loads(line)
