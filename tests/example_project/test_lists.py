"""No list of the example project asks the database more the more rows there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from .inside import run_inside

# What these start has servers and databases of its own, the same in every pass: one pass is enough.
pytestmark = pytest.mark.sqlite

if settings.SETTINGS_MODULE != "example_project.settings":

    def test_no_list_asks_more_for_more_rows() -> None:
        run_inside(__file__, "fifty")

else:

    def orders(owner: Any, numbers: Sequence[int]) -> None:
        apps.get_model("orders", "Order").objects.bulk_create(
            apps.get_model("orders", "Order")(
                owner=owner, customer_email=f"c{n}@example.com", item="Cup", quantity=1, unit_price=n
            )
            for n in numbers
        )

    def reports(owner: Any, numbers: Sequence[int]) -> None:
        model = apps.get_model("orders", "DailyReport")
        model.objects.bulk_create(
            model(day=date(2026, 1, 1) + timedelta(days=n), orders=n, total=n, written_at=timezone.now())
            for n in numbers
        )

    def receivers(owner: Any, numbers: Sequence[int]) -> None:
        model = apps.get_model("demo", "Receiver")
        model.objects.bulk_create(model(slug=f"receiver-{n}") for n in numbers)

    def received(owner: Any, numbers: Sequence[int]) -> None:
        receivers(owner, numbers)
        model = apps.get_model("demo", "ReceivedWebhook")
        model.objects.bulk_create(
            model(receiver_id=f"receiver-{n}", message_id=f"msg_{n}", event_type="a.b", body={})
            for n in numbers
        )

    @pytest.mark.django_db
    @pytest.mark.parametrize(
        ("path", "make"),
        [
            ("/api/orders?limit=100", orders),
            ("/admin/orders/order/", orders),
            ("/admin/orders/dailyreport/", reports),
            ("/admin/demo/receiver/", receivers),
            ("/admin/demo/receivedwebhook/", received),
        ],
    )
    def test_a_list_of_fifty_costs_what_a_list_of_one_does(
        path: str, make: Callable[[Any, Sequence[int]], None], admin_user: Any
    ) -> None:
        client = Client()
        client.force_login(admin_user, backend="django.contrib.auth.backends.ModelBackend")

        def queries() -> int:
            with CaptureQueriesContext(
                connection,
            ) as asked:
                assert client.get(path).status_code == 200
            return len(asked)

        make(admin_user, [1])
        queries()  # what a process asks only once
        for_one = queries()
        make(admin_user, range(2, 51))

        assert queries() == for_one
