from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Barrier, Thread
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, connections, transaction
from django.utils import timezone
from prometheus_client import REGISTRY
from pydantic import BaseModel

from svc_infra_django.errors import ValidationError
from svc_infra_django.events import EventType, catalog
from svc_infra_django.webhooks import apublish, publish, publish_many
from svc_infra_django.webhooks.delivery import deliver_due
from svc_infra_django.webhooks.errors import BadEventType, BadPayload, EndpointNotEnabled
from svc_infra_django.webhooks.models import Delivery, Endpoint, Message
from svc_infra_django.webhooks.services.declaring import describe
from svc_infra_django.webhooks.services.publishing import Publication, send_test
from svc_infra_django.webhooks.services.subscribing import disable_endpoint

from ..conftest import Receiver

# Looking up who listens, and writing; SQLite cannot write two tables at once.
STATEMENTS = 2 if connection.vendor == "postgresql" else 3
STATEMENTS_FOR_TAKEN_KEYS = 3


class Painted(BaseModel):
    """A fence was painted."""

    colour: str


@pytest.fixture
def painted() -> Any:
    yield EventType("fence.painted", Painted, outward=True)
    del catalog["fence.painted"]


@pytest.mark.parametrize(
    ("patterns", "event_type", "hears"),
    [
        (["order.placed"], "order.placed", True),
        (["order.placed"], "order.placed_late", False),
        (["order.*"], "order.placed", True),
        (["order.*"], "orders.placed", False),
        (["*"], "anything.at.all", True),
        (["*.placed"], "order.placed", True),
        (["order.*"], "order", False),
        (["user.*", "order.placed"], "order.placed", True),
    ],
)
def test_an_endpoint_hears_what_its_patterns_match(
    make_endpoint: Callable[..., Endpoint], patterns: list[str], event_type: str, hears: bool
) -> None:
    make_endpoint(event_types=patterns)

    publish(event_type, {})

    assert Delivery.objects.exists() is hears


@pytest.mark.parametrize(
    ("endpoint_tenant", "endpoint_owner", "tenant", "owner", "hears"),
    [
        ("", None, "", None, True),
        ("", None, "", "ada", True),
        ("", "ada", "", "ada", True),
        ("", "ada", "", None, False),
        ("", "ada", "", "mallory", False),
        ("acme", None, "acme", None, True),
        ("acme", None, "", None, False),
        ("", None, "acme", None, False),
        ("acme", "ada", "other", "ada", False),
    ],
)
def test_a_message_reaches_its_own_tenant_and_owner_only(
    make_endpoint: Callable[..., Endpoint],
    user: Any,
    stranger: Any,
    endpoint_tenant: str,
    endpoint_owner: str | None,
    tenant: str,
    owner: str | None,
    hears: bool,
) -> None:
    people = {"ada": user, "mallory": stranger, None: None}
    make_endpoint(tenant=endpoint_tenant, owner=people[endpoint_owner])

    publish("order.placed", {}, tenant=tenant, owner=people[owner])

    assert Delivery.objects.exists() is hears


def test_a_rollback_leaves_nothing(endpoint: Endpoint, receiver: Receiver) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        publish("order.placed", {})
        raise RuntimeError

    assert not Message.objects.exists()
    assert deliver_due() == 0
    assert receiver.requests == []


@pytest.mark.parametrize("endpoints", [1, 1000])
def test_publishing_costs_the_same_however_many_endpoints(
    make_endpoint: Callable[..., Endpoint], django_assert_num_queries: Any, endpoints: int
) -> None:
    first = make_endpoint()
    Endpoint.objects.bulk_create(
        Endpoint(url=first.url, event_types=["order.*"]) for _ in range(endpoints - 1)
    )

    with transaction.atomic(), django_assert_num_queries(STATEMENTS):
        publish("order.placed", {})

    assert Delivery.objects.count() == endpoints


@pytest.mark.django_db(transaction=True)
def test_publishing_outside_of_a_transaction_opens_one_only_if_it_writes_twice(
    make_endpoint: Callable[..., Endpoint], django_assert_num_queries: Any
) -> None:
    make_endpoint()

    # On SQLite BEGIN and COMMIT come to it.
    with django_assert_num_queries(STATEMENTS if connection.vendor == "postgresql" else STATEMENTS + 2):
        publish("order.placed", {})

    assert Delivery.objects.count() == 1


def test_many_cost_as_much_as_one(endpoint: Endpoint, django_assert_num_queries: Any) -> None:
    with transaction.atomic(), django_assert_num_queries(STATEMENTS):
        messages = publish_many([Publication("order.placed", {"n": n}) for n in range(100)])

    assert len(messages) == 100
    assert Delivery.objects.count() == 100


