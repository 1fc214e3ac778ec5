from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from svc_infra_django.jobs.worker import drain
from svc_infra_django.webhooks import publish, publish_many, verify
from svc_infra_django.webhooks.delivery import deliver_due
from svc_infra_django.webhooks.models import Delivery, Endpoint, EventType, Message, Replay
from svc_infra_django.webhooks.services.publishing import Publication, send_test
from svc_infra_django.webhooks.services.replaying import start_replay

from .conftest import Receiver

BASE = "/admin/svc_webhooks"
SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{43}=")


@pytest.fixture
def admin(make_user: Any) -> Client:
    client = Client()
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    return client


def form(url: str, **fields: Any) -> dict[str, Any]:
    return {"url": url, "description": "Shop", "owner": "", "tenant": "", "event_types": "order.*\nuser.*",
            "timeout_seconds": "", "retry_schedule": "null", "headers": "null", **fields}  # fmt: skip


def act(client: Client, model: str, action: str, *rows: Any) -> Any:
    return client.post(
        f"{BASE}/{model}/", {"action": action, "_selected_action": [str(row.pk) for row in rows]}, follow=True
    )


def test_an_endpoint_is_added_and_its_secret_shown_once(admin: Client, receiver: Receiver) -> None:
    assert admin.get(f"{BASE}/endpoint/add/").status_code == 200

    answer = admin.post(f"{BASE}/endpoint/add/", form(receiver.url(), headers='{"X-Key": "hush"}'))

    (secret,) = set(SECRET.findall(answer.content.decode()))
    assert "no-store" in answer["Cache-Control"]
    endpoint = Endpoint.objects.get()
    assert (endpoint.owner, endpoint.event_types) == (None, ["order.*", "user.*"])
    publish("order.placed", {})
    deliver_due()
    (request,) = receiver.requests
    assert verify(request.body, request.headers, secret)
    assert request.headers["x-key"] == "hush"
    for page in (
        f"{BASE}/endpoint/",
        f"{BASE}/endpoint/{endpoint.pk}/change/",
        f"{BASE}/endpoint/{endpoint.pk}/history/",
    ):
        shown = admin.get(page).content.decode()
        assert secret not in shown
        assert "hush" not in shown
    assert not LogEntry.objects.filter(change_message__contains="whsec").exists()


def test_a_bad_endpoint_is_refused_beside_its_field(admin: Client) -> None:
    for bad in (
        form("http://10.0.0.1/"),
        form("https://example.com", event_types="a b!"),
        form("https://example.com", headers='{"Host": "x"}'),
        form("https://example.com", headers='["x"]'),
        form("https://example.com", headers='{"x": 1}'),
        form("https://example.com", retry_schedule="[0]"),
        form("https://example.com", retry_schedule='"soon"'),
        form("https://example.com", retry_schedule='["1"]'),
        form("https://example.com", timeout_seconds="31"),
    ):
        answer = admin.post(f"{BASE}/endpoint/add/", bad)
        assert answer.status_code == 200
        assert answer.context["adminform"].form.errors, bad
    assert not Endpoint.objects.exists()


def test_an_endpoint_is_changed_and_keeps_its_headers(
    admin: Client, make_endpoint: Callable[..., Endpoint]
) -> None:
    endpoint = make_endpoint(headers={"X-Key": "hush"})
    page = f"{BASE}/endpoint/{endpoint.pk}/change/"

    answer = admin.post(page, form("https://example.com/new", event_types="*"))

    assert answer.status_code == 302
    endpoint.refresh_from_db()
    assert (endpoint.url, endpoint.event_types) == ("https://example.com/new", ["*"])
    assert endpoint.headers == {"X-Key": "hush"}
    admin.post(page, form("https://example.com/new", headers="{}"))
    endpoint.refresh_from_db()
    assert endpoint.headers == {}


