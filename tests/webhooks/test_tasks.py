from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone
from prometheus_client import REGISTRY

from svc_infra_django.identifiers import uuid7, uuid7_at
from svc_infra_django.jobs.worker import drain
from svc_infra_django.webhooks import publish
from svc_infra_django.webhooks.delivery import deliver_due
from svc_infra_django.webhooks.models import Attempt, Delivery, Endpoint, Message
from svc_infra_django.webhooks.querysets import MessageQuerySet
from svc_infra_django.webhooks.services.subscribing import disable_endpoint
from svc_infra_django.webhooks.tasks import mail_owner, measure_queue, prune_messages

from .conftest import Receiver


def test_old_messages_go_with_all_that_hangs_on_them_unless_something_waits(
    endpoint: Endpoint, receiver: Receiver
) -> None:
    done = publish("order.placed", {})
    deliver_due()
    receiver.answers(500)
    waiting = publish("order.placed", {})
    deliver_due()
    Message.objects.update(created_at=timezone.now() - timedelta(days=31))
    new = publish("order.placed", {})

    assert prune_messages.func() == 1

    assert set(Message.objects.values_list("pk", flat=True)) == {waiting.pk, new.pk}
    assert not Attempt.objects.filter(delivery__message_id=done.pk).exists()


def test_what_is_sent_again_while_its_message_is_pruned_stays(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("order.placed", {})
    deliver_due()
    Delivery.objects.all().make_due(now=timezone.now())
    # As it was when the batch was read.
    found = iter([Message.objects.all()])
    monkeypatch.setattr(MessageQuerySet, "prunable", lambda self, *, before: next(found, self.none()))

    assert prune_messages.func() == 0

    assert Delivery.objects.get().state == "pending"
    assert Attempt.objects.count() == 1
    assert deliver_due() == 1


def test_an_attempt_whose_delivery_was_deleted_under_way_goes_with_the_retention(endpoint: Endpoint) -> None:
    publish("order.placed", {})
    deliver_due()
    kept = Attempt.objects.get()
    long_ago = timezone.now() - timedelta(days=31)
    _, new = (
        Attempt.objects.create(pk=pk, delivery_id=uuid7(), n=1, at=long_ago, trigger="publish", duration_ms=1)
        for pk in (uuid7_at(long_ago), uuid7())
    )

    prune_messages.func()

    assert set(Attempt.objects.values_list("pk", flat=True)) == {kept.pk, new.pk}


def test_dead_deliveries_are_mailed_once_in_a_while_and_the_end_always(
    user: Any, make_endpoint: Any, receiver: Receiver
) -> None:
    endpoint = make_endpoint(owner=user, retry_schedule=[])
    receiver.answers(500)
    for _ in range(3):
        publish("order.placed", {}, owner=user)
    deliver_due()
    assert Delivery.objects.dead().count() == 3

    disable_endpoint(endpoint)
    drain()

    assert [letter.subject for letter in mail.outbox] == [
        "A webhook could not be delivered",
        "A webhook endpoint was disabled",
    ]
    assert "Disabled by hand." in mail.outbox[1].body


@pytest.mark.parametrize("kind", ["dead", "failing", "recovered", "disabled"])
def test_there_may_be_nobody_to_write_to(make_endpoint: Any, make_user: Any, kind: str) -> None:
    silent = make_user("silent")
    silent.email = ""
    silent.save()
    endpoint = make_endpoint(owner=silent)
    named = str(endpoint.pk)

    mail_owner.func(named, kind)
    endpoint.delete()
    mail_owner.func(named, kind)

    assert mail.outbox == []


def test_an_endpoint_that_comes_and_goes_does_not_fill_a_mailbox(
    user: Any, make_endpoint: Any, receiver: Receiver, svc_settings: Any
) -> None:
    svc_settings(webhooks={"failing_after": 1})
    make_endpoint(owner=user)
    for status in (500, 200, 500, 200, 500):
        receiver.answers(status)
        publish("order.placed", {}, owner=user)
        deliver_due()
    drain()

    assert [letter.subject for letter in mail.outbox] == [
        "A webhook endpoint is failing",
        "A webhook endpoint works again",
    ]
    assert user.email in mail.outbox[1].to


def test_bodies_go_before_their_messages_if_the_settings_say_so(
    endpoint: Endpoint, receiver: Receiver, svc_settings: Any
) -> None:
    old, new = publish("order.placed", {"a": 1}), publish("order.placed", {"a": 2})
    deliver_due()
    Message.objects.filter(pk=old.pk).update(created_at=timezone.now() - timedelta(days=8))
    prune_messages.func()
    assert not Message.objects.filter(expunged_at__isnull=False).exists()

    svc_settings(webhooks={"payload_retention_days": 7})
    prune_messages.func()

    assert bytes(Message.objects.get(pk=old.pk).body) == b""
    assert bytes(Message.objects.get(pk=new.pk).body)
    assert Attempt.objects.get(delivery__message=old).response_head == ""


def test_pruning_costs_the_same_for_many_rows(endpoint: Endpoint, django_assert_max_num_queries: Any) -> None:
    for _ in range(30):
        publish("order.placed", {})
    deliver_due()
    Message.objects.update(created_at=timezone.now() - timedelta(days=31))

    with django_assert_max_num_queries(16):
        assert prune_messages.func() == 30
    assert not Delivery.objects.exists()


def test_what_waits_is_measured(endpoint: Endpoint) -> None:
    def value(name: str) -> float | None:
        return REGISTRY.get_sample_value(name)

    measure_queue.func()
    assert (value("webhooks_waiting"), value("webhooks_oldest_waiting_seconds")) == (0, 0)

    publish("order.placed", {})
    publish("order.placed", {}, deliver_at=timezone.now() + timedelta(hours=1))
    Delivery.objects.filter(message__deliver_at__lt=timezone.now()).update(
        due_at=timezone.now() - timedelta(minutes=5)
    )
    Endpoint.objects.update(breaker_trips=2)
    measure_queue.func()

    assert value("webhooks_waiting") == 1
    assert 299 < (value("webhooks_oldest_waiting_seconds") or 0) < 3_600
    assert value("webhooks_open_breakers") == 1
