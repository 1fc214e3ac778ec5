from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connection, transaction
from django.utils import timezone

from svc_infra_django.webhooks import publish, statements
from svc_infra_django.webhooks.delivery import Deliverer, deliver_due
from svc_infra_django.webhooks.models import Attempt, Delivery, Endpoint
from svc_infra_django.webhooks.statements import fetched

pytestmark = [pytest.mark.postgresql, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def _nothing_lost() -> Iterator[None]:
    connection.close()
    statements._plans.losses = 0
    yield
    statements._plans.losses = 0


def planned() -> dict[str, Any]:
    """The moment at which each statement of ours was planned."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT statement, prepare_time FROM pg_prepared_statements WHERE name LIKE 'svc_%'")
        return dict(cursor.fetchall())


def test_claims_and_settlements_are_planned_once_and_write_the_same_as_in_a_transaction(
    endpoint: Endpoint, receiver: Any
) -> None:
    def facts(delivery: Delivery) -> tuple[Any, ...]:
        attempt = Attempt.objects.get(delivery=delivery)
        return (
            delivery.state, delivery.attempts, delivery.epoch, delivery.lease_until, attempt.n,
            attempt.status_code, attempt.response_head, set(attempt.response_headers),
        )  # fmt: skip

    written = []
    Endpoint.objects.update(last_success_at="2999-01-01 00:00Z")  # healthy: settled in one statement
    for _ in range(2):
        message = publish("order.placed", {"name": "Ünïcode %s $1 \\ '"})
        assert deliver_due() == 1
        written.append(facts(Delivery.objects.get(message=message)))
    plans = planned()
    assert {text.split()[1] for text in plans} == {"taken", "r"}
    with transaction.atomic():
        message = publish("order.placed", {"name": "Ünïcode %s $1 \\ '"})
        assert deliver_due() == 1
        written.append(facts(Delivery.objects.get(message=message)))

    assert written[0] == written[1] == written[2]
    assert planned() == plans
    assert receiver.requests[0].body.split(b'"data"')[1] == receiver.requests[2].body.split(b'"data"')[1]


def test_a_plan_is_made_anew_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched(connection, "SELECT %s::int", [1])
    before = planned()
    monkeypatch.setattr(statements, "PLAN_SECONDS", 0.0)

    assert fetched(connection, "SELECT %s::int", [2]) == [(2,)]

    assert planned().keys() == before.keys()
    assert planned() != before


def test_a_plan_that_a_migration_made_old_heals_itself(endpoint: Endpoint) -> None:
    asked = "SELECT event_types FROM svc_webhooks_endpoint WHERE id = %s::uuid"
    assert fetched(connection, asked, [endpoint.pk])
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE svc_webhooks_endpoint ALTER event_types TYPE text")
    try:
        for _ in range(2):
            ((found,),) = fetched(connection, asked, [endpoint.pk])
            assert isinstance(found, str)
        assert len(planned()) == 1
    finally:
        with connection.cursor() as cursor:
            cursor.execute(
                "ALTER TABLE svc_webhooks_endpoint ALTER event_types TYPE jsonb USING event_types::jsonb"
            )


def test_where_plans_keep_getting_lost_it_goes_on_without(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(statements.LOSSES + 2):
        assert fetched(connection, "SELECT %s::int", [number]) == [(number,)]
        with connection.cursor() as cursor:
            cursor.execute("DEALLOCATE ALL")  # as a pooler does that gives a connection to another

    assert fetched(connection, "SELECT %s::int", [7]) == [(7,)]
    assert planned() == {}
    assert [record for record in caplog.records if "prepared statements" in record.message]


def test_where_the_settings_tell_of_a_pooler_nothing_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "DISABLE_SERVER_SIDE_CURSORS", True)

    assert fetched(connection, "SELECT %s::int", [1]) == [(1,)]
    assert planned() == {}


def test_what_is_wrong_with_a_statement_is_told_in_the_ordinary_way() -> None:
    with pytest.raises(DatabaseError, match="division by zero"):
        fetched(connection, "SELECT 1 / %s::int", [0])
    assert fetched(connection, "SELECT 1 / %s::int", [1]) == [(1,)]


def test_a_connection_that_broke_is_an_error_as_ever_and_the_next_one_serves() -> None:
    fetched(connection, "SELECT %s::int", [1])
    with connection.cursor() as cursor, suppress(DatabaseError):
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(DatabaseError):
        fetched(connection, "SELECT %s::int", [1])
    connection.close()
    assert fetched(connection, "SELECT %s::int", [1]) == [(1,)]


def test_a_host_whose_clock_is_ahead_takes_nobodys_deliveries(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("order.placed", {})
    mine = Deliverer()
    assert mine.claim(limit=1) == 1
    real = timezone.now

    monkeypatch.setattr(timezone, "now", lambda: real() + timedelta(hours=1))
    theirs = Deliverer(clock=timezone.now)

    assert theirs.deliver() == 0
    assert Delivery.objects.get().epoch == 1
    mine.deliver()
    assert Delivery.objects.get().state == "succeeded"
    mine.close()
    theirs.close()
