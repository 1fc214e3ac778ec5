"""A webhook through the view: verified, kept once, handled in one transaction, known again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.handlers.asgi import ASGIRequest
from django.db import connection, transaction
from django.test import Client
from django.urls import resolve
from django.utils import timezone
from prometheus_client import REGISTRY

from svc_infra_django.config import Secret
from svc_infra_django.events import any_event
from svc_infra_django.identifiers import uuid7
from svc_infra_django.jobs.models import Job
from svc_infra_django.jobs.turn import Outcome, take_turn
from svc_infra_django.jobs.worker import drain
from svc_infra_django.testing.senders import WebhookSender
from svc_infra_django.webhooks.inbound import Received, handlers, replay
from svc_infra_django.webhooks.inbound.errors import HandlerTaken, NoHandler
from svc_infra_django.webhooks.inbound.handlers import handle, handler_of, register
from svc_infra_django.webhooks.inbound.models import InboxMessage
from svc_infra_django.webhooks.inbound.tasks import prune_inbox
from tests.conftest import held_up

from .conftest import SOURCES, Shop

EVENT = {"id": "evt_1", "type": "invoice.paid", "event_id": "evt_1"}

pytestmark = pytest.mark.django_db


def calm(source: str) -> WebhookSender:
    """A sender that is answered 500 where Django's client would raise."""
    return WebhookSender(source, client=Client(raise_request_exception=False))


@pytest.mark.parametrize("source", SOURCES)
def test_a_webhook_of_each_kind_is_handled_once(source: str, at_work: Shop) -> None:
    sender = WebhookSender(source)

    answers = [
        sender.post(f"/hooks/{source}", EVENT, event_type="invoice.paid", message_id="evt_1")
        for _ in range(3)
    ]

    assert [answer.status_code for answer in answers] == [204, 204, 204]
    (heard,) = at_work.heard
    assert (heard.source, heard.external_id, heard.data) == (source, "evt_1", EVENT)
    assert heard.event_type.startswith("invoice.paid")
    kept = InboxMessage.objects.get()
    assert (kept.state, kept.attempts, kept.repeats) == ("handled", 1, 2)


@pytest.mark.parametrize("source", SOURCES)
def test_a_forged_one_is_refused_without_a_reason_and_not_kept(source: str, at_work: Shop) -> None:
    forger = WebhookSender(source, secret="whsec_" + "A" * 43 + "=")

    refused = forger.post(f"/hooks/{source}", EVENT)
    bare = Client().post(f"/hooks/{source}", EVENT, content_type="application/json")

    assert refused.status_code == bare.status_code == 401
    assert refused["Content-Type"] == "application/problem+json"
    told = [{**answer.json(), "request_id": ""} for answer in (refused, bare)]
    assert told[0] == told[1]
    assert at_work.heard == []
    assert not InboxMessage.objects.exists()


def test_an_old_one_is_refused(at_work: Shop) -> None:
    sender = WebhookSender("stripe")

    assert sender.post("/hooks/stripe", EVENT, at=time.time() - 301).status_code == 401
    assert sender.post("/hooks/stripe", EVENT, at=time.time() + 310).status_code == 401
    assert sender.post("/hooks/stripe", EVENT, at=time.time() - 290).status_code == 204


def test_how_old_is_a_setting_of_the_source(at_work: Shop, svc_settings: Callable[..., None]) -> None:
    strict = {"preset": "stripe", "secrets": [Secret("env:TEST_SHARED_SECRET")], "tolerance_seconds": 10}
    svc_settings(inbound={"sources": {"stripe": strict}})
    sender = WebhookSender("stripe")

    assert sender.post("/hooks/stripe", EVENT, at=time.time() - 20).status_code == 401
    assert sender.post("/hooks/stripe", EVENT).status_code == 204


def test_what_became_of_them_is_counted_and_told(at_work: Shop, caplog: pytest.LogCaptureFixture) -> None:
    def counts() -> list[float]:
        return [
            REGISTRY.get_sample_value("inbound_received_total", {"source": source, "outcome": outcome}) or 0
            for source, outcome in (
                ("stripe", "refused"), ("stripe", "handled"), ("stripe", "duplicate"), ("stripe", "failed"),
                ("later", "queued"),
            )
        ]  # fmt: skip

    before = counts()
    WebhookSender("stripe", secret="another").post("/hooks/stripe", EVENT)
    assert "webhook refused" in caplog.text
    for _ in range(2):
        WebhookSender("stripe").post("/hooks/stripe", EVENT)
    at_work.acts = lambda message: 1 / 0
    calm("stripe").post("/hooks/stripe", {"id": "evt_2"})
    WebhookSender("later").post("/hooks/later", EVENT)

    assert [after - then for after, then in zip(counts(), before, strict=True)] == [1, 1, 1, 1, 1]