def test_the_second_publication_with_a_key_is_the_first(endpoint: Endpoint) -> None:
    first = publish("order.placed", {"n": 1}, idempotency_key="order-1")
    again = publish("order.placed", {"n": 2}, idempotency_key="order-1")
    elsewhere = publish("order.placed", {"n": 3}, idempotency_key="order-1", tenant="acme")

    assert again.pk == first.pk != elsewhere.pk
    assert json.loads(bytes(again.body))["data"] == {"n": 1}
    assert Delivery.objects.count() == 1


def test_nobody_can_take_the_key_of_another(
    make_endpoint: Callable[..., Endpoint], user: Any, stranger: Any
) -> None:
    make_endpoint(owner=user)
    taken = publish("order.placed", {}, idempotency_key="order-17", owner=stranger)
    projects_own = publish("order.placed", {}, idempotency_key="order-17")

    mine = publish("order.placed", {}, idempotency_key="order-17", owner=user)

    assert len({taken.pk, projects_own.pk, mine.pk}) == 3
    assert Delivery.objects.get().message_id == mine.pk
    # Those who go leave their messages, and two that had one key do not meet.
    user.delete()
    stranger.delete()
    assert Message.objects.filter(owner=None, idempotency_key="order-17").count() == 3


@pytest.mark.parametrize("others", [0, 30])
def test_a_batch_for_many_owners_costs_as_much_as_one_for_one(
    make_endpoint: Callable[..., Endpoint],
    make_user: Any,
    django_assert_num_queries: Any,
    others: int,
) -> None:
    owners = [make_user(f"owner{n}") for n in range(others + 1)]
    for owner in owners:
        make_endpoint(owner=owner)
    make_endpoint()
    entries = [Publication("order.placed", {}, owner=owner) for owner in owners]

    with transaction.atomic(), django_assert_num_queries(STATEMENTS):
        publish_many(entries)

    assert Delivery.objects.count() == 2 * len(owners)


def test_taken_keys_are_found_in_one_statement(endpoint: Endpoint, django_assert_num_queries: Any) -> None:
    entries = [Publication("order.placed", {"n": n}, idempotency_key=str(n % 10)) for n in range(20)]
    first = publish_many(entries[:10])

    with transaction.atomic(), django_assert_num_queries(STATEMENTS_FOR_TAKEN_KEYS):
        again = publish_many(entries)

    assert [message.pk for message in again] == [message.pk for message in first] * 2
    assert Delivery.objects.count() == 10


def test_thousands_are_published_at_once(endpoint: Endpoint) -> None:
    assert len(publish_many([Publication("order.placed", {})] * 3_000)) == 3_000

    assert Delivery.objects.count() == 3_000


