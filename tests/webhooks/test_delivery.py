from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, Future
from datetime import timedelta
from threading import Event, Thread
from time import monotonic
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from svc_infra_django.observability.context import bound
from svc_infra_django.webhooks import publish, publish_many, verify
from svc_infra_django.webhooks.claims import Claimer
from svc_infra_django.webhooks.delivery import Deliverer, DelivererService, Here, deliver_due, settle
from svc_infra_django.webhooks.models import Attempt, Delivery, Endpoint
from svc_infra_django.webhooks.queue import Claimed
from svc_infra_django.webhooks.services.publishing import Publication
from svc_infra_django.webhooks.services.subscribing import (
    enable_endpoint,
    pause_endpoint,
    rotate_secret,
)

from .conftest import Receiver, claim_all, later


def test_a_published_message_arrives_signed_by_the_standard(endpoint: Endpoint, receiver: Receiver) -> None:
    message = publish("order.placed", {"id": 7, "name": "Zoë"})

    assert deliver_due() == 1

    (request,) = receiver.requests
    assert verify(request.body, request.headers, endpoint.shown_secret) == message.uid  # type: ignore[attr-defined]
    assert json.loads(request.body)["data"] == {"id": 7, "name": "Zoë"}
    assert json.loads(request.body)["type"] == "order.placed"
    assert request.headers["content-type"] == "application/json"
    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.attempts, delivery.last_status) == ("succeeded", 1, 200)
    attempt = Attempt.objects.get()
    assert (attempt.n, attempt.trigger, attempt.status_code) == (1, "publish", 200)
    assert attempt.response_head == "thank you"


def test_an_address_is_judged_again_at_each_retry(
    endpoint: Endpoint, receiver: Receiver, svc_settings: Any
) -> None:
    receiver.answers(500)
    publish("order.placed", {})
    deliver_due()
    asked = receiver.connections
    svc_settings(webhooks={"allowed_networks": ()})

    assert deliver_due(now=timezone.now() + timedelta(days=1)) == 1

    assert Delivery.objects.get().last_error == "blocked"
    assert (receiver.connections, len(receiver.requests)) == (asked, 1)


def test_a_hanging_receiver_is_a_timeout(make_endpoint: Callable[..., Endpoint], receiver: Receiver) -> None:
    make_endpoint(timeout_seconds=0.3)
    receiver.delay = 20
    publish("order.placed", {})

    deliver_due()

    assert Delivery.objects.get().last_error == "timeout"


def test_nobody_listening_at_the_port_is_refused(
    make_endpoint: Callable[..., Endpoint], closed_port: int
) -> None:
    make_endpoint(url=f"http://127.0.0.1:{closed_port}/")
    publish("order.placed", {})

    deliver_due()

    assert Delivery.objects.get().last_error == "refused"


