"""Staff look into the inbox and have webhooks handled again."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin as django_admin
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import include, path

from svc_infra_django.apikeys import issue_key
from svc_infra_django.jobs.worker import drain
from svc_infra_django.webhooks.inbound.models import InboxMessage

from .conftest import Shop
from .conftest import urlpatterns as hooks

urlpatterns = [path("admin/", django_admin.site.urls), path("", include("tests.urls")), *hooks]

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("here")]

PAGE = "/admin/svc_inbound/inboxmessage/"
URL = "/api/inbound/messages"


@pytest.fixture
def here(sources: None) -> Any:
    with override_settings(ROOT_URLCONF=__name__):
        yield


@pytest.fixture
def staff(make_user: Any) -> Client:
    client = Client()
    client.force_login(make_user("root", is_staff=True, is_superuser=True))
    return client


def keep(count: int = 1, **fields: Any) -> list[InboxMessage]:
    return InboxMessage.objects.bulk_create(
        InboxMessage(
            **{
                "source": "stripe",
                "external_id": f"evt_{n}",
                "state": "failed",
                "body": b'{"n": 1}',
                **fields,
            }
        )
        for n in range(count)
    )


def test_a_credential_of_one_tenant_reaches_no_inbox(make_user: Any) -> None:
    (message,) = keep()
    root = make_user("root", is_superuser=True)
    _, key = issue_key(owner=root, name="acme", tenant="acme")
    client = Client(headers={"X-API-Key": key})

    for method, url in (("get", URL), ("get", f"{URL}/{message.pk}"), ("post", f"{URL}/{message.pk}/replay")):
        answer = getattr(client, method)(url)
        assert (answer.status_code, answer.json()["code"]) == (403, "tenant_refused"), url


def test_a_failed_webhook_is_found_read_and_replayed(staff: Client, at_work: Shop) -> None:
    (message,) = keep(error="builtins.ValueError: no stock")

    listed = staff.get(f"{PAGE}?state__exact=failed&source=stripe").content.decode()
    shown = staff.get(f"{PAGE}{message.pk}/change/").content.decode()
    staff.post(PAGE, {"action": "replay", "_selected_action": [str(message.pk)]})
    drain()

    assert "evt_0" in listed
    assert "no stock" in shown and "{&quot;n&quot;: 1}" in shown
    assert [heard.external_id for heard in at_work.heard] == ["evt_0"]
    message.refresh_from_db()
    assert (message.state, message.attempts) == ("handled", 1)


def test_staff_who_may_only_look_replay_nothing(make_user: Any) -> None:
    (message,) = keep()
    looker = make_user("looker", is_staff=True)
    looker.user_permissions.add(Permission.objects.get(codename="view_inboxmessage"))
    client = Client()
    client.force_login(looker)

    assert client.get(PAGE).status_code == 200
    client.post(PAGE, {"action": "replay", "_selected_action": [str(message.pk)]})

    message.refresh_from_db()
    assert message.state == "failed"
    assert client.post(f"{URL}/{message.pk}/replay").status_code == 403
    assert client.get(f"{URL}/{message.pk}").status_code == 200


def test_a_source_without_a_handler_says_so(staff: Client) -> None:
    keep(source="gone")

    said = staff.post(
        PAGE, {"action": "replay", "_selected_action": [str(InboxMessage.objects.get().pk)]}, follow=True
    )

    assert "No function is decorated" in said.content.decode()
    assert InboxMessage.objects.get().state == "failed"


def test_the_api_lists_shows_and_replays(staff: Client, at_work: Shop) -> None:
    keep(3)

    page = staff.get(f"{URL}?limit=2&state=failed&source=stripe").json()
    rest = staff.get(f"{URL}?limit=2&cursor={page['next_cursor']}&state=failed&source=stripe").json()
    one = page["items"][0]["id"]

    assert len(page["items"]) == 2
    assert len(rest["items"]) == 1
    assert staff.get(f"{URL}/{one}").json()["body"] == '{"n": 1}'
    assert staff.post(f"{URL}/{one}/replay").json()["state"] == "received"
    drain()
    assert len(at_work.heard) == 1
    assert staff.get(f"{URL}?state=nonsense").status_code == 422
    assert staff.get(f"{URL}/00000000-0000-0000-0000-000000000000").status_code == 404
    assert staff.get(f"{URL}?source=%00").status_code in (200, 422)


def test_lists_cost_the_same_at_1_and_at_50_rows(staff: Client) -> None:
    def queries(path: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert staff.get(path).status_code == 200
        return len(captured)

    keep()
    few = [queries(PAGE), queries(URL)]
    keep(49, source="github")

    assert [queries(PAGE), queries(URL)] == few