def test_the_actions_of_an_endpoint(
    admin: Client, make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    endpoint = make_endpoint(retry_schedule=[])

    answer = act(admin, "endpoint", "rotate_secret", endpoint)
    (secret,) = set(SECRET.findall(answer.content.decode()))
    for action, state in (("pause", "paused"), ("disable", "disabled"), ("enable", "enabled")):
        act(admin, "endpoint", action, endpoint)
        endpoint.refresh_from_db()
        assert endpoint.state == state
    receiver.answers(500)
    act(admin, "endpoint", "send_test", endpoint)
    deliver_due()
    assert verify(receiver.requests[0].body, receiver.requests[0].headers, secret)
    assert Delivery.objects.get().state == "dead"
    receiver.answers(200)
    act(admin, "endpoint", "replay_dead", endpoint)
    drain()
    assert Replay.objects.get().state == Replay.State.DONE
    deliver_due()
    assert Delivery.objects.get().state == "succeeded"


def test_a_dead_delivery_is_replayed(
    admin: Client, make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    make_endpoint(retry_schedule=[])
    receiver.answers(500)
    publish("order.placed", {"id": 1})
    deliver_due()
    delivery = Delivery.objects.get()
    listed = admin.get(f"{BASE}/delivery/?state__exact=dead").content.decode()
    assert str(delivery.pk) in listed
    shown = admin.get(f"{BASE}/delivery/{delivery.pk}/change/").content.decode()
    assert "thank you" in shown

    act(admin, "delivery", "replay", delivery)

    assert Delivery.objects.get().state == "pending"
    assert "Only a delivery that is dead" in act(admin, "delivery", "replay", delivery).content.decode()
    Delivery.objects.update(state="dead")
    act(admin, "message", "replay", Message.objects.get())
    assert Delivery.objects.get().state == "pending"
    message = admin.get(f"{BASE}/message/{Message.objects.get().pk}/change/").content.decode()
    assert "order.placed" in message


def test_staff_who_may_only_look_cannot_act(make_user: Any, make_endpoint: Callable[..., Endpoint]) -> None:
    make_endpoint(retry_schedule=[])
    publish("order.placed", {})
    Delivery.objects.update(state="dead")
    looker = make_user("looker", is_staff=True)
    codenames = ["view_delivery", "view_endpoint", "view_message"]
    looker.user_permissions.add(*Permission.objects.filter(codename__in=codenames))
    client = Client()
    client.force_login(looker)

    act(client, "delivery", "replay", Delivery.objects.get())
    act(client, "message", "replay", Message.objects.get())
    act(client, "endpoint", "rotate_secret", Endpoint.objects.get())

    assert Delivery.objects.get().state == "dead"
    assert Endpoint.objects.get().signing_keys.count() == 1


def test_staff_who_may_only_look_are_not_shown_the_headers(
    make_user: Any, make_endpoint: Callable[..., Endpoint]
) -> None:
    endpoint = make_endpoint(headers={"Authorization": "Bearer hush"})
    looker = make_user("looker", is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_endpoint"))
    client = Client()
    client.force_login(looker)

    page = client.get(f"{BASE}/endpoint/{endpoint.pk}/change/")

    assert page.status_code == 200
    assert "hush" not in page.content.decode()
    assert "Authorization" not in page.content.decode()


def test_event_types_are_added_by_hand_and_those_of_code_are_read_only(admin: Client) -> None:
    answer = admin.post(
        f"{BASE}/eventtype/add/", {"name": "fence.painted", "description": "", "schema": "{}"}
    )
    assert answer.status_code == 302
    assert EventType.objects.get(name="fence.painted").source == "admin"
    EventType.objects.create(name="from.code", source="code")
    assert admin.get(f"{BASE}/eventtype/from.code/change/").status_code == 200


def test_lists_cost_the_same_at_1_and_at_50_rows(
    admin: Client, make_endpoint: Callable[..., Endpoint], user: Any
) -> None:
    def queries() -> dict[str, int]:
        found = {}
        for model in ("endpoint", "message", "delivery", "eventtype"):
            with CaptureQueriesContext(connection) as captured:
                assert admin.get(f"{BASE}/{model}/").status_code == 200
            found[model] = len(captured)
        message = Message.objects.order_by("created_at").first()
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(f"{BASE}/message/{message.pk}/change/").status_code == 200  # type: ignore[union-attr]
        return {**found, "one": len(captured)}

    make_endpoint(owner=user)
    EventType.objects.create(name="one.two")
    publish("order.placed", {}, owner=user)
    queries()  # Django looks its content types up once in each process
    few = queries()
    for n in range(49):
        make_endpoint(owner=user, description=f"E{n}")
        EventType.objects.create(name=f"one.n{n}")
    publish_many([Publication("order.placed", {}, owner=user)] * 49)

    assert queries() == few


def test_an_endpoint_with_deliveries_and_its_owner_can_be_deleted(
    admin: Client, make_endpoint: Callable[..., Endpoint], user: Any
) -> None:
    endpoint = make_endpoint(owner=user)
    publish("order.placed", {}, owner=user)
    deliver_due()

    admin.post(f"{BASE}/endpoint/{endpoint.pk}/delete/", {"post": "yes"})
    assert not Endpoint.objects.exists()

    make_endpoint(owner=user)
    publish("order.placed", {}, owner=user)
    admin.post(f"/admin/auth/user/{user.pk}/delete/", {"post": "yes"})
    assert not Endpoint.objects.exists()
    assert Message.objects.filter(owner=None).count() == 2


def test_an_event_type_is_named_as_publish_can_use_it_and_described_by_an_object(admin: Client) -> None:
    def add(name: str, schema: str) -> Any:
        return admin.post(
            f"{BASE}/eventtype/add/", {"name": name, "description": "", "schema": schema}
        ).context["adminform"].form.errors  # fmt: skip

    assert "name" in add("fence painted!", "{}")
    assert "schema" in add("fence.painted", "[1]")
    assert not EventType.objects.filter(name__startswith="fence").exists()


def test_an_owner_who_has_enough_endpoints_is_refused_beside_the_field(
    admin: Client, make_endpoint: Callable[..., Endpoint], user: Any, svc_settings: Callable[..., None]
) -> None:
    svc_settings(webhooks={"max_endpoints_per_owner": 1})
    make_endpoint(owner=user)

    answer = admin.post(f"{BASE}/endpoint/add/", form("https://example.com/", owner=str(user.pk)))

    assert "owner" in answer.context["adminform"].form.errors
    assert Endpoint.objects.count() == 1


def test_the_question_before_an_endpoint_is_deleted_names_no_single_delivery(
    admin: Client, make_endpoint: Callable[..., Endpoint], make_user: Any
) -> None:
    endpoint = make_endpoint()
    publish_many([Publication("order.placed", {})] * 3)

    page = admin.get(f"{BASE}/endpoint/{endpoint.pk}/delete/").content.decode()

    assert "Deliveries: 3" in page
    assert not any(str(delivery.pk) in page for delivery in Delivery.objects.all())
    looker = make_user("looker", is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_endpoint"))
    client = Client()
    client.force_login(looker)
    assert client.post(f"{BASE}/endpoint/{endpoint.pk}/delete/", {"post": "yes"}).status_code == 403
    assert Endpoint.objects.exists()


def test_a_replay_in_the_admin_is_in_the_history(
    admin: Client, make_endpoint: Callable[..., Endpoint]
) -> None:
    make_endpoint()
    message = publish("order.placed", {})
    Delivery.objects.update(state="dead")

    act(admin, "delivery", "replay", Delivery.objects.get())
    act(admin, "message", "replay", message)

    replayed = LogEntry.objects.filter(change_message="Replayed.").values_list("object_id", flat=True)
    assert set(replayed) == {str(Delivery.objects.get().pk), str(message.pk)}


def test_the_newest_deliveries_of_each_endpoint_are_a_picture(
    admin: Client, make_endpoint: Callable[..., Endpoint]
) -> None:
    good, bad = make_endpoint(description="good"), make_endpoint(description="bad")
    publish_many([Publication("order.placed", {})] * 60)
    Delivery.objects.update(state="succeeded")
    dead = Delivery.objects.filter(endpoint=bad).order_by("-created_at", "-id").values("pk")[:10]
    Delivery.objects.filter(pk__in=list(dead.values_list("pk", flat=True))).update(state="dead")

    listed = admin.get(f"{BASE}/endpoint/").content.decode()

    assert "the last 50: 50 succeeded" in listed
    assert "the last 50: 40 succeeded, 10 dead" in listed
    assert "100%" in listed and "80%" in listed
    shown = admin.get(f"{BASE}/endpoint/{bad.pk}/change/").content.decode()
    assert "40 succeeded, 10 dead" in shown
    assert "nothing sent yet" in admin.get(f"{BASE}/endpoint/{make_endpoint().pk}/change/").content.decode()
    assert good.pk != bad.pk


def test_a_message_has_a_timeline_of_what_was_tried(
    admin: Client, make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    make_endpoint(description="<b>Shipping</b> with a name that is longer than a label", retry_schedule=[60])
    receiver.answers(500)
    message = publish("order.placed", {})
    deliver_due()
    delivery = Delivery.objects.get()

    for page in (f"{BASE}/message/{message.pk}/change/", f"{BASE}/delivery/{delivery.pk}/change/"):
        shown = admin.get(page).content.decode()
        assert "&lt;b&gt;Shipping&lt;/b&gt; with a name that" in shown
        assert "<b>Shipping" not in shown
        assert "<title>1: 500, " in shown
        assert "<title>next attempt " in shown
    lonely = publish("nobody.listens", {}, tenant="elsewhere")
    assert "No endpoint listened." in admin.get(f"{BASE}/message/{lonely.pk}/change/").content.decode()


def test_an_example_of_an_event_type_is_sent(
    admin: Client, make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    endpoint = make_endpoint(event_types=["nothing"])
    schema = {"type": "object", "properties": {"id": {"type": "integer"}, "item": {"type": "string"}}}
    EventType.objects.create(name="fence.painted", schema=schema)
    assert "&quot;item&quot;: &quot;text&quot;" in admin.get(
        f"{BASE}/eventtype/fence.painted/change/"
    ).content.decode()  # fmt: skip

    admin.post(
        f"{BASE}/endpoint/",
        {"action": "send_test", "event_type": "fence.painted", "_selected_action": [str(endpoint.pk)]},
    )
    deliver_due()

    (request,) = receiver.requests
    sent = json.loads(request.body)
    assert (sent["type"], sent["data"]) == ("fence.painted", {"id": 1, "item": "text"})
    assert Delivery.objects.get().trigger == "test"


def test_nobody_makes_a_load_generator_of_the_tests(
    admin: Client, make_endpoint: Callable[..., Endpoint]
) -> None:
    endpoint = make_endpoint()

    for _ in range(20):
        send_test(endpoint)
    said = act(admin, "endpoint", "send_test", endpoint)

    assert "was sent many tests" in said.content.decode()
    assert Delivery.objects.count() == 20


def test_rate_and_room_of_an_endpoint_are_set_in_the_admin(
    admin: Client, make_endpoint: Callable[..., Endpoint]
) -> None:
    endpoint = make_endpoint()
    page = f"{BASE}/endpoint/{endpoint.pk}/change/"

    refused = admin.post(page, form(endpoint.url, rate_limit="0", max_in_flight="0"))
    assert {"rate_limit", "max_in_flight"} <= refused.context["adminform"].form.errors.keys()

    admin.post(page, form(endpoint.url, rate_limit="2.5", max_in_flight="3"))
    endpoint.refresh_from_db()
    assert (endpoint.rate_limit, endpoint.max_in_flight) == (2.5, 3)


def test_an_event_type_has_a_schedule_of_its_own_even_if_code_declares_it(admin: Client) -> None:
    EventType.objects.create(name="from.code", source="code")
    page = f"{BASE}/eventtype/from.code/change/"

    assert admin.post(page, {"retry_schedule": "[5, 10]"}).status_code == 302
    assert EventType.objects.get(name="from.code").retry_schedule == [5, 10]

    assert admin.post(page, {"retry_schedule": '["soon"]'}).status_code == 200
    assert EventType.objects.get(name="from.code").retry_schedule == [5, 10]


def test_replays_are_seen_with_their_progress_and_stopped(
    admin: Client, make_endpoint: Callable[..., Endpoint]
) -> None:
    endpoint = make_endpoint()
    publish("order.placed", {})
    deliver_due()

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert admin.get(f"{BASE}/replay/").status_code == 200
        return len(captured)

    running = start_replay(endpoint=endpoint, only_failed=False)
    queries()
    few = queries()
    Replay.objects.bulk_create(
        Replay(endpoint=endpoint, message=Message.objects.get(), per_second=1, total=3) for _ in range(30)
    )

    assert queries() == few
    assert admin.get(f"{BASE}/replay/{running.pk}/change/").status_code == 200
    act(admin, "replay", "cancel", running)
    again = act(admin, "replay", "cancel", running)
    running.refresh_from_db()
    assert running.state == "cancelled"
    assert "This replay is over." in again.content.decode()
    assert admin.post(f"{BASE}/endpoint/{endpoint.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Endpoint.objects.exists()


def test_a_credential_in_a_url_is_on_no_page_but_that_of_the_endpoint(
    admin: Client, make_endpoint: Callable[..., Endpoint], receiver: Receiver
) -> None:
    endpoint = make_endpoint("/hook?token=hush-hush", retry_schedule=[])
    receiver.answers(500)
    message = publish("order.placed", {})
    deliver_due()

    for page in (
        "endpoint/",
        f"endpoint/{endpoint.pk}/delete/",
        f"endpoint/{endpoint.pk}/history/",
        "delivery/",
        f"delivery/{Delivery.objects.get().pk}/change/",
        f"message/{message.pk}/change/",
    ):
        answer = admin.get(f"{BASE}/{page}")
        assert answer.status_code == 200
        assert "hush-hush" not in answer.content.decode(), page


def test_whatever_stands_in_the_address_there_is_a_page(admin: Client) -> None:
    for model in ("endpoint", "eventtype", "message", "delivery", "replay"):
        for query in ("state=%00", "source=%00", "tenant=%00", "q=%00", "state__exact=%ff"):
            assert admin.get(f"{BASE}/{model}/?{query}", follow=True).status_code == 200
        assert admin.get(f"{BASE}/{model}/%00/change/", follow=True).status_code == 200


@pytest.mark.parametrize("field", ["schema", "examples", "retry_schedule"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": NaN}', r'["\ud800"]', r'{"\u0000": 1}', "[1e400]"])
def test_json_that_cannot_be_kept_is_refused_beside_its_field(admin: Client, field: str, text: str) -> None:
    written = {"name": "lorry.left", "schema": "{}", "examples": "[]", "retry_schedule": "null", field: text}

    page = admin.post(f"{BASE}/eventtype/add/", written)

    assert page.status_code == 200
    assert page.context["adminform"].form.errors[field]
    assert not EventType.objects.filter(name="lorry.left").exists()


@pytest.mark.parametrize("field", ["headers", "retry_schedule"])
def test_an_endpoint_takes_no_json_that_cannot_be_read(admin: Client, field: str) -> None:
    for text in ("[" * 100_000, r'"\ud800"'):
        page = admin.post(f"{BASE}/endpoint/add/", form("https://example.com", **{field: text}))
        assert page.context["adminform"].form.errors[field]
    assert not Endpoint.objects.exists()
