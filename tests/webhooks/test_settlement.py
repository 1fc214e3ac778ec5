from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone
from prometheus_client import REGISTRY

from svc_infra_django.jobs.worker import drain
from svc_infra_django.webhooks import publish, publish_many, replay
from svc_infra_django.webhooks.delivery import Deliverer, deliver_due
from svc_infra_django.webhooks.events import (
    DELIVERY_DEAD,
    ENDPOINT_DISABLED,
    ENDPOINT_FAILING,
    ENDPOINT_RECOVERED,
)
from svc_infra_django.webhooks.models import Attempt, Delivery, Endpoint, EventType
from svc_infra_django.webhooks.queue import NIL
from svc_infra_django.webhooks.services.publishing import Publication
from svc_infra_django.webhooks.services.subscribing import disable_endpoint
from svc_infra_django.webhooks.settlement import settle
from svc_infra_django.webhooks.transport import Outcome

from .conftest import Receiver, claim_all, later

DAYS = 40


def run_until_settled() -> None:
    """Look at the queue later and later, as long as something waits."""
    for day in range(DAYS):
        if not Delivery.objects.waiting().exists():
            return
        deliver_due(now=later(days=day))
    raise AssertionError("still waiting after many days")


@pytest.fixture
def heard() -> Any:
    found: list[Any] = []

    def hear(event: Any, **_: Any) -> None:
        found.append(event)

    types = (DELIVERY_DEAD, ENDPOINT_DISABLED, ENDPOINT_FAILING, ENDPOINT_RECOVERED)
    for event_type in types:
        event_type.connect(hear)
    yield found
    for event_type in types:
        event_type.disconnect(hear)


def test_failures_are_retried_later_and_later_with_the_same_bytes(
    endpoint: Endpoint, receiver: Receiver
) -> None:
    receiver.answers(500, 503, 200)
    publish("order.placed", {"id": 1})

    waits = []
    at = timezone.now()
    while Delivery.objects.waiting().exists():
        deliver_due(now=at)
        delivery = Delivery.objects.get()
        waits.append((delivery.due_at - at).total_seconds())
        at = delivery.due_at

    assert Delivery.objects.get().state == "succeeded"
    assert 4 <= waits[0] <= 6
    assert 240 <= waits[1] <= 360
    assert len({request.body for request in receiver.requests}) == 1
    assert len(set(receiver.ids())) == 1
    assert len({request.headers["webhook-timestamp"] for request in receiver.requests}) == 3
    assert list(Attempt.objects.order_by("n").values_list("trigger", "status_code")) == [
        ("publish", 500),
        ("retry", 503),
        ("retry", 200),
    ]


def test_a_dead_delivery_is_told_to_its_owner_and_can_be_replayed(
    user: Any, make_endpoint: Callable[..., Endpoint], receiver: Receiver, heard: list[Any]
) -> None:
    endpoint = make_endpoint(path="/hook?token=hush", owner=user, retry_schedule=[1, 2])
    receiver.answers(500)
    publish("order.placed", {"id": 1}, owner=user)

    run_until_settled()

    delivery = Delivery.objects.dead().get()
    assert (delivery.attempts, delivery.last_error) == (3, "http")
    (death,) = [event for event in heard if event.type is DELIVERY_DEAD]
    assert (death.owner, death.payload.delivery_id, death.payload.attempts) == (user, delivery.pk, 3)
    drain()
    (letter,) = mail.outbox
    assert letter.to == [user.email]
    assert "could not be delivered" in letter.subject
    assert "hush" not in letter.body
    assert not re.search(r"\b500\b", letter.body)

    receiver.answers(204)
    replay(delivery)
    assert deliver_due() == 1

    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts) == ("succeeded", 4)
    assert Attempt.objects.get(n=4).trigger == "replay"
    assert len(set(receiver.ids())) == 1
    endpoint.refresh_from_db()
    assert endpoint.consecutive_failures == 0


