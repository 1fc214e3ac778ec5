from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from svc_infra_django.apikeys import issue_key
from svc_infra_django.jobs.worker import drain
from svc_infra_django.webhooks import publish, publish_many, verify
from svc_infra_django.webhooks.delivery import deliver_due
from svc_infra_django.webhooks.models import Attempt, Delivery, Endpoint, EventType, Message, SigningKey
from svc_infra_django.webhooks.services.declaring import describe
from svc_infra_django.webhooks.services.publishing import Publication

from .conftest import Receiver

URL = "/api/webhooks"


@pytest.fixture
def client(user: Any) -> Client:
    client = Client()
    client.force_login(user)
    return client


def post(client: Client, path: str, body: Any = None, method: str = "post") -> Any:
    return getattr(client, method)(f"{URL}{path}", json.dumps(body or {}), content_type="application/json")


def test_an_endpoint_is_made_with_its_secret_shown_once(
    client: Client, receiver: Receiver, user: Any
) -> None:
    answer = post(client, "/endpoints", {"url": receiver.url(), "event_types": ["order.*"]})

    assert answer.status_code == 201
    assert answer["Cache-Control"] == "no-store"
    made = answer.json()
    assert made["secret"].startswith("whsec_")
    endpoint = Endpoint.objects.get(pk=made["endpoint"]["id"])
    assert (endpoint.owner, endpoint.event_types) == (user, ["order.*"])
    assert made["secret"] not in SigningKey.objects.get().sealed_secret
    for path in ("/endpoints", f"/endpoints/{endpoint.pk}"):
        assert made["secret"] not in client.get(f"{URL}{path}").content.decode()
    publish("order.placed", {"id": 1}, owner=user)
    deliver_due()
    assert verify(receiver.requests[0].body, receiver.requests[0].headers, made["secret"])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"url": "http://10.0.0.1/"}, "/body/url"),
        ({"url": "ftp://example.com/"}, "/body/url"),
        ({"url": "http://example.com/\x00"}, "/body/url"),
        ({"url": "x" * 1_000_000}, "/body/url"),
        ({"url": None}, "/body/url"),
        ({}, "/body/url"),
        ({"url": "http://example.com", "event_types": ["or der"]}, "/body/event_types"),
        ({"url": "http://example.com", "event_types": []}, "/body/event_types"),
        ({"url": "http://example.com", "headers": {"Host": "x"}}, "/body/headers"),
        ({"url": "http://example.com", "headers": {"x": "a\r\nb: c"}}, "/body/headers"),
        ({"url": "http://example.com", "timeout_seconds": 31}, "/body/timeout_seconds"),
        ({"url": "http://example.com", "retry_schedule": [0]}, "/body/retry_schedule/0"),
        ({"url": "http://example.com", "description": "\x00"}, "/body/description"),
        ({"url": "http://example.com", "nonsense": 1}, "/body/nonsense"),
    ],
)
def test_bad_input_names_its_field(client: Client, body: Any, pointer: str) -> None:
    answer = post(client, "/endpoints", body)

    assert answer.status_code == 422
    assert answer["Content-Type"] == "application/problem+json"
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert not Endpoint.objects.exists()


def test_an_endpoint_is_changed_in_part_and_deleted(
    client: Client, user: Any, make_endpoint: Callable[..., Endpoint]
) -> None:
    endpoint = make_endpoint(owner=user, headers={"X-Key": "hush"})

    answer = post(client, f"/endpoints/{endpoint.pk}", {"description": "Mine"}, "patch")

    assert answer.status_code == 200
    assert answer.json()["description"] == "Mine"
    endpoint.refresh_from_db()
    assert endpoint.headers == {"X-Key": "hush"}
    assert "hush" not in answer.content.decode()
    for bad in ({"url": None}, {"url": "http://169.254.169.254/"}, {"headers": {"Webhook-Id": "x"}}):
        assert post(client, f"/endpoints/{endpoint.pk}", bad, "patch").status_code == 422
    assert client.delete(f"{URL}/endpoints/{endpoint.pk}").status_code == 204
    assert not Endpoint.objects.exists()


