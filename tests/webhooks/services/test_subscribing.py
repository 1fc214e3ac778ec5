from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Event, Thread
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from svc_infra_django.errors import NotFoundError
from svc_infra_django.webhooks import publish
from svc_infra_django.webhooks.delivery import deliver_due
from svc_infra_django.webhooks.models import Attempt, Delivery, Endpoint, Message
from svc_infra_django.webhooks.services import subscribing
from svc_infra_django.webhooks.services.subscribing import delete_endpoint


def test_an_endpoint_goes_with_its_deliveries_and_attempts(endpoint: Endpoint) -> None:
    publish("order.placed", {})
    deliver_due()

    delete_endpoint(endpoint)

    assert not Endpoint.objects.exists()
    assert not Delivery.objects.exists()
    assert not Attempt.objects.exists()
    assert Message.objects.exists()


@pytest.mark.parametrize(
    "change",
    [
        partial(subscribing.update_endpoint, description="new"),
        subscribing.rotate_secret,
        subscribing.sign_publicly,
        subscribing.pause_endpoint,
        subscribing.resume_endpoint,
        subscribing.disable_endpoint,
    ],
)
def test_an_endpoint_that_was_deleted_a_moment_ago_is_not_found(
    endpoint: Endpoint, change: Callable[[Endpoint], Any]
) -> None:
    delete_endpoint(Endpoint.objects.get())

    with pytest.raises(NotFoundError):
        change(endpoint)

    assert not Endpoint.objects.exists()


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_a_message_published_while_its_endpoint_is_deleted_is_published_all_the_same(
    make_endpoint: Callable[..., Endpoint],
) -> None:
    endpoint = make_endpoint()
    published, let_go, committed = Event(), Event(), Event()

    def publish_slowly() -> None:
        try:
            with transaction.atomic():
                publish("order.placed", {})
                published.set()
                let_go.wait(60)
            committed.set()
        finally:
            connection.close()

    thread = Thread(target=publish_slowly)
    thread.start()
    published.wait(60)
    # The deletion waits for the publisher's lock on the endpoint, whose deliveries it cannot see yet.
    release = Thread(target=lambda: (Event().wait(0.2), let_go.set()))
    release.start()

    delete_endpoint(endpoint)

    thread.join(60)
    release.join(60)
    assert committed.is_set()
    assert not Endpoint.objects.exists()
    assert not Delivery.objects.exists()


def test_a_deletion_that_fails_again_and_again_says_so(endpoint: Endpoint, monkeypatch: Any) -> None:
    def fail(**_: Any) -> Any:
        raise IntegrityError

    monkeypatch.setattr(subscribing.Endpoint.objects, "filter", fail)

    with pytest.raises(IntegrityError):
        delete_endpoint(endpoint)
