from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from svc_infra_django.jobs.worker import drain
from svc_infra_django.webhooks import publish, publish_many, replay
from svc_infra_django.webhooks.delivery import Deliverer, deliver_due
from svc_infra_django.webhooks.errors import (
    BadReplay,
    EndpointNotEnabled,
    NotReplayable,
    ReplayedTooFast,
    ReplayFinished,
)
from svc_infra_django.webhooks.models import Delivery, Endpoint, Message, Replay
from svc_infra_django.webhooks.services.publishing import Publication, expunge
from svc_infra_django.webhooks.services.replaying import (
    cancel_replay,
    count_replayable,
    replay_message,
    start_replay,
)
from svc_infra_django.webhooks.services.subscribing import disable_endpoint, rotate_secret
from svc_infra_django.webhooks.signing import verify
from svc_infra_django.webhooks.tasks import go_on_replaying

from ..conftest import Receiver


@pytest.fixture
def dead(make_endpoint: Callable[..., Endpoint], receiver: Receiver) -> Endpoint:
    """An endpoint at which twelve deliveries died and three succeeded; others succeed from now on."""
    endpoint = make_endpoint(retry_schedule=[])
    publish_many([Publication("order.placed", {})] * 3)
    deliver_due()
    receiver.answers(500)
    publish_many([Publication("order.placed", {})] * 12)
    deliver_due()
    assert Delivery.objects.dead().count() == 12
    Endpoint.objects.update(breaker_trips=0, held_until=None)
    receiver.answers(200)
    return endpoint


def later(seconds: float) -> Any:
    return timezone.now() + timedelta(seconds=seconds)


def test_a_replay_goes_step_by_step_and_tells_how_far_it_is(dead: Endpoint) -> None:
    assert count_replayable(endpoint=dead) == 12

    started = start_replay(endpoint=dead, per_second=1)

    assert (started.state, started.total, started.done) == ("running", 12, 0)
    drain()
    started.refresh_from_db()
    assert (started.done, started.state) == (5, "running")
    drain(later(60))
    started.refresh_from_db()
    assert (started.done, started.steps, started.state) == (12, 3, "done")
    assert started.finished_at is not None
    assert Delivery.objects.filter(state="pending", trigger="replay", lane=1).count() == 12
    assert deliver_due() == 12
    assert not Delivery.objects.dead().exists()


def test_a_replay_waits_between_its_steps(dead: Endpoint) -> None:
    start_replay(endpoint=dead, per_second=1)
    drain()
    drain(later(4))

    assert Delivery.objects.waiting().count() == 5


def test_what_dies_again_is_not_sent_twice_by_one_replay(dead: Endpoint, receiver: Receiver) -> None:
    receiver.answers(500)
    started = start_replay(endpoint=dead, per_second=1)
    for seconds in (0, 6, 12, 18):
        drain(later(seconds))
        deliver_due(now=later(3600 + seconds))

    started.refresh_from_db()
    assert (started.done, started.state) == (12, "done")
    assert set(Delivery.objects.dead().values_list("attempts", flat=True)) == {2}


def test_a_step_that_is_run_twice_begins_no_second_chain(dead: Endpoint) -> None:
    started = start_replay(endpoint=dead, per_second=1)

    assert go_on_replaying.func(str(started.pk), 0) == 5
    assert go_on_replaying.func(str(started.pk), 0) == 0

    started.refresh_from_db()
    assert (started.done, started.steps) == (5, 1)


def test_a_replay_can_be_stopped(dead: Endpoint) -> None:
    started = start_replay(endpoint=dead, per_second=1)
    drain()

    cancel_replay(started)
    drain(later(60))

    started.refresh_from_db()
    assert (started.state, started.done) == ("cancelled", 5)
    with pytest.raises(ReplayFinished):
        cancel_replay(started)


def test_what_succeeded_is_replayed_only_if_asked_for(dead: Endpoint) -> None:
    assert count_replayable(endpoint=dead, only_failed=False) == 15

    start_replay(endpoint=dead, only_failed=False)
    drain()

    assert Delivery.objects.waiting().count() == 15