def test_a_replay_has_the_whole_schedule_before_it(endpoint: Endpoint, receiver: Receiver) -> None:
    Endpoint.objects.update(retry_schedule=[1])
    receiver.answers(500)
    publish("order.placed", {})
    run_until_settled()

    replay(Delivery.objects.get())
    run_until_settled()

    assert Delivery.objects.get().attempts == 4


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 404, 500, 304])
def test_what_is_not_2xx_is_a_failure(endpoint: Endpoint, receiver: Receiver, status: int) -> None:
    receiver.answers(status, Location=receiver.url("/elsewhere"))
    publish("order.placed", {})

    deliver_due()

    assert Delivery.objects.get().state == "pending"
    assert [request.path for request in receiver.requests] == ["/hook"]


def test_410_disables_the_endpoint_and_cancels_its_queue(
    endpoint: Endpoint, receiver: Receiver, heard: list[Any]
) -> None:
    receiver.answers(410)
    publish("order.placed", {}, deliver_at=later(hours=1))
    publish("order.placed", {})

    deliver_due()

    endpoint.refresh_from_db()
    assert (endpoint.state, endpoint.reason) == ("disabled", "The receiver answered 410 Gone.")
    assert sorted(Delivery.objects.values_list("state", flat=True)) == ["cancelled", "dead"]
    assert ENDPOINT_DISABLED in [event.type for event in heard]
    publish("order.placed", {})
    assert not Delivery.objects.waiting().exists()


def test_the_receiver_can_ask_for_no_more_while_it_says_yes(endpoint: Endpoint, receiver: Receiver) -> None:
    receiver.answers(200, webhook_delivery="disable")
    publish("order.placed", {})

    deliver_due()

    assert Delivery.objects.get().state == "succeeded"
    endpoint.refresh_from_db()
    assert endpoint.state == "disabled"


def test_the_receiver_can_refuse_one_message(endpoint: Endpoint, receiver: Receiver) -> None:
    receiver.answers(400, webhook_delivery="abort-message")
    publish("order.placed", {})

    deliver_due()

    assert Delivery.objects.get().state == "dead"
    endpoint.refresh_from_db()
    assert endpoint.state == "enabled"


@pytest.mark.parametrize(("asked", "seconds"), [("600", 600), ("999999", 43_200), ("soon", 10), ("-5", 10)])
def test_retry_after_is_honoured_up_to_a_bound(
    endpoint: Endpoint, receiver: Receiver, asked: str, seconds: int
) -> None:
    receiver.answers(429, Retry_After=asked)
    publish("order.placed", {})
    now = timezone.now()

    deliver_due(now=now)

    wait = (Delivery.objects.get().due_at - now).total_seconds()
    assert seconds * 0.8 <= wait <= max(seconds, 6)


def test_a_receiver_that_asks_for_rest_gets_nothing_else_either(
    endpoint: Endpoint, receiver: Receiver
) -> None:
    receiver.answers(503, Retry_After="600")
    publish("order.placed", {})
    deliver_due()
    receiver.answers(200)
    publish("order.placed", {})

    assert deliver_due() == 0
    assert deliver_due(now=later(minutes=11)) == 2


def test_disabling_by_hand_cancels_and_tells(endpoint: Endpoint, heard: list[Any]) -> None:
    publish("order.placed", {})

    disable_endpoint(endpoint)

    assert Delivery.objects.get().state == "cancelled"
    assert [event.type for event in heard] == [ENDPOINT_DISABLED]
    assert deliver_due() == 0


def test_long_failure_disables_and_a_success_begins_anew(
    endpoint: Endpoint, receiver: Receiver, heard: list[Any], svc_settings: Callable[..., None]
) -> None:
    svc_settings(webhooks={"disable_after_days": 5, "failing_after": 2})
    receiver.answers(500)
    for day in (0, 1):
        publish("order.placed", {}, deliver_at=timezone.now())
        deliver_due(now=later(days=day))
    receiver.answers(200)
    deliver_due(now=later(days=3))
    endpoint.refresh_from_db()
    assert endpoint.first_failure_at is None
    receiver.answers(500)
    publish("order.placed", {})
    deliver_due(now=later(days=4))
    endpoint.refresh_from_db()
    assert endpoint.state == "enabled"

    publish("order.placed", {})
    deliver_due(now=later(days=9, hours=1))

    endpoint.refresh_from_db()
    assert (endpoint.state, endpoint.reason) == ("disabled", "Nothing succeeded for 5 days.")
    kinds = [event.type for event in heard]
    assert kinds[:2] == [ENDPOINT_FAILING, ENDPOINT_RECOVERED]
    assert ENDPOINT_DISABLED in kinds


