"""The story of the tour: what people do with the service, step by step, over real HTTP.

Each step is a function; its docstring is its title. `check` prints a line with a tick, or ends the
story with what was seen instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

from svc_infra_django.testing.senders import WebhookSender

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
    """An API key is issued, used, and revoked"""
    home = scene.admin.submit("/admin/login/?next=/admin/", {"username": ADMIN.name, "password": PASSWORD})
    scene.check("the admin signs in", holds=home.url.endswith("/admin/"), saw=home, look="/admin/")
    clerk = scene.row_id(f"/admin/auth/user/?q={CLERK.name}")
    shown = scene.admin.submit("/admin/svc_apikeys/apikey/add/", {"owner": clerk, "name": "Till 1"})
    secret = re.search(r'readonly[^>]*value="([^"]+)"', shown.text)
    scene.check("the admin issues a key for the clerk; the page shows it this once", holds=secret, saw=shown)
    key = {"X-API-Key": secret[1] if secret else ""}
    scene.check(
        "GET /api/orders takes the key",
        holds=scene.api.get("/api/orders", **key).status == 200,
        look="API docs",
    )
    own = scene.api.post("/api/api-keys", {"name": "Till 2"}, **scene.bearer(CLERK))
    scene.check("the clerk makes another by POST /api/api-keys", holds=own.status == 201, saw=own)
    listed = scene.api.get("/api/orders", X_API_Key=own.json["key"])
    scene.check("and it works too", holds=listed.status == 200, saw=listed)
    row = scene.row_id("/admin/svc_apikeys/apikey/?q=" + key["X-API-Key"][-4:])
    scene.act("/admin/svc_apikeys/apikey/", "revoke", row)
    refused = scene.api.get("/api/orders", **key)
    scene.check(
        "revoked in the admin, the very next call is a 401",
        holds=refused.status == 401,
        saw=refused,
        look="/admin/svc_apikeys/apikey/",
    )


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
    visitor = scene.row_id(f"/admin/auth/user/?q={VISITOR.name}")
    role = scene.row_id("/admin/svc_rbac/role/?q=order")
    granted = scene.admin.submit("/admin/svc_rbac/assignment/add/", {"user": visitor, "role": role})
    scene.check(
        "the admin grants the role order clerk",
        holds=granted.url.endswith("/admin/svc_rbac/assignment/"),
        saw=granted,
        look="/admin/svc_rbac/assignment/",
    )
    placed = scene.api.post("/api/orders", TEAPOT, **scene.bearer(VISITOR))
    scene.check("now the same request is a 201", holds=placed.status == 201, saw=placed)


def an_order_is_told_to_the_world(scene: Scene) -> None:
    """An order is delivered as a signed webhook; a failing receiver is retried, buried and replayed"""
    made = scene.api.post(
        "/api/webhooks/endpoints",
        {"url": f"{scene.url}/demo/webhooks/shipping", "event_types": ["order.*"]},
        **scene.bearer(CLERK),
    )
    scene.check(
        "the clerk registers an endpoint by REST and is given its secret", holds=made.status == 201, saw=made
    )
    receiver = scene.admin.submit(
        "/admin/demo/receiver/add/", {"slug": "shipping", "new_secret": made.json["secret"]}
    )
    scene.check("the receiver is told the secret", holds="shipping" in receiver.text, saw=receiver)

    order = scene.api.post("/api/orders", TEAPOT, **scene.bearer(CLERK))
    scene.check(
        "POST /api/orders commits order, job and deliveries at once", holds=order.status == 201, saw=order
    )
    scene.order_id, scene.request_id = order.json["id"], order.headers["X-Request-ID"]

    def heard(receiver: str) -> Any:
        return [each for each in scene.received(receiver) if scene.order_id in json.dumps(each["body"])]

    scene.check(
        "the receiver verified the signature (Standard Webhooks 1.0) and kept the message",
        holds=scene.wait_for(lambda: heard("shipping")),
        look="/demo/webhooks/shipping",
    )
    buried = scene.wait_for(
        lambda: [line for line in scene.log_lines() if line.get("event_type") == "webhooks.delivery.dead"]
    )
    tried = attempts_of_dead(scene) if buried else []
    scene.check(
        f"another answers 500: tried again after {pauses(tried)} s, then it is a dead letter",
        holds=len(tried) > 1 and {attempt["status_code"] for attempt in tried} == {500},
        saw=tried,
        look="/admin/svc_webhooks/delivery/?state__exact=dead",
    )
    scene.check(
        "its owner is told: an event, and a mail",
        holds=scene.wait_for(lambda: scene.mails_to(CLERK.email)),
        look="var/mail",
    )
    scene.admin.submit("/admin/demo/receiver/failing/change/", {"slug": "failing", "is_failing": None})
    row = scene.row_id("/admin/svc_webhooks/delivery/?state__exact=dead")
    scene.act("/admin/svc_webhooks/delivery/?state__exact=dead", "replay", row)
    scene.check(
        "the receiver is mended, the delivery replayed in the admin, and it arrives",
        holds=scene.wait_for(lambda: scene.received("failing")),
        look="/demo/webhooks/failing",
    )


def a_payment_is_heard_of(scene: Scene) -> None:
    """A payment provider tells of a payment by a signed webhook, twice, and it is handled once"""
    paid = {"type": "payment.received", "data": {"order_id": scene.order_id}}
    body = json.dumps(paid).encode()
    headers = WebhookSender("payments").headers(body, message_id=f"msg_{scene.order_id}")
    json_type = {"Content-Type": "application/json"}
    forged = scene.api.send("POST", "/hooks/payments", headers=json_type, body=body)
    scene.check("without a signature it is a 401 and no reason", holds=forged.status == 401, saw=forged)
    answers = [
        scene.api.send("POST", "/hooks/payments", headers=headers | json_type, body=body) for _ in range(2)
    ]
    scene.check(
        "POST /hooks/payments, signed, is a 204 however often it comes",
        holds=[answer.status for answer in answers] == [204, 204],
        saw=answers[0],
    )
    inbox = scene.admin.get("/admin/svc_inbound/inboxmessage/").text
    scene.check(
        "the inbox has it once, and the order is paid",
        holds=inbox.count('class="action-select"') == 1,
        saw=inbox,
        look="/admin/svc_inbound/inboxmessage/",
    )


def attempts_of_dead(scene: Scene) -> list[dict[str, Any]]:
    """Every attempt of the clerk's dead delivery, the first one first."""
    dead = scene.api.get("/api/webhooks/deliveries?state=dead", **scene.bearer(CLERK)).json["items"]
    path = f"/api/webhooks/deliveries/{dead[0]['id']}/attempts"
    newest_first: list[dict[str, Any]] = scene.api.get(path, **scene.bearer(CLERK)).json["items"]
    return newest_first[::-1]