def test_the_secret_before_the_rotation_is_taken_while_it_is_named(at_work: Shop) -> None:
    old = WebhookSender("stripe", secret="hush, this was shared before")

    assert old.post("/hooks/stripe", EVENT).status_code == 204


def test_what_the_handler_wrote_goes_when_it_raises_and_the_record_stays(
    at_work: Shop, caplog: pytest.LogCaptureFixture, events: Any
) -> None:
    def fail(message: Received) -> None:
        Group.objects.create(name="half")
        raise RuntimeError("no stock; token=s3cr3t-and-long-enough hush, this is shared")

    at_work.acts = fail
    sender = calm("stripe")

    failed = sender.post("/hooks/stripe", EVENT)

    assert failed.status_code == 500
    assert "stock" not in failed.content.decode()
    assert not Group.objects.exists()
    kept = InboxMessage.objects.get()
    assert (kept.state, kept.attempts) == ("failed", 1)
    assert kept.error.startswith("builtins.RuntimeError: no stock")
    assert "hush" not in kept.error
    assert events.of("inbound.message.failed")[0].payload.error == "builtins.RuntimeError"

    at_work.acts = lambda message: Group.objects.create(name="whole")
    assert sender.post("/hooks/stripe", EVENT).status_code == 204

    assert Group.objects.get().name == "whole"
    kept.refresh_from_db()
    assert (kept.state, kept.attempts, kept.error) == ("handled", 2, "")