def test_a_quiet_endpoint_is_not_disabled_for_two_failures_that_lie_far_apart(
    endpoint: Endpoint, receiver: Receiver
) -> None:
    receiver.answers(500)
    publish("order.placed", {})
    deliver_due()

    deliver_due(now=later(days=9))

    endpoint.refresh_from_db()
    assert (endpoint.consecutive_failures, endpoint.state) == (2, "enabled")


def test_what_was_under_way_when_its_endpoint_was_disabled_is_not_left_waiting(
    endpoint: Endpoint, receiver: Receiver
) -> None:
    publish("order.placed", {})
    now = timezone.now()
    (sent,) = claim_all(now=now)
    disable_endpoint(endpoint)

    settle([(sent, Outcome(sent, status=500))], now=now + timedelta(seconds=1))

    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.attempts) == ("cancelled", 1)
    assert delivery.settled_at == now + timedelta(seconds=1)


def test_a_claim_that_was_lost_is_due_again_and_its_late_result_changes_nothing(
    endpoint: Endpoint, receiver: Receiver
) -> None:
    publish("order.placed", {})
    now = timezone.now()
    (lost,) = claim_all(now=now)

    assert deliver_due(now=now) == 0
    assert deliver_due(now=now + timedelta(seconds=91)) == 1
    settle([(lost, Outcome(lost, status=500))], now=now + timedelta(seconds=92))

    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.attempts, delivery.epoch) == ("succeeded", 1, 2)
    assert Attempt.objects.count() == 1


def test_a_claim_that_another_deliverer_holds_is_fenced_off(endpoint: Endpoint) -> None:
    publish("order.placed", {})
    now = timezone.now()
    (mine,) = claim_all(now=now)
    late = now + timedelta(seconds=91)
    Delivery.objects.release_expired(leases_at=late, now=late)
    claim_all(now=now + timedelta(seconds=91), lane=1)

    settle([(mine, Outcome(mine, status=200))], now=now + timedelta(seconds=92))

    assert Delivery.objects.get().state == "sending"