def pauses(attempts: list[dict[str, Any]]) -> str:
    times = [datetime.fromisoformat(attempt["at"]) for attempt in attempts]
    return ", ".join(f"{(later - earlier).total_seconds():.1f}" for earlier, later in pairwise(times))


def jobs_do_the_rest(scene: Scene) -> None:
    """A job mails the receipt, and a periodic one counts the day"""
    receipts = scene.wait_for(
        lambda: [mail for mail in scene.mails_to(TEAPOT["customer_email"]) if scene.order_id in mail]
    )
    scene.check("the customer has a receipt", holds=receipts, look="var/mail")
    report = scene.wait_for(
        lambda: "field-orders" in (page := scene.admin.get("/admin/orders/dailyreport/")).text and page
    )
    scene.check("the daily report was written", holds=report, look="/admin/orders/dailyreport/")
    jobs = scene.admin.get("/admin/svc_jobs/job/")
    scene.check(
        "both jobs are in the admin",
        holds="send_receipt" in jobs.text and "write_daily_report" in jobs.text,
        saw=jobs,
        look="/admin/svc_jobs/job/",
    )
    summary = scene.api.get("/api/orders/summary", **scene.bearer(CLERK))
    scene.check("GET /api/orders/summary is a cached read", holds=summary.json["orders"] >= 1, saw=summary)


def one_id_runs_through_it(scene: Scene) -> None:
    """One request id leads from the answer through every log line; probes and metrics answer"""
    lines = [line for line in scene.log_lines() if line.get("request_id") == scene.request_id]

    def logged_by(logger: str) -> Any:
        return [line for line in lines if line["logger"] == logger]

    scene.check(
        f"X-Request-ID {scene.request_id} is in the access log", holds=logged_by("svc_infra_django.access")
    )
    scene.check("in the log lines of the receipt's job", holds=logged_by("svc_infra_django.jobs"), saw=lines)
    scene.check("and in those of the webhook", holds=logged_by("svc_infra_django.webhooks"), saw=lines)
    for path in ("/healthz", "/readyz"):
        probe = scene.api.get(path)
        scene.check(f"GET {path} says ok", holds=probe.json["status"] == "ok", saw=probe, look=path)
    metrics = scene.api.get("/metrics")
    scene.check(
        "GET /metrics counts what the web server and the worker did",
        holds="orders_placed_total" in metrics.text and "jobs_finished_total" in metrics.text,
        saw=metrics,
        look="/metrics",
    )


CHAPTERS = (
    people_sign_in,
    keys_open_the_orders,
    a_role_lets_somebody_order,
    an_order_is_told_to_the_world,
    a_payment_is_heard_of,
    jobs_do_the_rest,
    one_id_runs_through_it,
)