def test_a_request_that_is_one_transaction_keeps_the_record_of_a_failure(
    at_work: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    at_work.acts = lambda message: 1 / 0

    assert calm("stripe").post("/hooks/stripe", EVENT).status_code == 500

    assert InboxMessage.objects.get().state == "failed"


def test_an_asynchronous_handler_is_part_of_the_transaction(at_work: Shop) -> None:
    sender = calm("async")
    at_work.acts = lambda message: 1 / 0

    assert sender.post("/hooks/async", EVENT, message_id="m1").status_code == 500
    assert not Group.objects.exists()

    at_work.acts = lambda message: None
    assert sender.post("/hooks/async", EVENT, message_id="m1").status_code == 204
    assert Group.objects.get().name == "invoice.paid"


def test_the_worker_handles_what_may_wait(at_work: Shop) -> None:
    sender = WebhookSender("later")

    answers = [sender.post("/hooks/later", EVENT, message_id="m1") for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 204]
    assert at_work.heard == []
    assert InboxMessage.objects.get().state == "received"
    drain()
    assert len(at_work.heard) == 1
    assert InboxMessage.objects.get().state == "handled"
    assert sender.post("/hooks/later", EVENT, message_id="m1").status_code == 204
    drain()
    assert len(at_work.heard) == 1


def test_what_waits_is_handled_at_once_if_it_comes_again_where_nothing_waits(at_work: Shop) -> None:
    sender = WebhookSender("stripe")
    sender.post("/hooks/stripe", EVENT)
    replay(InboxMessage.objects.get())

    sender.post("/hooks/stripe", EVENT)

    assert (len(at_work.heard), InboxMessage.objects.get().state) == (2, "handled")
    drain()
    assert len(at_work.heard) == 2


def test_a_job_that_runs_twice_handles_once(at_work: Shop) -> None:
    WebhookSender("later").post("/hooks/later", EVENT, message_id="m1")
    message = InboxMessage.objects.get()

    assert [handle(message.pk), handle(message.pk)] == [True, False]
    assert len(at_work.heard) == 1
    assert handle(uuid7()) is False


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_two_jobs_at_once_handle_once(at_work: Shop) -> None:
    WebhookSender("later").post("/hooks/later", EVENT, message_id="m1")
    message = InboxMessage.objects.get()
    handled: list[bool] = []

    with transaction.atomic():
        handled.append(handle(message.pk))
        second = held_up(lambda: handled.append(handle(message.pk)))
    second.join()

    assert (handled, len(at_work.heard)) == ([True, False], 1)


def test_the_record_of_a_failure_stays_whatever_was_raised_and_whoever_hears_of_it(at_work: Shop) -> None:
    def raise_oddly(message: Received) -> None:
        raise RuntimeError("no\x00 stock")

    def fail(event: Any, **_: Any) -> None:
        raise OSError("the pager is on fire")

    at_work.acts = raise_oddly
    any_event.connect(fail)
    try:
        calm("stripe").post("/hooks/stripe", EVENT, headers={"x-request-id": "of-the-sender"})
    finally:
        any_event.disconnect(fail)

    kept = InboxMessage.objects.get()
    assert (kept.state, kept.error) == ("failed", "builtins.RuntimeError: no stock")
    assert kept.context["request_id"] == "of-the-sender"
    kept.mark_failed(RuntimeError("\ud800" + "x" * 2000))
    assert InboxMessage.objects.get().error == f"builtins.RuntimeError: ?{'x' * 2000}"[:1000]


def test_a_worker_that_has_read_no_view_yet_finds_the_handler(
    settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "urls_of_a_worker.py").write_text(
        "from svc_infra_django.webhooks.inbound import webhook_receiver\n"
        "@webhook_receiver('stripe')\n"
        "def paid(message): ...\n"
        "urlpatterns = []\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(handlers, "_handlers", {})
    settings.ROOT_URLCONF = "urls_of_a_worker"

    assert handler_of("stripe").__name__ == "paid"


def test_what_failed_waits_for_the_worker_when_it_comes_again(at_work: Shop) -> None:
    WebhookSender("later").post("/hooks/later", EVENT, message_id="m1")
    InboxMessage.objects.update(state="failed", error="builtins.OSError: x")

    assert WebhookSender("later").post("/hooks/later", EVENT, message_id="m1").status_code == 202

    kept = InboxMessage.objects.get()
    assert (kept.state, kept.error, kept.repeats) == ("received", "", 1)


def test_a_handler_that_fails_in_the_worker_is_tried_again(at_work: Shop) -> None:
    at_work.acts = lambda message: 1 / 0
    WebhookSender("later").post("/hooks/later", EVENT, message_id="m1")

    drain()
    assert InboxMessage.objects.get().state == "failed"
    at_work.acts = lambda message: None
    drain(timezone.now() + timedelta(hours=1))

    kept = InboxMessage.objects.get()
    assert (kept.state, kept.attempts) == ("handled", 2)


def test_a_replay_calls_the_handler_with_the_same_bytes(at_work: Shop) -> None:
    WebhookSender("github").post("/hooks/github", EVENT, message_id="d1", event_type="push")
    first = at_work.heard.pop()

    replay(InboxMessage.objects.get())
    drain()

    (again,) = at_work.heard
    assert again == first
    assert InboxMessage.objects.get().attempts == 2


def test_a_replay_asked_for_while_the_job_of_the_last_one_ends_is_not_lost(at_work: Shop) -> None:
    WebhookSender("later").post("/hooks/later", EVENT, message_id="m1")
    message = InboxMessage.objects.get()
    (job,) = take_turn([], worker=uuid7(), queues=["default"], room=1)
    assert handle(message.pk)  # as that job does; its end is not written yet

    replay(message)
    take_turn([Outcome(job, Job.State.SUCCEEDED)], worker=uuid7(), queues=[], room=0)
    drain()

    assert len(at_work.heard) == 2
    assert InboxMessage.objects.get().state == "handled"


def test_ninja_takes_the_same_view_and_the_verified_message(at_work: Shop) -> None:
    assert WebhookSender("ninja").post("/ninja/hook", EVENT).status_code == 204
    assert len(at_work.heard) == 1

    peeked = WebhookSender("stripe").post("/ninja/peek", EVENT)
    assert peeked.json() == {"type": "invoice.paid"}
    assert WebhookSender("stripe", secret="other").post("/ninja/peek", EVENT).status_code == 401
    assert InboxMessage.objects.count() == 1


def test_each_customer_may_have_a_secret_of_their_own(at_work: Shop) -> None:
    def send(secret: str, customer: str) -> int:
        sender = WebhookSender("own", secret=secret)
        return int(sender.post(f"/hooks/{customer}/own", EVENT).status_code)

    assert send("secret of ada", "ada") == 204
    assert send("secret of ada", "grace") == 401


def test_no_customer_can_use_up_the_id_of_another(at_work: Shop) -> None:
    for customer in ("mallory", "ada", "ada"):
        sender = WebhookSender("own", secret=f"secret of {customer}")
        assert sender.post(f"/hooks/{customer}/own", EVENT, message_id="m1").status_code == 204

    assert [message.external_id for message in at_work.heard] == ["m1", "m1"]
    first, second = InboxMessage.objects.order_by("received_at")
    assert (first.repeats, second.repeats) == (0, 1)
    assert first.signer != second.signer
    assert "ada" not in second.signer
    replay(second)
    drain()
    assert at_work.heard[2] == at_work.heard[1]


def test_this_suite_is_told_that_we_want_its_webhooks(at_work: Shop) -> None:
    asked = {"type": "webhooks.challenge", "data": {"challenge": "3eZbrw1aB"}}

    answer = WebhookSender("standard").post("/hooks/standard", asked)

    assert (answer.status_code, answer.json()) == (200, {"challenge": "3eZbrw1aB"})
    shapeless = WebhookSender("standard").post("/hooks/standard", {"type": "webhooks.challenge"})
    assert (shapeless.status_code, shapeless.json()) == (200, {"challenge": ""})
    assert not InboxMessage.objects.exists()


def test_slack_is_told_that_we_are_there(at_work: Shop) -> None:
    asked = {"type": "url_verification", "challenge": "3eZbrw1aB"}

    answer = WebhookSender("slack").post("/hooks/slack", asked)

    assert (answer.status_code, answer.json()) == (200, {"challenge": "3eZbrw1aB"})
    assert WebhookSender("slack", secret="x").post("/hooks/slack", asked).status_code == 401
    assert not InboxMessage.objects.exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 422),
        (b"", 422),
        (b"[" * 20_000, 422),
        (b"7", 204),
        (b'{"id": "\\u0000\\ud800"}', 422),
        (b'"x"', 204),
    ],
)
def test_what_is_signed_and_cannot_be_read_is_the_senders_fault(body: bytes, status: int) -> None:
    assert WebhookSender("stripe").post("/hooks/stripe", body).status_code == status