def test_a_receiver_of_an_event_that_fails_does_not_undo_the_record(
    endpoint: Endpoint, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(**_: Any) -> None:
        Delivery.objects.get(pk=NIL)

    DELIVERY_DEAD.connect(fail)
    try:
        receiver.answers(400, webhook_delivery="abort-message")
        publish("order.placed", {})
        deliver_due()
    finally:
        DELIVERY_DEAD.disconnect(fail)

    assert Delivery.objects.get().state == "dead"
    assert "a receiver of an event failed" in caplog.text


def test_outcomes_are_counted_and_the_lag_is_measured(endpoint: Endpoint) -> None:
    def count() -> float:
        labels = {"outcome": "succeeded", "error": "none"}
        return REGISTRY.get_sample_value("webhooks_deliveries_total", labels) or 0

    before = count()
    publish("order.placed", {})
    deliver_due()

    assert count() == before + 1
    assert REGISTRY.get_sample_value("webhooks_lag_seconds_count", {"trigger": "publish"})


def test_a_breaker_opens_rests_tries_with_one_request_and_closes(
    endpoint: Endpoint, receiver: Receiver, svc_settings: Callable[..., None]
) -> None:
    svc_settings(webhooks={"breaker_after": 4, "breaker_seconds": 30, "breaker_limit_seconds": 50})
    receiver.answers(500)
    publish_many([Publication("order.placed", {})] * 10)
    now = timezone.now()

    assert deliver_due(now=now) == 10
    publish_many([Publication("order.placed", {})] * 5)
    endpoint.refresh_from_db()
    assert (endpoint.breaker_trips, endpoint.held_until) == (1, now + timedelta(seconds=30))
    assert deliver_due(now=now + timedelta(seconds=29)) == 0

    trial = now + timedelta(seconds=31)
    assert deliver_due(now=trial) == 1
    endpoint.refresh_from_db()
    assert (endpoint.breaker_trips, endpoint.held_until) == (2, trial + timedelta(seconds=50))

    receiver.answers(200)
    again = trial + timedelta(seconds=51)
    deliver_due(now=again, limit=1)
    endpoint.refresh_from_db()
    assert (endpoint.breaker_trips, endpoint.held_until, endpoint.consecutive_failures) == (0, None, 0)
    deliver_due(now=again)
    assert not Delivery.objects.filter(lane=Delivery.Lane.FIRST, state="pending").exists()


def test_a_trial_is_one_request_for_all_deliverers(
    endpoint: Endpoint, receiver: Receiver, svc_settings: Callable[..., None]
) -> None:
    Endpoint.objects.update(breaker_trips=1, consecutive_failures=10)
    publish_many([Publication("order.placed", {})] * 5)
    here, there = Deliverer(), Deliverer()

    assert here.claim(limit=None) == 1
    assert there.claim(limit=None) == 0
    here.close()
    there.close()


def test_an_open_breaker_says_nothing_of_what_was_sent_before_it(endpoint: Endpoint) -> None:
    now = timezone.now()
    for _ in range(30):
        endpoint.note(is_success=False, hold_until=None, now=now)

    assert endpoint.breaker_trips == 1


def test_429_slows_the_endpoint_even_without_retry_after(endpoint: Endpoint, receiver: Receiver) -> None:
    receiver.answers(429)
    publish("order.placed", {})
    now = timezone.now()
    deliver_due(now=now)
    receiver.answers(200)
    publish("order.placed", {})

    assert deliver_due(now=now + timedelta(seconds=9)) == 0
    assert deliver_due(now=now + timedelta(seconds=11)) == 2


def test_an_event_type_may_have_its_own_schedule_and_an_endpoint_goes_before_it(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    EventType.objects.create(name="order.placed", retry_schedule=[100, 200])
    plain, own = make_endpoint(path="/plain"), make_endpoint(path="/own", retry_schedule=[1000])
    receiver.answers(500)
    publish("order.placed", {})
    now = timezone.now()

    deliver_due(now=now)

    waits = {one.endpoint_id: (one.due_at - now).total_seconds() for one in Delivery.objects.all()}
    assert 80 <= waits[plain.pk] <= 120
    assert 800 <= waits[own.pk] <= 1200


def test_the_answers_headers_are_kept_without_cookies(endpoint: Endpoint, receiver: Receiver) -> None:
    receiver.answers(200, Set_Cookie="session=hush", X_Request_Id="r" * 500)
    publish("order.placed", {})

    deliver_due()

    kept = Attempt.objects.get().response_headers
    assert kept["x-request-id"] == "r" * 200
    assert "hush" not in str(kept)
    assert kept["content-length"] == "9"


def test_no_header_has_nul_in_its_name_or_value_when_it_is_kept(endpoint: Endpoint) -> None:
    publish("order.placed", {})
    now = timezone.now()
    (sent,) = claim_all(now=now)

    settle([(sent, Outcome(sent, status=200, headers={"x-\x00a": "\x00b"}))], now=now)

    assert Attempt.objects.get().response_headers == {"x-a": "b"}


def test_the_answer_is_cut_and_kept_without_nul(endpoint: Endpoint, receiver: Receiver) -> None:
    receiver.body = b"\x00\xff" + b"x" * 5000
    publish("order.placed", {})

    deliver_due()

    head = Attempt.objects.get().response_head
    assert head.startswith("\ufffdx")
    assert len(head) < 1024