def test_slow_receivers_do_not_hold_up_the_quick_ones(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_endpoint(timeout_seconds=30, event_types=["slow"])
    for n in range(5):
        make_endpoint(path=f"/{n}", event_types=["quick"])
    quick_ones_done = Event()

    def answer(handler: Any) -> None:
        status = 200 if handler.path != "/hook" or quick_ones_done.wait(25) else 500
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    receiver.answers(answer)
    publish_many([Publication("slow", {})] * 30 + [Publication("quick", {})] * 10)

    def settle_and_look(*args: Any, **kwargs: Any) -> None:
        settle(*args, **kwargs)
        if Delivery.objects.filter(message__event_type="quick", state="succeeded").count() == 50:
            quick_ones_done.set()

    monkeypatch.setattr("svc_infra_django.webhooks.delivery.settle", settle_and_look)
    assert deliver_due(limit=80) == 80
    assert set(Delivery.objects.values_list("state", flat=True)) == {"succeeded"}


def test_one_endpoint_never_has_more_under_way_than_its_share(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver, svc_settings: Callable[..., None]
) -> None:
    svc_settings(webhooks={"endpoint_concurrency": 4, "concurrency": 20})
    make_endpoint()
    receiver.delay = 0.02
    publish_many([Publication("order.placed", {})] * 25)

    assert deliver_due() == 25
    assert receiver.most_at_once <= 4


def test_first_attempts_go_before_retries_and_retries_do_not_starve(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver, svc_settings: Callable[..., None]
) -> None:
    svc_settings(webhooks={"concurrency": 5, "endpoint_concurrency": 100, "breaker_after": 100})
    make_endpoint()
    receiver.answers(500)
    publish_many([Publication("old", {})] * 10)
    deliver_due()
    receiver.answers(200)
    publish_many([Publication("new", {})] * 10)

    deliver_due(limit=5, now=later(hours=1))

    assert Delivery.objects.filter(message__event_type="new", state="succeeded").count() == 4
    assert Delivery.objects.filter(message__event_type="old", state="succeeded").count() == 1


def test_a_turn_takes_no_more_than_its_limit(endpoint: Endpoint) -> None:
    publish_many([Publication("order.placed", {})] * 5)

    assert deliver_due(limit=2) == 2
    assert Delivery.objects.waiting().count() == 3


def test_a_paused_endpoint_keeps_its_queue_and_drains_it_on_resume(endpoint: Endpoint) -> None:
    pause_endpoint(endpoint)
    publish("order.placed", {})
    assert deliver_due() == 0

    enable_endpoint(endpoint)

    assert deliver_due() == 1


def test_both_secrets_sign_during_a_rotation_and_only_the_new_one_after(
    endpoint: Endpoint, receiver: Receiver
) -> None:
    old = endpoint.shown_secret  # type: ignore[attr-defined]
    new = rotate_secret(endpoint)
    publish("order.placed", {})
    deliver_due()
    during = receiver.requests[-1]
    assert verify(during.body, during.headers, old)
    assert verify(during.body, during.headers, new)

    publish("order.placed", {})
    at = later(hours=25)
    deliver_due(now=at)

    after = receiver.requests[-1]
    assert len(after.headers["webhook-signature"].split()) == 1
    assert verify(after.body, after.headers, new, now=at.timestamp())


def test_a_rotation_repeated_does_not_gather_old_secrets(endpoint: Endpoint, receiver: Receiver) -> None:
    for _ in range(20):
        rotate_secret(endpoint)
    publish("order.placed", {})

    deliver_due()

    assert len(receiver.requests[0].headers["webhook-signature"].split()) == 5
    assert endpoint.signing_keys.count() == 5


def test_nothing_is_sent_that_nobody_can_verify(endpoint: Endpoint, receiver: Receiver) -> None:
    endpoint.signing_keys.all().delete()
    publish("order.placed", {})

    deliver_due()

    assert receiver.requests == []
    assert Delivery.objects.get().last_error == "config"


def test_the_endpoints_own_headers_are_sent_and_sealed(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    endpoint = make_endpoint(headers={"Authorization": "Bearer hush"})
    publish("order.placed", {})

    deliver_due()

    assert receiver.requests[0].headers["authorization"] == "Bearer hush"
    assert "hush" not in endpoint.sealed_headers


def test_what_was_published_in_the_moment_of_disabling_is_cancelled(endpoint: Endpoint) -> None:
    publish("order.placed", {})
    Endpoint.objects.update(state="disabled", disabled_at=timezone.now())

    assert deliver_due() == 0

    assert Delivery.objects.get().state == "cancelled"


@pytest.mark.django_db(transaction=True)
def test_a_database_that_cannot_be_asked_loses_no_answer_that_is_under_way(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_endpoint(path="/slow")
    receiver.delay = 0.3
    publish("order.placed", {})
    deliverer = Deliverer()
    claims = []

    def claim(*args: Any, **fields: Any) -> list[Claimed]:
        claims.append(fields)
        if len(claims) == 1:
            return Claimer.claim(deliverer.claimer, *args, **fields)
        raise OperationalError("the server went away")

    monkeypatch.setattr(deliverer.claimer, "claim", claim)

    assert deliverer.deliver() == 1

    assert len(receiver.requests) == 1
    assert Delivery.objects.get().state == "succeeded"
    assert len(claims) == 2
    deliverer.claims_after = float("-inf")
    with pytest.raises(OperationalError):
        deliverer.deliver()
    deliverer.close()


def test_the_round_goes_on_where_it_stopped(
    make_endpoint: Callable[..., Endpoint], svc_settings: Callable[..., None], receiver: Receiver
) -> None:
    svc_settings(webhooks={"endpoint_concurrency": 4})
    for n in range(4):
        make_endpoint(path=f"/{n}")
    publish_many([Publication("order.placed", {})] * 4)
    deliverer = Deliverer()

    for _ in range(4):
        deliverer.deliver(limit=2)
    deliverer.close()

    assert (
        sorted(request.path for request in receiver.requests)
        == ["/0"] * 2 + ["/1"] * 2 + ["/2"] * 2 + ["/3"] * 2
    )


def test_an_endpoint_whose_secret_cannot_be_opened_fails_alone(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    broken, sound = make_endpoint(path="/broken"), make_endpoint(path="/sound")
    broken.signing_keys.update(sealed_secret="v1.00000000.AAAA")
    publish("order.placed", {})

    deliver_due()

    assert Delivery.objects.get(endpoint=broken).last_error == "config"
    assert Delivery.objects.get(endpoint=sound).state == "succeeded"


def test_one_request_id_runs_through_to_the_log_of_the_attempt(
    endpoint: Endpoint, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[dict[str, Any]] = []
    from structlog.contextvars import get_contextvars

    class Spy(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "webhook attempt":
                seen.append({**get_contextvars(), **vars(record)})

    spy = Spy()
    caplog.set_level("INFO")
    logging.getLogger("svc_infra_django.webhooks").addHandler(spy)
    try:
        with bound(request_id="request-0001", trace_id="ab" * 16, trace_flags="01"):
            publish("order.placed", {})
        deliver_due()
    finally:
        logging.getLogger("svc_infra_django.webhooks").removeHandler(spy)

    (line,) = seen
    assert line["request_id"] == "request-0001"
    assert line["delivery_id"] == str(Delivery.objects.get().pk)
    assert line["endpoint_id"] == str(endpoint.pk)
    assert receiver.requests[0].headers["traceparent"].startswith("00-" + "ab" * 16)


def test_a_backlog_of_first_attempts_is_claimed_by_one_statement_at_a_time(
    make_endpoint: Callable[..., Endpoint], svc_settings: Callable[..., None]
) -> None:
    """That retries left their part over is no reason to ask again, nor that each endpoint got its share."""
    svc_settings(webhooks={"endpoint_concurrency": 4, "concurrency": 24})
    for n in range(3):
        make_endpoint(path=f"/{n}", timeout_seconds=30)
    publish_many([Publication("order.placed", {})] * 12)
    deliverer = Deliverer()
    asked = []

    for _ in range(3):
        with CaptureQueriesContext(connection) as queries:
            assert deliverer.claim(limit=None) == 12
        asked.append(sum("SET state = 'sending'" in each["sql"] for each in queries))
        while deliverer.in_hand:
            deliverer.receive(deliverer.transport.turn(wait=0.05))
    deliverer.flush()
    deliverer.close()

    assert asked == [1, 1, 1]


class WhenTold(Executor):
    """Runs what was submitted when it is told to."""

    def __init__(self) -> None:
        self.submitted: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.submitted.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run(self) -> None:
        for future, call in self.submitted:
            future.set_result(call())
        self.submitted.clear()


def send_until(deliverer: Deliverer, left: int) -> None:
    while len(deliverer.in_hand) > left:
        deliverer.receive(deliverer.transport.turn(wait=0.05))


def test_the_next_share_is_claimed_while_the_one_before_is_sent_and_waits_for_its_slots(
    make_endpoint: Callable[..., Endpoint], svc_settings: Callable[..., None], receiver: Receiver
) -> None:
    svc_settings(webhooks={"endpoint_concurrency": 2, "concurrency": 20})
    make_endpoint(timeout_seconds=30)
    publish_many([Publication("order.placed", {})] * 5)
    deliverer = Deliverer()
    assert deliverer.claim(limit=None) == 2
    deliverer.claiming = told = WhenTold()

    assert deliverer.claim(limit=None) == 0
    told.run()
    assert deliverer.claim(limit=None) == 2

    assert (deliverer.transport.under_way, len(deliverer.in_hand)) == (2, 4)
    send_until(deliverer, 0)
    deliverer.flush()
    deliverer.close()
    assert receiver.most_at_once <= 2
    assert Delivery.objects.filter(state="succeeded").count() == 4


def test_an_endpoint_that_gets_free_during_a_claim_is_asked_for_again_at_once(
    make_endpoint: Callable[..., Endpoint], svc_settings: Callable[..., None]
) -> None:
    svc_settings(webhooks={"endpoint_concurrency": 1, "concurrency": 20})
    make_endpoint(timeout_seconds=30)
    publish_many([Publication("order.placed", {})] * 4)
    deliverer = Deliverer()
    for _ in range(3):
        assert deliverer.claim(limit=None) == 1
    deliverer.claiming = told = WhenTold()
    deliverer.claimed_at = float("-inf")
    assert deliverer.claim(limit=None) == 0
    send_until(deliverer, 2)
    told.run()
    deliverer.claiming = Here()

    assert deliverer.claim(limit=None) == 0
    deliverer.claimed_at = float("-inf")
    assert deliverer.claim(limit=None) == 1

    send_until(deliverer, 0)
    deliverer.flush()
    deliverer.close()
    assert Delivery.objects.filter(state="succeeded").count() == 4


def test_what_waited_until_its_lease_is_too_short_is_given_back(
    make_endpoint: Callable[..., Endpoint], svc_settings: Callable[..., None], receiver: Receiver
) -> None:
    svc_settings(webhooks={"endpoint_concurrency": 1})
    make_endpoint()
    publish_many([Publication("order.placed", {})] * 2)
    deliverer = Deliverer()
    for _ in range(2):
        assert deliverer.claim(limit=None) == 1
    for waiting in deliverer.waiting.values():
        waiting.extend([(waiting.popleft()[0], monotonic())])

    send_until(deliverer, 0)
    deliverer.flush()
    deliverer.close()

    assert len(receiver.requests) == 1
    assert sorted(Delivery.objects.values_list("state", "attempts")) == [("pending", 0), ("succeeded", 1)]


@pytest.mark.parametrize(("answer", "sent"), [(429, 1), (503, 1), (500, 2)])
def test_what_waits_for_an_endpoint_that_asks_for_rest_is_given_back(
    make_endpoint: Callable[..., Endpoint],
    svc_settings: Callable[..., None],
    receiver: Receiver,
    answer: int,
    sent: int,
) -> None:
    svc_settings(webhooks={"endpoint_concurrency": 1})
    make_endpoint()
    receiver.answers(answer)
    publish_many([Publication("order.placed", {})] * 2)
    deliverer = Deliverer()
    for _ in range(2):
        assert deliverer.claim(limit=None) == 1

    send_until(deliverer, 0)
    deliverer.flush()
    deliverer.close()

    assert len(receiver.requests) == sent
    assert Delivery.objects.filter(state="pending", attempts=1).count() == sent
    assert Delivery.objects.filter(state="pending").count() == 2


@pytest.mark.parametrize(("answer", "control"), [(410, "none"), (200, "disable"), (500, "Disable ")])
def test_what_waits_for_a_receiver_that_says_goodbye_is_not_sent(
    make_endpoint: Callable[..., Endpoint],
    svc_settings: Callable[..., None],
    receiver: Receiver,
    answer: int,
    control: str,
) -> None:
    svc_settings(webhooks={"endpoint_concurrency": 1})
    endpoint = make_endpoint()
    receiver.answers(answer, webhook_delivery=control)
    publish_many([Publication("order.placed", {})] * 3)
    deliverer = Deliverer()
    for _ in range(3):
        assert deliverer.claim(limit=None) == 1

    send_until(deliverer, 0)
    deliverer.flush()
    deliverer.close()

    endpoint.refresh_from_db()
    assert (len(receiver.requests), endpoint.state) == (1, "disabled")
    assert Delivery.objects.filter(state="cancelled", attempts=0).count() == 2


@pytest.mark.parametrize("lane", Delivery.Lane.values)
def test_an_idle_deliverer_asks_one_question_and_finds_what_comes(endpoint: Endpoint, lane: int) -> None:
    deliverer = Deliverer()
    assert deliverer.deliver() == 0
    deliverer.claimer.swept_at = float("inf")  # now and then as well

    with CaptureQueriesContext(connection) as queries:
        assert deliverer.deliver() == 0
    publish("order.placed", {})
    Delivery.objects.update(lane=lane)
    assert deliverer.deliver() == 1
    deliverer.close()

    assert len(queries) == 1
    assert Delivery.objects.get().state == "succeeded"


@pytest.mark.parametrize("count", [10, 80])
def test_a_batch_costs_the_same_few_statements_however_large(
    make_endpoint: Callable[..., Endpoint], svc_settings: Callable[..., None], count: int
) -> None:
    svc_settings(webhooks={"endpoint_concurrency": 200, "concurrency": 500})
    for n in range(5):
        make_endpoint(path=f"/{n}", timeout_seconds=30)
    now = timezone.now() + timedelta(minutes=10)
    deliverer = Deliverer(clock=lambda: now)  # stands still: that an endpoint is well is written now and then
    publish("order.placed", {})
    assert deliverer.deliver() == 5
    publish_many([Publication("order.placed", {})] * count)
    deliverer.empty_until = float("-inf")
    deliverer.claimer.promoted_at = float("inf")  # now and then as well, whatever the batches
    claimed: list[int] = []

    with CaptureQueriesContext(connection) as claim:
        claimed.append(deliverer.claim(limit=None))
    while deliverer.in_hand:
        deliverer.receive(deliverer.transport.turn(wait=0.05))
    with CaptureQueriesContext(connection) as settle:
        deliverer.flush()
    deliverer.close()

    assert claimed == [count * 5]
    assert Counter(Delivery.objects.values_list("last_error", flat=True)) == {"": count * 5 + 5}
    # A claim may ask a second time, for what the retries left over. SQLite has no RETURNING in a WITH, so it
    # claims by two statements, and settles by two and the ends of the savepoint.
    on_postgresql = connection.vendor == "postgresql"
    assert len(claim) <= (2 if on_postgresql else 4)
    assert len(settle) == (1 if on_postgresql else 4)
    assert Attempt.objects.count() == count * 5 + 5


def test_retries_that_hang_leave_slots_for_first_attempts(
    make_endpoint: Callable[..., Endpoint], svc_settings: Callable[..., None], receiver: Receiver
) -> None:
    svc_settings(webhooks={"endpoint_concurrency": 400, "concurrency": 40, "breaker_after": 1000})
    make_endpoint()
    publish_many([Publication("old", {})] * 60)
    Delivery.objects.update(lane=Delivery.Lane.LATER)
    hanging = Event()
    receiver.answers(lambda handler: hanging.wait(5))
    deliverer = Deliverer()

    for _ in range(3):
        deliverer.claim(limit=None)
        deliverer.claimed_at = deliverer.empty_until = float("-inf")

    assert deliverer.held.later == len(deliverer.in_hand) == 30
    publish_many([Publication("new", {})] * 20)
    assert deliverer.claim(limit=None) == 10
    assert deliverer.held.later == 30
    hanging.set()
    deliverer.close()


def test_an_endpoint_is_asked_no_faster_than_its_rate_by_all_deliverers_together(
    make_endpoint: Callable[..., Endpoint],
) -> None:
    endpoint = make_endpoint(rate_limit=3)
    make_endpoint(path="/unlimited")
    publish_many([Publication("order.placed", {})] * 12)
    now = timezone.now()

    assert deliver_due(now=now) == 12 + 3
    assert deliver_due(now=now) == 0
    assert deliver_due(now=now + timedelta(seconds=0.34)) == 1
    assert deliver_due(now=now + timedelta(seconds=60)) == 3
    endpoint.refresh_from_db()
    assert endpoint.paced_until == now + timedelta(seconds=61)


@pytest.mark.sqlite
@pytest.mark.django_db(transaction=True)
def test_counting_an_allowance_has_the_right_to_write_from_the_beginning(
    make_endpoint: Callable[..., Endpoint],
) -> None:
    make_endpoint(rate_limit=1)
    publish("order.placed", {})

    with CaptureQueriesContext(connection) as captured:
        assert deliver_due() == 1

    statements = [query["sql"] for query in captured]
    locked = next(n for n, sql in enumerate(statements) if '"paced_until" ASC NULLS FIRST' in sql)
    assert statements[locked - 1] == "BEGIN IMMEDIATE"


def test_no_more_are_under_way_to_an_endpoint_than_its_cap(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    make_endpoint(max_in_flight=2)
    receiver.delay = 0.02
    publish_many([Publication("order.placed", {})] * 7)
    here, there = Deliverer(), Deliverer()

    assert here.claim(limit=None) == 2
    assert there.claim(limit=None) == 0
    here.deliver()
    there.deliver()
    for one in (here, there):
        one.close()
    deliver_until_done(7)

    assert receiver.most_at_once == 2


def deliver_until_done(count: int) -> None:
    limit = monotonic() + 60
    while Delivery.objects.filter(state="succeeded").count() < count and monotonic() < limit:
        deliver_due()


def test_what_is_claimed_shows_no_secret(endpoint: Endpoint) -> None:
    publish("order.placed", {"card": "hush"})

    (claimed,) = claim_all(now=timezone.now())

    assert "hush" not in repr(claimed)
    assert "hush" not in str([claimed])


@pytest.mark.django_db(transaction=True)
def test_the_service_delivers_until_it_is_stopped(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    make_endpoint()
    stop = Event()
    thread = Thread(target=DelivererService().run, args=(stop,))
    thread.start()
    try:
        publish("order.placed", {})
        limit = monotonic() + 60
        while not Delivery.objects.filter(state="succeeded").exists() and monotonic() < limit:
            Event().wait(0.02)
    finally:
        stop.set()
        thread.join(60)

    assert not thread.is_alive()
    assert Delivery.objects.get().state == "succeeded"


@pytest.mark.django_db(transaction=True)
def test_a_service_that_must_stop_gives_back_what_hangs(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svc_infra_django.webhooks.delivery.STOP_SECONDS", 0.1)
    make_endpoint()
    receiver.delay = 20
    publish("order.placed", {})
    stop = Event()
    thread = Thread(target=DelivererService().run, args=(stop,))
    thread.start()
    while not receiver.requests and thread.is_alive():
        Event().wait(0.01)

    stop.set()
    thread.join(60)

    assert not thread.is_alive()
    assert Delivery.objects.get().state == "pending"


@pytest.mark.django_db(transaction=True)
def test_two_deliverers_never_send_the_same_thing_twice(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    for n in range(6):
        make_endpoint(path=f"/{n}")
    publish_many([Publication("order.placed", {"n": n}) for n in range(15)])
    made: list[int] = []

    def deliver() -> None:
        made.append(deliver_due())
        connection.close()

    threads = [Thread(target=deliver) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert sum(made) == 90
    assert len(receiver.requests) == 90
    assert len({(request.path, request.headers["webhook-id"]) for request in receiver.requests}) == 90
    assert Delivery.objects.filter(state="succeeded", attempts=1).count() == 90


def test_what_is_not_due_yet_is_in_no_claims_way(endpoint: Endpoint, receiver: Receiver) -> None:
    """Else every claim would pass by all endpoints that wait for a retry, to find nothing due there."""
    publish("order.placed", {})
    publish("order.placed", {}, deliver_at=later(hours=1))
    receiver.answers(500)

    deliver_due()
    waiting = set(Delivery.objects.values_list("lane", "trigger"))
    receiver.answers(200)
    deliver_due(now=later(hours=2))

    assert waiting == {(Delivery.Lane.WAITING, "retry"), (Delivery.Lane.WAITING, "publish")}
    assert set(Delivery.objects.values_list("state", flat=True)) == {"succeeded"}


def test_what_becomes_due_goes_to_the_lane_it_is_of(endpoint: Endpoint) -> None:
    publish("order.placed", {}, deliver_at=later(hours=1))
    publish("order.placed", {}, deliver_at=later(hours=1))
    Delivery.objects.filter(pk=Delivery.objects.latest("pk").pk).update(attempts=1, trigger="retry")
    publish("order.placed", {}, deliver_at=later(hours=9))

    assert Delivery.objects.promote(now=later(hours=2), limit=9) == 2

    assert sorted(Delivery.objects.values_list("lane", "trigger")) == [
        (0, "publish"), (1, "retry"), (2, "publish")
    ]  # fmt: skip
