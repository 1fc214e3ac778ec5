from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone

from svc_infra_django.jobs.worker import drain
from svc_infra_django.webhooks import publish
from svc_infra_django.webhooks.delivery import deliver_due
from svc_infra_django.webhooks.models import Attempt, Delivery, Endpoint, Message
from svc_infra_django.webhooks.services.subscribing import disable_endpoint
from svc_infra_django.webhooks.tasks import mail_owner, prune_messages

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


@pytest.mark.parametrize("kind", ["dead", "failing", "disabled"])
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