def test_pause_enable_disable_rotate_and_test(
    client: Client, user: Any, make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    endpoint = make_endpoint(owner=user)
    path = f"/endpoints/{endpoint.pk}"

    assert post(client, f"{path}/pause").json()["state"] == "paused"
    assert post(client, f"{path}/disable").json()["state"] == "disabled"
    assert post(client, f"{path}/test").status_code == 409
    assert post(client, f"{path}/enable").json()["state"] == "enabled"
    secret = post(client, f"{path}/rotate-secret").json()["secret"]
    assert post(client, f"{path}/test").status_code == 201
    deliver_due()
    (request,) = receiver.requests
    assert json.loads(request.body)["type"] == "webhooks.test"
    assert verify(request.body, request.headers, secret)
    assert Attempt.objects.get().trigger == "test"


def test_a_strangers_things_are_not_found(
    client: Client, stranger: Any, make_endpoint: Callable[..., Endpoint]
) -> None:
    endpoint = make_endpoint(owner=stranger)
    message = publish("order.placed", {}, owner=stranger)
    delivery = Delivery.objects.get()

    for method, path in [
        ("get", f"/endpoints/{endpoint.pk}"),
        ("patch", f"/endpoints/{endpoint.pk}"),
        ("delete", f"/endpoints/{endpoint.pk}"),
        ("post", f"/endpoints/{endpoint.pk}/rotate-secret"),
        ("post", f"/endpoints/{endpoint.pk}/pause"),
        ("post", f"/endpoints/{endpoint.pk}/enable"),
        ("post", f"/endpoints/{endpoint.pk}/disable"),
        ("post", f"/endpoints/{endpoint.pk}/test"),
        ("post", f"/endpoints/{endpoint.pk}/replay"),
        ("get", f"/messages/{message.pk}"),
        ("get", f"/deliveries/{delivery.pk}"),
        ("get", f"/deliveries/{delivery.pk}/attempts"),
        ("post", f"/deliveries/{delivery.pk}/replay"),
        ("get", f"/endpoints/{uuid4()}"),
    ]:
        answer = post(client, path, {}, method) if method != "get" else client.get(f"{URL}{path}")
        assert answer.status_code == 404, (method, path)
    for path in ("/endpoints", "/messages", "/deliveries"):
        assert client.get(f"{URL}{path}").json()["items"] == []


def test_what_is_mine_in_another_tenant_is_not_found_in_this_one(
    client: Client, user: Any, make_endpoint: Callable[..., Endpoint]
) -> None:
    endpoint = make_endpoint(owner=user, tenant="acme")
    message = publish("order.placed", {}, owner=user, tenant="acme")
    delivery = Delivery.objects.get()

    for path in (f"endpoints/{endpoint.pk}", f"messages/{message.pk}", f"deliveries/{delivery.pk}"):
        assert client.get(f"{URL}/{path}").status_code == 404
        assert client.get(f"{URL}/{path.partition('/')[0]}").json()["items"] == []
    assert post(client, f"/deliveries/{delivery.pk}/replay").status_code == 404


def test_nobody_gets_in_without_a_credential(db: None, receiver: Receiver) -> None:
    anonymous = Client()

    for path in ("/event-types", "/endpoints", "/messages", "/deliveries"):
        assert anonymous.get(f"{URL}{path}").status_code == 401
    assert post(anonymous, "/endpoints", {"url": receiver.url()}).status_code == 401
    assert post(anonymous, f"/endpoints/{uuid4()}/test").status_code == 401
    assert not Endpoint.objects.exists()


def test_an_api_key_manages_no_endpoints(user: Any) -> None:
    _, key = issue_key(owner=user, name="robot")
    robot = Client(headers={"X-API-Key": key})

    assert robot.get(f"{URL}/endpoints").status_code == 403


def test_publishing_wants_a_permission(client: Client, user: Any) -> None:
    body = {"event_type": "order.placed", "data": {"id": 1}, "idempotency_key": "one"}
    refused = post(client, "/messages", body)
    assert (refused.status_code, refused.json()["permission"]) == (403, "svc_webhooks.add_message")

    user.user_permissions.add(Permission.objects.get(codename="add_message"))
    first, second = post(client, "/messages", body), post(client, "/messages", body)

    assert first.status_code == 201
    assert first.json()["id"] == second.json()["id"]
    shown = client.get(f"{URL}/messages/{first.json()['id']}").json()
    assert shown["body"]["data"] == {"id": 1}
    for bad in ({**body, "data": []}, {**body, "event_type": "a b"}, {**body, "idempotency_key": "\x00"}):
        assert post(client, "/messages", bad).status_code == 422
    assert post(client, "/messages", {**body, "data": {"a": "\ud800"}}).status_code == 400


def test_events_of_the_service_cannot_be_forged(client: Client, user: Any) -> None:
    user.user_permissions.add(Permission.objects.get(codename="add_message"))

    refused = post(client, "/messages", {"event_type": "user.logged_in", "data": {}})

    assert (refused.status_code, refused.json()["code"]) == (403, "webhooks.reserved_event_type")
    assert not Message.objects.exists()


def test_all_dead_of_an_endpoint_are_replayed_in_the_background_at_the_rate_of_replays(
    client: Client, user: Any, make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    endpoint = make_endpoint(owner=user, retry_schedule=[])
    receiver.answers(500)
    publish("order.placed", {}, owner=user)
    deliver_due()

    assert post(client, f"/endpoints/{endpoint.pk}/replay").json() == {"deliveries": 1}

    (running,) = client.get(f"{URL}/replays").json()["items"]
    assert (running["state"], running["per_second"]) == ("running", 50.0)
    assert client.get(f"{URL}/deliveries?state=dead").json()["items"] != []


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_a_moment_outside_of_time_is_refused(client: Client, user: Any, moment: str) -> None:
    user.user_permissions.add(Permission.objects.get(codename="add_message"))

    refused = post(client, "/messages", {"event_type": "a.b", "data": {}, "deliver_at": moment})

    assert refused.status_code == 422


def test_deliveries_and_attempts_are_listed_and_a_dead_one_replayed(
    client: Client, user: Any, make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    endpoint = make_endpoint(owner=user, retry_schedule=[])
    receiver.answers(500)
    publish("order.placed", {}, owner=user)
    deliver_due()

    (listed,) = client.get(f"{URL}/deliveries?state=dead&endpoint_id={endpoint.pk}").json()["items"]
    assert (listed["state"], listed["last_status"], listed["event_type"]) == ("dead", 500, "order.placed")
    assert client.get(f"{URL}/deliveries?state=succeeded").json()["items"] == []
    (attempt,) = client.get(f"{URL}/deliveries/{listed['id']}/attempts").json()["items"]
    assert (attempt["status_code"], attempt["error"]) == (500, "http")

    receiver.answers(200)
    assert post(client, f"/deliveries/{listed['id']}/replay").json()["state"] == "pending"
    assert post(client, f"/deliveries/{listed['id']}/replay").status_code == 409
    deliver_due()
    assert client.get(f"{URL}/deliveries/{listed['id']}").json()["state"] == "succeeded"

    Delivery.objects.update(state="dead")
    assert post(client, f"/endpoints/{endpoint.pk}/replay").json() == {"deliveries": 1}


def test_what_an_owner_is_told_makes_no_map_of_our_networks(
    client: Client, user: Any, make_endpoint: Callable[..., Endpoint], closed_port: int, svc_settings: Any
) -> None:
    make_endpoint(owner=user, url=f"http://127.0.0.1:{closed_port}/")
    publish("order.placed", {}, owner=user)
    deliver_due()

    (listed,) = client.get(f"{URL}/deliveries").json()["items"]
    (attempt,) = client.get(f"{URL}/deliveries/{listed['id']}/attempts").json()["items"]

    assert (listed["last_error"], attempt["error"], attempt["response_head"], attempt["duration_ms"]) == (
        "unreachable",
        "unreachable",
        "",
        None,
    )
    svc_settings(webhooks={"allowed_networks": ()})
    (attempt,) = client.get(f"{URL}/deliveries/{listed['id']}/attempts").json()["items"]
    assert attempt["duration_ms"] >= 0
    for error in ("blocked", "dns"):
        Attempt.objects.update(error=error)
        (attempt,) = client.get(f"{URL}/deliveries/{listed['id']}/attempts").json()["items"]
        assert (attempt["error"], attempt["duration_ms"]) == ("address", None)
    Delivery.objects.update(last_error="blocked")
    assert client.get(f"{URL}/deliveries").json()["items"][0]["last_error"] == "address"
    Delivery.objects.update(last_error="dns")
    assert client.get(f"{URL}/deliveries").json()["items"][0]["last_error"] == "address"


def test_what_a_receiver_answers_is_its_owners_to_see_unless_it_may_be_in_a_private_network(
    client: Client, user: Any, make_endpoint: Callable[..., Endpoint], receiver: Receiver, svc_settings: Any
) -> None:
    make_endpoint(owner=user)
    receiver.answers(200, X_Inside="told")
    publish("order.placed", {}, owner=user)
    deliver_due()
    attempts = f"{URL}/deliveries/{Delivery.objects.get().pk}/attempts"

    (hidden,) = client.get(attempts).json()["items"]
    svc_settings(webhooks={"allowed_networks": ()})
    (shown,) = client.get(attempts).json()["items"]

    assert (hidden["status_code"], hidden["response_head"], hidden["response_headers"]) == (200, "", {})
    assert (shown["response_head"], shown["response_headers"]["x-inside"]) == ("thank you", "told")


def test_two_moments_do_not_tell_how_long_it_took_where_that_is_hidden(
    client: Client, user: Any, make_endpoint: Callable[..., Endpoint], closed_port: int
) -> None:
    endpoint = make_endpoint(owner=user, url=f"http://127.0.0.1:{closed_port}/", retry_schedule=[])
    publish("order.placed", {}, owner=user)
    deliver_due()
    endpoint.refresh_from_db()
    over = endpoint.last_failure_at
    assert over is not None
    Attempt.objects.update(at=over - timedelta(milliseconds=4321), duration_ms=4321)

    (listed,) = client.get(f"{URL}/deliveries").json()["items"]
    (attempt,) = client.get(f"{URL}/deliveries/{listed['id']}/attempts").json()["items"]

    at = datetime.fromisoformat(attempt["at"])
    assert abs(at - over) < timedelta(milliseconds=1)
    assert abs(at - datetime.fromisoformat(listed["settled_at"])) < timedelta(milliseconds=1)


def test_lists_cost_the_same_at_1_and_at_50_rows(
    client: Client, user: Any, make_endpoint: Callable[..., Endpoint]
) -> None:
    make_endpoint(owner=user, retry_schedule=[1])

    def queries() -> dict[str, int]:
        found = {}
        for path in (
            "/event-types",
            "/endpoints",
            "/messages",
            "/deliveries",
            f"/deliveries/{first}/attempts",
        ):
            with CaptureQueriesContext(
                connection,
            ) as captured:
                assert client.get(f"{URL}{path}").status_code == 200
            found[path] = len(captured)
        return found

    publish("order.placed", {}, owner=user)
    first = Delivery.objects.get().pk
    deliver_due()
    few = queries()
    for _ in range(49):
        make_endpoint(owner=user, event_types=["nothing"])
    publish_many([Publication("order.placed", {}, owner=user)] * 49)
    deliver_due()
    Attempt.objects.bulk_create(
        Attempt(delivery_id=first, n=n, at=Message.objects.first().created_at, trigger="retry", duration_ms=1)  # type: ignore[union-attr]
        for n in range(2, 51)
    )

    assert queries() == few
    page = client.get(f"{URL}/deliveries?limit=20").json()
    assert len(page["items"]) == 20
    assert client.get(f"{URL}/deliveries?limit=40&cursor={page['next_cursor']}").json()["next_cursor"] is None


def test_a_user_has_so_many_endpoints_and_no_more(
    client: Client, user: Any, svc_settings: Callable[..., None], receiver: Receiver
) -> None:
    svc_settings(webhooks={"max_endpoints_per_owner": 1})

    assert post(client, "/endpoints", {"url": receiver.url()}).status_code == 201
    assert post(client, "/endpoints", {"url": receiver.url()}).json()["code"] == "webhooks.too_many_endpoints"


def test_a_batch_is_published_whole_or_not_at_all(
    client: Client, user: Any, make_endpoint: Callable[..., Endpoint]
) -> None:
    make_endpoint(owner=user)
    placed = {"event_type": "order.placed", "data": {}}
    body = {"messages": [{**placed, "idempotency_key": f"k{n}"} for n in range(3)]}
    assert post(client, "/messages/batch", body).status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="add_message"))

    first, again = post(client, "/messages/batch", body), post(client, "/messages/batch", body)

    assert first.status_code == 201
    assert [made["idempotency_key"] for made in first.json()] == ["k0", "k1", "k2"]
    assert [made["id"] for made in first.json()] == [made["id"] for made in again.json()]
    assert Delivery.objects.count() == 3
    for bad, pointer in (
        ({"event_type": "a b", "data": {}}, "/body/messages/1/event_type"),
        ({"event_type": "a.b", "data": []}, "/body/messages/1/data"),
    ):
        refused = post(client, "/messages/batch", {"messages": [{"event_type": "a.b", "data": {}}, bad]})
        assert (refused.status_code, refused.json()["errors"][0]["pointer"]) == (422, pointer)
    for size in (0, 101):
        many = {"messages": [{"event_type": "a.b", "data": {}}] * size}
        assert post(client, "/messages/batch", many).status_code == 422
    forged = {"messages": [{"event_type": "a.b", "data": {}}, {"event_type": "user.logged_in", "data": {}}]}
    assert post(client, "/messages/batch", forged).status_code == 403
    assert Message.objects.count() == 3


def test_a_batch_costs_as_many_statements_as_one_message(client: Client, user: Any) -> None:
    user.user_permissions.add(Permission.objects.get(codename="add_message"))

    def queries(count: int) -> int:
        with CaptureQueriesContext(connection) as captured:
            body = {"messages": [{"event_type": "order.placed", "data": {}}] * count}
            assert post(client, "/messages/batch", body).status_code == 201
        return len(captured)

    queries(1)

    assert queries(1) == queries(100)


def test_the_health_of_an_endpoint_is_told_in_numbers(
    client: Client, user: Any, make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    endpoint = make_endpoint(owner=user, retry_schedule=[])
    url = f"{URL}/endpoints/{endpoint.pk}/health"
    assert client.get(url).json()["success_rate"] is None
    receiver.answers(500, 200, 200, 200)
    publish_many([Publication("order.placed", {}, owner=user)] * 4)
    deliver_due()

    told = client.get(url).json()

    assert (told["deliveries"], told["succeeded"], told["dead"], told["success_rate"]) == (4, 3, 1, 0.75)


def test_an_example_is_shown_and_sent(
    client: Client, user: Any, make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    EventType.objects.create(name="fence.painted", schema={"properties": {"id": {"type": "integer"}}})
    endpoint = make_endpoint(owner=user)

    assert client.get(f"{URL}/event-types/fence.painted").json()["example"] == {"id": 1}
    sent = client.post(f"{URL}/endpoints/{endpoint.pk}/test?event_type=fence.painted")
    assert sent.status_code == 201
    deliver_due()
    assert json.loads(receiver.requests[0].body)["data"] == {"id": 1}
    for name, refused, missing in (("nothing", 404, 404), ("%00", 422, 422), ("a b", 422, 404)):
        assert client.post(f"{URL}/endpoints/{endpoint.pk}/test?event_type={name}").status_code == refused
        assert client.get(f"{URL}/event-types/{name}").status_code == missing
    assert client.post(f"{URL}/endpoints/{endpoint.pk}/test").status_code == 201
    for _ in range(20):
        last = post(client, f"/endpoints/{endpoint.pk}/test")
    assert (last.status_code, last["Retry-After"]) == (429, "60")


def test_much_is_replayed_with_a_count_before_and_progress_after(
    client: Client, user: Any, stranger: Any, make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    endpoint = make_endpoint(owner=user, retry_schedule=[])
    others = make_endpoint(owner=stranger)
    receiver.answers(500)
    publish_many([Publication("order.placed", {}, owner=user)] * 3)
    deliver_due()
    chosen = {"endpoint_id": str(endpoint.pk)}

    assert post(client, "/replays/count", chosen).json() == {"deliveries": 3}
    assert not Delivery.objects.waiting().exists()
    started = post(client, "/replays", {**chosen, "per_second": 100})
    assert (started.status_code, started.json()["total"]) == (201, 3)
    drain()

    url = f"/replays/{started.json()['id']}"
    assert client.get(URL + url).json()["done"] == 3
    assert client.get(f"{URL}/replays").json()["items"][0]["state"] == "done"
    assert post(client, f"{url}/cancel").status_code == 409
    assert post(client, "/replays", {"endpoint_id": str(others.pk)}).status_code == 404
    client.force_login(stranger)
    assert client.get(URL + url).status_code == 404
    assert post(client, f"{url}/cancel").status_code == 404


def test_nobody_makes_a_load_generator_of_replays(client: Client, user: Any, stranger: Any) -> None:
    asked = {"since": "2026-01-01T00:00:00Z"}
    made = [post(client, "/replays", asked) for _ in range(11)]

    assert [answer.status_code for answer in made] == [201] * 10 + [429]
    assert made[-1].json()["code"] == "webhooks.too_many_replays"
    assert made[-1]["Retry-After"] == "5"
    client.force_login(stranger)
    assert post(client, "/replays", asked).status_code == 201
    client.force_login(user)
    drain()
    assert post(client, "/replays", asked).status_code == 201


@pytest.mark.parametrize(
    "body",
    [{}, {"since": "yesterday"}, {"since": "2026-01-01T00:00:00"}, {"endpoint_id": "x"}, {"per_second": -1},
     {"message_id": 7}, {"only_failed": "perhaps"}, {"more": 1}],
)  # fmt: skip
def test_a_replay_that_makes_no_sense_is_refused(client: Client, body: Any) -> None:
    answer = post(client, "/replays", body)

    assert answer.status_code == 422
    assert answer["Content-Type"] == "application/problem+json"


def test_the_body_of_a_message_can_be_taken_out(
    client: Client, user: Any, stranger: Any, make_endpoint: Callable[..., Endpoint]
) -> None:
    make_endpoint(owner=user)
    message = publish("order.placed", {"card": "hush"}, owner=user)
    others = publish("order.placed", {}, owner=stranger)

    assert post(client, f"/messages/{message.pk}/expunge").json()["expunged_at"]
    assert client.get(f"{URL}/messages/{message.pk}").json()["body"] is None
    assert post(client, f"/messages/{others.pk}/expunge").status_code == 404
    assert deliver_due() == 0


def test_rate_cap_and_versions_are_seen_and_set(client: Client, user: Any, receiver: Receiver) -> None:
    made = post(client, "/endpoints", {"url": receiver.url(), "rate_limit": 2.5, "max_in_flight": 3}).json()
    path = f"/endpoints/{made['endpoint']['id']}"
    describe("lorry.left", schema={"required": ["id"]}, examples=[{"id": 1}])
    describe("lorry.left", schema={"required": ["number"]})

    assert (made["endpoint"]["rate_limit"], made["endpoint"]["max_in_flight"]) == (2.5, 3)
    changed = post(client, path, {"rate_limit": None}, "patch").json()
    assert (changed["rate_limit"], changed["max_in_flight"]) == (None, 3)
    for bad in ({"rate_limit": 0}, {"rate_limit": 1e9}, {"max_in_flight": 0}, {"max_in_flight": 1.5}):
        assert post(client, path, bad, "patch").status_code == 422
    versions = client.get(f"{URL}/event-types/lorry.left/versions").json()["items"]
    assert [each["version"] for each in versions] == [2, 1]
    assert "lorry.left" in client.get(f"{URL}/event-types/openapi").json()["webhooks"]
    assert client.get(f"{URL}/event-types/no.such/versions").status_code == 404


def test_data_that_does_not_fit_is_refused_with_its_place(client: Client, user: Any) -> None:
    user.user_permissions.add(Permission.objects.get(codename="add_message"))
    describe("lorry.left", schema={"properties": {"id": {"type": "integer"}}})

    answer = post(client, "/messages", {"event_type": "lorry.left", "data": {"id": "x"}})

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/body/data/id"