def test_everything_since_a_moment_and_nothing_from_before(
    make_endpoint: Callable[..., Endpoint], user: Any, stranger: Any, receiver: Receiver
) -> None:
    mine, other = make_endpoint(owner=user, retry_schedule=[]), make_endpoint(owner=user, retry_schedule=[])
    make_endpoint(owner=stranger, retry_schedule=[])
    receiver.answers(500)
    for owner in (user, user, stranger):
        publish("order.placed", {}, owner=owner)
    deliver_due()
    old = Message.objects.filter(owner=user).earliest("created_at")
    Delivery.objects.filter(message=old).update(created_at=later(-86_400))
    since = later(-3_600)

    assert count_replayable(owner=user, since=since) == 2
    assert count_replayable(owner=user, since=since, endpoint=mine) == 1
    assert count_replayable(owner=user, message=old) == 2
    start_replay(owner=user, since=since)
    drain()

    waiting = Delivery.objects.waiting()
    assert {each.endpoint_id for each in waiting} == {mine.pk, other.pk}
    assert not waiting.filter(message=old).exists()


@pytest.mark.parametrize(
    "asked",
    [{}, {"since": timezone.now()}, {"per_second": 0}, {"per_second": 10_000}, {"per_second": float("nan")}],
)
def test_a_replay_without_limits_is_refused(dead: Endpoint, asked: dict[str, Any]) -> None:
    chosen = {"endpoint": dead} if "per_second" in asked else {}

    with pytest.raises(BadReplay):
        start_replay(**chosen, **asked)
    assert not Replay.objects.exists()


def test_a_disabled_endpoint_gets_nothing_replayed(dead: Endpoint) -> None:
    message = Message.objects.filter(deliveries__state="dead").first()
    disable_endpoint(dead)

    with pytest.raises(EndpointNotEnabled):
        start_replay(endpoint=dead)
    assert replay_message(message) == 0
    start_replay(message=message)
    drain()

    assert not Delivery.objects.waiting().exists()


def test_a_replay_is_signed_with_the_secret_of_now(dead: Endpoint, receiver: Receiver) -> None:
    secret = rotate_secret(dead, grace_hours=0)
    start_replay(endpoint=dead)
    drain()
    receiver.requests.clear()

    deliver_due()

    assert len(receiver.requests) == 12
    assert all(verify(request.body, request.headers, secret) for request in receiver.requests)


def test_what_was_under_way_when_it_was_expunged_is_not_tried_again(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    make_endpoint()
    message = publish("order.placed", {})
    deliverer = Deliverer()
    deliverer.claim(limit=None)
    expunge(message)
    receiver.answers(500)

    deliverer.deliver()
    deliverer.close()

    assert Delivery.objects.get().state == "cancelled"


def test_a_message_without_its_body_is_not_sent(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    make_endpoint()
    publish("order.placed", {})
    Message.objects.update(body=b"", expunged_at=timezone.now() - timedelta(days=1))

    deliver_due()

    assert receiver.requests == []
    assert Delivery.objects.get().state == "cancelled"


def test_what_was_expunged_is_neither_sent_nor_replayed(dead: Endpoint) -> None:
    waiting = publish("order.placed", {"card": "hush"})
    done = Delivery.objects.dead().first()

    expunge(waiting)
    expunge(done.message)
    expunge(done.message)

    assert Delivery.objects.get(message=waiting).state == "cancelled"
    waiting.refresh_from_db()
    assert (bytes(waiting.body), waiting.expunged_at is None) == (b"", False)
    assert set(done.attempt_set.values_list("response_head", flat=True)) == {""}
    assert deliver_due() == 0
    with pytest.raises(NotReplayable):
        replay(done)
    assert count_replayable(endpoint=dead) == 11


def test_deliveries_of_an_endpoint_are_replayed_one_by_one_no_faster_than_a_replay(
    dead: Endpoint, svc_settings: Callable[..., None]
) -> None:
    svc_settings(webhooks={"replay_per_second": 0.001})
    first, second = Delivery.objects.dead()[:2]

    assert replay(first).state == "pending"
    with pytest.raises(ReplayedTooFast) as refused:
        replay(second)

    assert refused.value.headers["Retry-After"] == "1000"
    second.refresh_from_db()
    assert second.state == "dead"
    Endpoint.objects.update(replays_paid_until=later(-1))
    assert replay(second).state == "pending"
