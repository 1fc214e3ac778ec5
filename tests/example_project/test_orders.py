"""What the shop of the example project owes its customers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from django.apps import apps
from django.conf import settings

from svc_infra_django.testing.senders import WebhookSender

from .inside import ELSEWHERE, run_inside

# What these start has servers and databases of its own, the same in every pass: one pass is enough.
pytestmark = pytest.mark.sqlite

ROOT = Path(__file__).parents[2]

if settings.SETTINGS_MODULE != "example_project.settings":

    def test_the_shop_keeps_its_promises() -> None:
        run_inside(__file__, "shop")

    def test_in_production_nobody_is_shown_what_the_demos_receiver_heard() -> None:
        kept = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
        said = subprocess.run(
            [sys.executable, "-c", "import django; django.setup()\n"
             "from django.urls import Resolver404, resolve\n"
             "try:\n    resolve('/demo/webhooks/inbox')\nexcept Resolver404:\n    print('nothing there')"],
            cwd=ROOT,
            env=kept | {
                "DJANGO_SETTINGS_MODULE": "example_project.settings", "SVC_ENVIRONMENT": "production",
                "SECRET_KEY": "seen-by-nobody-" * 5, "ALLOWED_HOSTS": "shop.example",
                "DATABASE_URL": "postgres://shop@db.example/shop", "REDIS_URL": "redis://cache.example/0",
                "METRICS_TOKEN": "seen-by-nobody",
                "PAYMENTS_WEBHOOK_SECRET": "seen-by-nobody",
            },
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
        assert said.stdout == "nothing there\n", said.stderr

else:

    @pytest.mark.django_db
    @pytest.mark.parametrize("item", ["Tea\npot", "Tea\r\nBcc: everybody@example.com", "\x85Tea\u2028pot"])
    def test_shop_sends_a_receipt_whatever_the_item_is_called(
        item: str, admin_user: object, client: object, mailoutbox: list[object]
    ) -> None:
        from svc_infra_django.jobs.worker import drain

        client.force_login(admin_user, backend="django.contrib.auth.backends.ModelBackend")  # type: ignore[attr-defined]
        order = {"customer_email": "grace@example.com", "item": item, "unit_price": "19.50"}
        placed = client.post("/api/orders", json.dumps(order), content_type="application/json")  # type: ignore[attr-defined]
        assert placed.status_code == 201, placed.content

        drain()

        assert [mail.to for mail in mailoutbox] == [["grace@example.com"]]  # type: ignore[attr-defined]
        assert apps.get_model("orders", "Order").objects.get().receipt_sent_at is not None

    @pytest.mark.django_db
    def test_shop_hears_of_a_payment_once_and_believes_nobody_else(
        admin_user: object, webhook_sender: Callable[..., WebhookSender]
    ) -> None:
        from svc_infra_django.webhooks.inbound.models import InboxMessage

        order = apps.get_model("orders", "Order").objects.create(
            owner=admin_user, customer_email="grace@example.com", item="Cup", quantity=1, unit_price=1
        )
        paid = {"type": "payment.received", "data": {"order_id": str(order.pk)}}

        forged = webhook_sender("payments", secret="whsec_" + "A" * 32).post("/hooks/payments", paid)
        answers = [
            webhook_sender("payments").post("/hooks/payments", paid, message_id="msg_1").status_code
            for _ in range(2)
        ]
        other = webhook_sender("payments").post("/hooks/payments", {"type": "payout.made", "data": {}})

        order.refresh_from_db()
        assert (forged.status_code, answers, other.status_code) == (401, [204, 204], 204)
        assert order.paid_at is not None
        assert InboxMessage.objects.get(external_id="msg_1").attempts == 1