@pytest.mark.parametrize("text", ["\x00", "x" * 300, "é" * 200, "\x1f", "a" * 100_000])
def test_any_id_and_type_can_be_kept(text: str, at_work: Shop) -> None:
    sender = WebhookSender("stripe")

    for _ in range(2):
        assert sender.post("/hooks/stripe", {"id": text, "type": text}).status_code == 204

    kept = InboxMessage.objects.get()
    assert kept.repeats == 1
    assert len(kept.event_type) <= 255
    for name in ("x-github-delivery", "x-github-event"):
        assert WebhookSender("github").post("/hooks/github", EVENT, headers={name: text}).status_code == 204


def test_two_without_an_id_are_one_if_their_bytes_are(at_work: Shop) -> None:
    sender = WebhookSender("stripe")

    for body in ({"n": 1}, {"n": 1}, {"n": 2}):
        assert sender.post("/hooks/stripe", body).status_code == 204

    assert len(at_work.heard) == 2
    assert all(kept.external_id.startswith("sha256:") for kept in InboxMessage.objects.all())


def test_the_body_may_decide_where_the_id_is_not_signed(
    at_work: Shop, svc_settings: Callable[..., None]
) -> None:
    shared = {"preset": "github", "secrets": [Secret("env:TEST_SHARED_SECRET")], "dedupe_by": "body"}
    svc_settings(inbound={"sources": {"github": shared}})
    sender = WebhookSender("github")

    for message_id in ("recorded", "and sent again"):
        assert sender.post("/hooks/github", EVENT, message_id=message_id).status_code == 204

    assert len(at_work.heard) == 1


def test_a_body_beyond_the_limit_is_refused_before_anything_is_computed(
    at_work: Shop, svc_settings: Callable[..., None], settings: Any
) -> None:
    svc_settings(inbound={"max_body_bytes": 100})

    assert WebhookSender("stripe").post("/hooks/stripe", {"x": "y" * 100}).status_code == 413
    assert Client().post("/hooks/stripe", b"x" * 101, content_type="a/b").status_code == 413
    svc_settings(inbound={"max_body_bytes": 1_000_000})
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 100
    assert WebhookSender("stripe").post("/hooks/stripe", {"x": "y" * 100}).status_code == 413


