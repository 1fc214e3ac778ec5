from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from svc_infra_django.jobs.worker import drain
from svc_infra_django.webhooks import publish, verify
from svc_infra_django.webhooks.delivery import deliver_due
from svc_infra_django.webhooks.errors import ChallengeUnanswered
from svc_infra_django.webhooks.inbound.presets import StandardWebhooks
from svc_infra_django.webhooks.models import Endpoint
from svc_infra_django.webhooks.services.subscribing import enable_endpoint, resume_endpoint, update_endpoint
from svc_infra_django.webhooks.tasks import challenge_endpoint

from ..conftest import Receiver


@pytest.fixture
def asked(
    make_endpoint: Callable[..., Endpoint], user: Any, svc_settings: Callable[..., None], receiver: Receiver
) -> Endpoint:
    """An endpoint of a user's where the settings want an answer first; its receiver answers."""
    svc_settings(webhooks={"challenge_endpoints": True})
    receiver.answers(echo)
    return make_endpoint(owner=user)


def echo(handler: Any) -> None:
    """As our own receiver answers the challenge, and everything else."""
    request = handler.server.received.requests[-1]
    answer = json.dumps(StandardWebhooks().answer(json.loads(request.body)) or {}).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(answer)))
    handler.end_headers()
    handler.wfile.write(answer)


def test_an_endpoint_gets_nothing_but_a_signed_challenge_until_it_answers(
    asked: Endpoint, receiver: Receiver, user: Any
) -> None:
    message = publish("order.placed", {}, owner=user)
    assert deliver_due() == 0
    assert (asked.state, asked.reason) == ("paused", "It has not answered the challenge yet.")

    drain()

    asked.refresh_from_db()
    assert (asked.state, asked.reason) == ("enabled", "")
    (challenge,) = receiver.requests
    assert verify(challenge.body, challenge.headers, asked.shown_secret)  # type: ignore[attr-defined]
    assert deliver_due() == 1
    assert receiver.ids()[1] == message.uid


@pytest.mark.parametrize("answer", [200, 404, 302])
def test_an_answer_without_the_challenge_is_none(asked: Endpoint, receiver: Receiver, answer: int) -> None:
    receiver.answers(answer)

    with pytest.raises(ChallengeUnanswered):
        challenge_endpoint.func(str(asked.pk), str(asked.owner_id))

    asked.refresh_from_db()
    assert asked.state == "paused"


def test_an_endpoint_that_moves_is_asked_again(asked: Endpoint, receiver: Receiver) -> None:
    drain()
    asked.refresh_from_db()

    update_endpoint(asked, url=receiver.url("/elsewhere"), description="moved")
    assert asked.state == "paused"
    drain()

    asked.refresh_from_db()
    assert (asked.state, asked.description) == ("enabled", "moved")
    assert [request.path for request in receiver.requests] == ["/hook", "/elsewhere"]


def test_an_answer_of_the_address_before_does_not_count(
    asked: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def move_then_answer(endpoint: Endpoint, **_: Any) -> bool:
        Endpoint.objects.update(url="https://elsewhere.example/")
        return True

    monkeypatch.setattr("svc_infra_django.webhooks.tasks.challenge", move_then_answer)

    challenge_endpoint.func(str(asked.pk), str(asked.owner_id))

    asked.refresh_from_db()
    assert asked.state == "paused"


def test_its_owner_cannot_do_without_the_challenge_and_staff_can(asked: Endpoint, user: Any) -> None:
    client = Client()
    client.force_login(user)
    for way in ("enable", "pause", "enable", "disable", "enable"):
        answer = client.post(f"/api/webhooks/endpoints/{asked.pk}/{way}", {}, content_type="application/json")
        assert answer.status_code == 200
        assert answer.json()["state"] != "enabled"

    enable_endpoint(asked)

    assert asked.state == "enabled"


def test_one_owner_cannot_make_a_load_generator_of_the_challenge(
    asked: Endpoint, make_endpoint: Callable[..., Endpoint], stranger: Any, receiver: Receiver
) -> None:
    receiver.answers(404)
    for number in range(4):
        make_endpoint(f"/{number}", owner=asked.owner)
        for _ in range(3):
            resume_endpoint(asked)
    now = timezone.now()

    drain(now)
    assert len(receiver.requests) == 5

    make_endpoint("/other", owner=stranger)
    drain(timezone.now())
    assert "/other" in {request.path for request in receiver.requests}
    receiver.requests.clear()
    drain(now + timedelta(seconds=60))
    assert len(receiver.requests) <= 11


def test_an_endpoint_of_nobodys_is_made_by_staff_and_not_asked(
    make_endpoint: Callable[..., Endpoint], svc_settings: Callable[..., None]
) -> None:
    svc_settings(webhooks={"challenge_endpoints": True})

    assert make_endpoint().state == "enabled"