def test_a_key_twice_in_one_batch_is_one_message(endpoint: Endpoint) -> None:
    one, other = publish_many([Publication("order.placed", {"n": n}, idempotency_key="k") for n in (1, 2)])

    assert one.pk == other.pk
    assert Message.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_who_publish_one_key_at_once_write_one_message(make_endpoint: Callable[..., Endpoint]) -> None:
    make_endpoint()
    barrier, found = Barrier(2), []

    def run() -> None:
        barrier.wait()
        found.append(publish("order.placed", {}, idempotency_key="once").pk)
        connection.close()

    threads = [Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert len(found) == 2
    assert len(set(found)) == 1
    assert Delivery.objects.count() == 1


@pytest.mark.parametrize("name", ["", "a b", "a..b", ".a", "a.", "ä", "a" * 129, "a\n", "a-b", None, 7])
def test_a_bad_event_type_is_refused(db: None, name: Any) -> None:
    with pytest.raises(BadEventType) as refused:
        publish(name, {})
    assert [problem.pointer for problem in refused.value.errors] == ["/body/event_type"]


def circle() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize("data", [object(), {"a": {1, object()}}, {"a": "\ud800"}, circle(), "x" * 300_000])
def test_data_that_cannot_be_sent_is_refused(db: None, data: Any) -> None:
    with pytest.raises(BadPayload):
        publish("order.placed", data)
    assert not Message.objects.exists()


@pytest.mark.parametrize(
    "fields", [{"tenant": "x" * 129}, {"tenant": "\x00"}, {"idempotency_key": "x" * 256}]
)
def test_labels_that_cannot_be_stored_are_refused(db: None, fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        publish("order.placed", {}, **fields)  # type: ignore[arg-type]


def test_data_must_fit_a_declared_type(endpoint: Endpoint, painted: Any) -> None:
    with pytest.raises(BadPayload, match="/body/data/colour") as refused:
        publish("fence.painted", {"color": "red"})
    assert [problem.pointer for problem in refused.value.errors] == ["/body/data/colour"]

    publish("fence.painted", {"colour": "red"})
    publish("fence.painted", Painted(colour="blue"))

    assert Delivery.objects.count() == 2


def test_of_a_declared_type_what_was_declared_is_sent(db: None) -> None:
    class Weighed(BaseModel):
        kilograms: int
        is_full: bool = False

    EventType("lorry.weighed", Weighed, outward=True)
    try:
        message = publish("lorry.weighed", {"kilograms": "700", "note": "for us alone"})
    finally:
        del catalog["lorry.weighed"]

    assert json.loads(message.body)["data"] == {"kilograms": 700, "is_full": False}


def test_a_model_of_another_type_does_not_fit_either(db: None, painted: Any) -> None:
    class Repainted(BaseModel):
        coat: int

    with pytest.raises(BadPayload):
        publish("fence.painted", Repainted(coat=2))
    assert not Message.objects.exists()


def test_an_outward_event_becomes_a_message(
    make_endpoint: Callable[..., Endpoint], user: Any, painted: Any
) -> None:
    make_endpoint(owner=user)

    painted.emit(Painted(colour="red"), owner=user)

    message = Message.objects.get()
    assert (message.event_type, message.owner) == ("fence.painted", user)
    assert json.loads(bytes(message.body))["data"] == {"colour": "red"}
    assert Delivery.objects.count() == 1


def test_an_event_of_the_house_stays_inside(endpoint: Endpoint) -> None:
    disable_endpoint(endpoint)

    assert not Message.objects.exists()


def test_a_message_can_wait_for_its_hour(endpoint: Endpoint) -> None:
    publish("order.placed", {}, deliver_at=timezone.now() + timedelta(hours=1))

    assert deliver_due() == 0
    assert deliver_due(now=timezone.now() + timedelta(hours=2)) == 1


def test_nobody_pushes_in_with_an_hour_that_is_past(endpoint: Endpoint) -> None:
    before = timezone.now()

    message = publish("order.placed", {}, deliver_at=before - timedelta(days=9))

    assert message.deliver_at >= before


def test_an_hour_without_its_time_zone_is_refused(db: None) -> None:
    with pytest.raises(ValidationError):
        publish("order.placed", {}, deliver_at=datetime(2030, 1, 1))


def test_names_that_callers_make_up_are_no_time_series_each(endpoint: Endpoint) -> None:
    publish("made.up.by_somebody", {})

    labels = {"type": "made.up.by_somebody"}
    assert REGISTRY.get_sample_value("webhooks_published_total", labels) is None
    assert REGISTRY.get_sample_value("webhooks_published_total", {"type": "undeclared"})


def test_a_test_message_goes_to_one_endpoint_only(
    make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    chosen = make_endpoint(path="/chosen", event_types=["order.*"])
    make_endpoint(path="/other")

    send_test(chosen)
    deliver_due()

    assert [request.path for request in receiver.requests] == ["/chosen"]
    disable_endpoint(chosen)
    with pytest.raises(EndpointNotEnabled):
        send_test(chosen)


@pytest.mark.django_db(transaction=True)
def test_it_works_from_async_code(make_endpoint: Callable[..., Endpoint]) -> None:
    make_endpoint()

    async def run() -> Message:
        published = await apublish("order.placed", {"id": 1})
        await sync_to_async(connections.close_all)()
        return published

    message = asyncio.run(run())

    assert Delivery.objects.get().message_id == message.pk


def test_data_must_fit_the_schema_of_its_record(endpoint: Endpoint) -> None:
    describe(
        "lorry.left", schema={"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}}
    )

    with pytest.raises(BadPayload) as refusal:
        publish("lorry.left", {"id": "hush"})
    message = publish("lorry.left", {"id": 7})

    (problem,) = refusal.value.errors
    assert (problem.pointer, problem.code) == ("/body/data/id", "schema")
    assert "hush" not in f"{refusal.value} {problem}"
    assert message.schema_version == 1
    assert Message.objects.get().schema_version == 1


def test_what_is_checked_is_what_is_sent(endpoint: Endpoint) -> None:
    describe("lorry.left", schema={"properties": {"at": {"type": "string"}, "load": {"type": "number"}}})

    publish("lorry.left", {"at": timezone.now()})
    with pytest.raises(BadPayload):
        publish("lorry.left", {"load": float("nan")})


def test_a_refused_payload_leaves_the_callers_transaction_usable(endpoint: Endpoint) -> None:
    describe("lorry.left", schema={"required": ["id"]})

    with transaction.atomic():
        with pytest.raises(BadPayload):
            publish("lorry.left", {})
        publish("lorry.left", {"id": 1})

    assert Message.objects.count() == 1


def test_a_new_schema_holds_from_the_next_message_on(endpoint: Endpoint) -> None:
    describe("lorry.left", schema={"required": ["id"]})
    first = publish("lorry.left", {"id": 1})
    describe("lorry.left", schema={"required": ["number"]})

    with pytest.raises(BadPayload):
        publish("lorry.left", {"id": 1})
    second = publish("lorry.left", {"number": 1})

    assert (first.schema_version, second.schema_version) == (1, 2)