def test_a_body_that_does_not_say_its_length_is_measured(svc_settings: Callable[..., None]) -> None:
    svc_settings(inbound={"max_body_bytes": 100})
    scope = {"type": "http", "method": "POST", "path": "/hooks/stripe", "headers": []}
    view = resolve("/hooks/stripe").func

    assert view(ASGIRequest(scope, BytesIO(b"x" * 101))).status_code == 413
    assert view(ASGIRequest(scope, BytesIO(b"x" * 100))).status_code == 401


class Unread(BytesIO):
    def read(self, *args: Any) -> bytes:
        raise AssertionError("it was read")


@pytest.mark.parametrize(
    ("length", "body", "status"),
    [("101", Unread(), 413), ("9" * 5000, Unread(), 413), ("\u00b2", Unread(), 400), ("-1", Unread(), 400)],
)
def test_a_body_that_says_too_much_or_nonsense_is_not_read(
    svc_settings: Callable[..., None], length: str, body: BytesIO, status: int
) -> None:
    svc_settings(inbound={"max_body_bytes": 100})
    told = [(b"content-length", length.encode("latin-1"))]
    scope = {"type": "http", "method": "POST", "path": "/hooks/stripe", "headers": told}

    assert resolve("/hooks/stripe").func(ASGIRequest(scope, body)).status_code == status


def test_only_a_post_is_a_webhook() -> None:
    answer = Client().get("/hooks/stripe")

    assert (answer.status_code, answer["Allow"]) == (405, "POST")


def test_no_csrf_token_is_asked_for(at_work: Shop) -> None:
    strict = Client(enforce_csrf_checks=True)

    assert WebhookSender("stripe", client=strict).post("/hooks/stripe", EVENT).status_code == 204


def test_a_source_that_nobody_configured_is_our_fault() -> None:
    client = Client(raise_request_exception=False)

    assert client.post("/hooks/nowhere", b"{}", content_type="application/json").status_code == 500


def test_what_authenticates_is_not_kept(at_work: Shop) -> None:
    for source in SOURCES:
        headers = {"authorization": "Bearer t0ken", "cookie": "a=b"}
        WebhookSender(source).post(f"/hooks/{source}", EVENT, headers=headers)

    for kept in InboxMessage.objects.all():
        assert not any("signature" in name or "hmac" in name for name in kept.headers)
        assert not {"authorization", "cookie"} & kept.headers.keys()


def test_a_source_has_one_handler() -> None:
    def other(message: Received) -> None: ...

    with pytest.raises(HandlerTaken):
        register("stripe", other)
    with pytest.raises(NoHandler):
        handler_of("nobody")


def test_old_webhooks_are_deleted_unless_they_wait(at_work: Shop) -> None:
    for source in ("stripe", "github", "later"):
        WebhookSender(source).post(f"/hooks/{source}", EVENT)
    InboxMessage.objects.exclude(source="github").update(received_at=timezone.now() - timedelta(days=31))

    assert prune_inbox.func() == 1

    assert set(InboxMessage.objects.values_list("source", flat=True)) == {"github", "later"}


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_webhook_that_is_replayed_while_it_is_pruned_stays(at_work: Shop) -> None:
    for source in ("stripe", "github"):
        WebhookSender(source).post(f"/hooks/{source}", EVENT)
    InboxMessage.objects.update(received_at=timezone.now() - timedelta(days=31))
    pruned: list[int] = []

    with transaction.atomic():
        replay(InboxMessage.objects.get(source="stripe"))
        pruner = held_up(lambda: pruned.append(prune_inbox.func()))
    pruner.join()

    assert pruned == [1]
    drain()
    assert InboxMessage.objects.get().state == InboxMessage.State.HANDLED
    assert InboxMessage.objects.get().attempts == 2


@pytest.mark.django_db(transaction=True)
def test_two_deliveries_at_once_are_handled_once(at_work: Shop) -> None:
    at_work.acts = lambda message: time.sleep(0.2)
    statuses: list[int] = []

    def send() -> None:
        statuses.append(WebhookSender("stripe").post("/hooks/stripe", EVENT).status_code)
        connection.close()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert statuses == [204] * 4
    assert len(at_work.heard) == 1
    assert InboxMessage.objects.get().repeats == 3
