"""The story of the tour: what people do with the service, step by step, over real HTTP.

Each step is a function; its docstring is its title. `check` prints a line with a tick, or ends the
story with what was seen instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

from .browser import Browser, Page
from .credentials import ADMIN, CLERK, PASSWORD, VISITOR, Resident

PATIENCE_SECONDS = 8.0
TEAPOT = {"customer_email": "grace@example.com", "item": "Teapot", "quantity": 2, "unit_price": "19.50"}

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
    api: Browser = field(init=False)
    admin: Browser = field(init=False)
    tokens: dict[Resident, str] = field(default_factory=dict)
    order_id: str = ""
    request_id: str = ""

    def __post_init__(self) -> None:
        self.api, self.admin = Browser(self.url), Browser(self.url)

    def check(self, what: str, *, holds: object, saw: object = "", look: str = "") -> None:
        """Say that `what` holds, and where to `look`. Raises StoryFailed with what we `saw`."""
        if not holds:
            shown = f"{saw.status} {saw.url}\n{saw.body[:1500]!r}" if isinstance(saw, Page) else repr(saw)
            raise StoryFailed(f"Not so: {what}.\nSaw: {shown}")
        self.say(f"   \N{CHECK MARK} {what}" + (f"  (look at {look})" if look else ""))

    def wait_for(self, find: Callable[[], FoundT]) -> FoundT:
        """Ask again and again until the answer is true, or patience is at its end."""
        deadline = monotonic() + PATIENCE_SECONDS
        while not (found := find()) and monotonic() < deadline:
            sleep(0.05)
        return found

    def row_id(self, admin_list: str) -> str:
        """The primary key of the first row of an admin list."""
        page = self.admin.get(admin_list)
        found = re.search(r'name="_selected_action" value="([^"]+)"', page.text)
        if found is None:
            raise StoryFailed(f"{admin_list} lists nothing (status {page.status}).")
        return found[1]

    def act(self, admin_list: str, action: str, row: str) -> Page:
        """Tick a row of an admin list, choose an action and press Go."""
        return self.admin.submit(admin_list, {"action": action, "_selected_action": [row]})

    def bearer(self, resident: Resident) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[resident]}"}

    def log_lines(self) -> Iterator[dict[str, Any]]:
        for line in self.log.read_text().splitlines():
            if line.startswith("{"):
                yield json.loads(line)

    def mails_to(self, address: str) -> list[str]:
        texts = (path.read_text() for path in sorted(self.mail.glob("*")))
        return [text for text in texts if f"To: {address}" in text]

    def received(self, receiver: str) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.api.get(f"/demo/webhooks/{receiver}").json["received"]
        return messages


def people_sign_in(scene: Scene) -> None:
    """A clerk signs in with a password and gets tokens"""
    login = scene.api.post("/api/auth/login", {"email": CLERK.email, "password": PASSWORD})
    scene.check(
        "POST /api/auth/login gives an access and a refresh token",
        holds=login.status == 200 and {"access_token", "refresh_token"} <= login.json.keys(),
        saw=login,
    )
    refreshed = scene.api.post("/api/auth/refresh", {"refresh_token": login.json["refresh_token"]})
    scene.check(
        "POST /api/auth/refresh gives new ones",
        holds=refreshed.status == 200 and refreshed.json["refresh_token"] != login.json["refresh_token"],
        saw=refreshed,
        look="/admin/svc_accounts/",
    )
    scene.tokens[CLERK] = refreshed.json["access_token"]
    me = scene.api.get("/api/auth/me", **scene.bearer(CLERK))
    scene.check("GET /api/auth/me knows who asks", holds=CLERK.email in me.text, saw=me)
    nobody = scene.api.get("/api/auth/me")
    scene.check(
        "without a token it is a 401 problem",
        holds=nobody.status == 401 and nobody.headers["Content-Type"] == "application/problem+json",
        saw=nobody,
    )


def keys_open_the_orders(scene: Scene) -> None:
    """An API key is issued in the admin, used, and revoked"""
    home = scene.admin.submit("/admin/login/?next=/admin/", {"username": ADMIN.name, "password": PASSWORD})
    scene.check("the admin signs in", holds=home.url.endswith("/admin/"), saw=home, look="/admin/")
    clerk = scene.row_id(f"/admin/auth/user/?q={CLERK.name}")
    shown = scene.admin.submit("/admin/svc_apikeys/apikey/add/", {"owner": clerk, "name": "Till 1"})
    key = re.search(r'value="(\w+_\w+)"', shown.text)
    scene.check("the admin issues a key for the clerk, and sees it this once", holds=key, saw=shown)


def a_role_lets_somebody_order(scene: Scene) -> None:
    """A role granted in the admin lets a visitor place orders"""
    login = scene.api.post("/api/auth/login", {"email": VISITOR.email, "password": PASSWORD})
    scene.tokens[VISITOR] = login.json["access_token"]
    refused = scene.api.post("/api/orders", TEAPOT, **scene.bearer(VISITOR))
    scene.check(
        "without a role POST /api/orders is a 403 problem that names orders.add_order",
        holds=refused.status == 403 and refused.json["permission"] == "orders.add_order",
        saw=refused,
    )


CHAPTERS = (people_sign_in, keys_open_the_orders, a_role_lets_somebody_order)
