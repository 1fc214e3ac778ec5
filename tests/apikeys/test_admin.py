from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import override

from svc_infra_django.apikeys import issue_key, revoke_key, verify_key
from svc_infra_django.apikeys.admin import usage_chart
from svc_infra_django.apikeys.errors import InvalidKey
from svc_infra_django.apikeys.models import ApiKey, AuditEntry, UsageHour

LIST = "/admin/svc_apikeys/apikey/"
ADD = f"{LIST}add/"
KEY = re.compile(r"svc_sk_live_[0-9A-Za-z]{38}")


@pytest.fixture
def root(make_user: Any) -> Any:
    return make_user("root", is_staff=True, is_superuser=True)


@pytest.fixture
def admin(root: Any) -> Client:
    client = Client()
    client.force_login(root)
    return client


def form(user: Any, **fields: Any) -> dict[str, Any]:
    return {
        "name": "robot",
        "owner": user.pk,
        "tenant": "",
        "scopes": "",
        "expires_at_0": "",
        "expires_at_1": "",
        "allowed_networks": "",
        "rate": "",
        "quota": "",
        **fields,
    }


def act(client: Client, action: str, *keys: ApiKey) -> Any:
    return client.post(LIST, {"action": action, "_selected_action": [str(key.pk) for key in keys]})


def test_the_answer_to_the_add_form_shows_the_key_and_nothing_else_ever_does(
    admin: Client, user: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert admin.get(ADD).status_code == 200
    answer = admin.post(ADD, form(user))

    assert answer.status_code == 200
    assert "no-store" in answer["Cache-Control"]
    secret = KEY.findall(answer.content.decode())[0]
    assert verify_key(secret).owner == user
    key = ApiKey.objects.get()
    body = secret[12:-4]
    assert key.last4 == secret[-4:]
    next_url = reverse("admin:svc_apikeys_apikey_change", args=[key.pk])
    assert next_url in answer.content.decode()
    for url in (next_url, LIST, ADD, "/admin/", f"{LIST}{key.pk}/history/"):
        page = admin.get(url).content.decode()
        assert body not in page
        assert bytes(key.digest).hex() not in page
    assert not any(body in str(session.get_decoded()) for session in Session.objects.all())
    assert "messages" not in answer.cookies
    assert not any(body in repr(entry.__dict__) for entry in LogEntry.objects.all())
    assert body not in caplog.text


def test_scopes_and_tenant_are_kept(admin: Client, root: Any) -> None:
    admin.post(ADD, form(root, tenant="acme", scopes="a.b\r\n svc_rbac.* \n"))

    key = ApiKey.objects.get()
    assert (key.tenant, key.scopes) == ("acme", ["a.b", "svc_rbac.*"])


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"scopes": "svc_rbac.add_role"}, "svc_rbac.add_role is not held."),
        ({"scopes": "a b*"}, "Neither a permission nor a wildcard."),
        ({"expires_at_0": "2001-01-01", "expires_at_1": "00:00:00"}, "The end must be in the future."),
        ({"owner": ""}, "This field is required."),
        ({"name": "a\0b"}, "Null characters are not allowed."),
        ({"tenant": "x" * 124}, "Use 0 to 123 characters."),
    ],
)
def test_a_refusal_is_shown_beside_its_field(admin: Client, user: Any, fields: Any, told: str) -> None:
    answer = admin.post(ADD, form(user, **fields))

    assert answer.status_code == 200
    assert told in answer.content.decode()
    assert not ApiKey.objects.exists()


def test_staff_cannot_take_a_superusers_rights_by_a_key(root: Any, make_user: Any, permit: Any) -> None:
    staff = permit(make_user("staff", is_staff=True), "add_apikey", "view_apikey", "change_apikey")
    client = Client()
    client.force_login(staff)
    key, _ = issue_key(owner=root, name="root's")

    assert "Name the scopes" in client.post(ADD, form(root)).content.decode()
    rotated = act(client, "rotate", key)

    assert not KEY.search(rotated.content.decode())
    assert ApiKey.objects.count() == 1


def test_revoking_in_the_list_stops_the_next_call(admin: Client, user: Any) -> None:
    keys = [issue_key(owner=user, name=name) for name in ("one", "two")]
    revoke_key(keys[0][0])

    assert act(admin, "revoke", *(key for key, _ in keys)).status_code == 302

    with pytest.raises(InvalidKey):
        verify_key(keys[1][1])
    assert LogEntry.objects.filter(change_message="Revoked.").count() == 1


def test_what_somebody_else_revokes_meanwhile_stops_nobody(
    admin: Client, user: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [issue_key(owner=user, name=name)[0] for name in ("one", "two")]

    def slowly(key: ApiKey, **options: Any) -> None:
        if key == keys[0] and ApiKey.objects.filter(pk=key.pk, revoked_at=None).exists():
            revoke_key(keys[0])
        revoke_key(key, **options)

    monkeypatch.setattr("svc_infra_django.apikeys.admin.revoke_key", slowly)
    assert act(admin, "revoke", *keys).status_code == 302

    assert not ApiKey.objects.filter(revoked_at=None).exists()
    assert LogEntry.objects.filter(change_message="Revoked.").count() == 1


def test_rotating_shows_the_successor_once(admin: Client, user: Any) -> None:
    key, old = issue_key(owner=user, name="robot")

    answer = act(admin, "rotate", key)

    secret = KEY.findall(answer.content.decode())[0]
    assert "no-store" in answer["Cache-Control"]
    key.refresh_from_db()
    assert verify_key(secret).pk == key.successor_id
    verify_key(old)
    assert not any(secret[12:-4] in repr(entry.__dict__) for entry in LogEntry.objects.all())
    assert "rotated already" in admin.get(act(admin, "rotate", key)["Location"]).content.decode()


def test_only_one_key_is_rotated_at_a_time(admin: Client, user: Any) -> None:
    keys = [issue_key(owner=user, name=name)[0] for name in ("one", "two")]

    assert act(admin, "rotate", *keys).status_code == 302
    assert ApiKey.objects.count() == 2


def test_who_may_only_look_finds_no_actions_and_no_form(
    admin: Client, make_user: Any, permit: Any, issued: Any
) -> None:
    client = Client()
    client.force_login(permit(make_user("viewer", is_staff=True), "view_apikey"))

    assert 'value="revoke"' in admin.get(LIST).content.decode()
    assert 'value="revoke"' not in client.get(LIST).content.decode()
    act(client, "revoke", issued[0])
    verify_key(issued[1])
    assert client.get(ADD).status_code == 403
    assert client.post(f"{LIST}{issued[0].pk}/change/", {"name": "x"}).status_code == 403


def test_a_user_with_keys_can_be_deleted_and_the_keys_go_too(admin: Client, user: Any, issued: Any) -> None:
    answer = admin.post(f"/admin/auth/user/{user.pk}/delete/", {"post": "yes"})

    assert answer.status_code == 302
    with pytest.raises(InvalidKey):
        verify_key(issued[1])


def test_deleting_a_key_stops_it(admin: Client, issued: Any) -> None:
    assert admin.post(f"{LIST}{issued[0].pk}/delete/", {"post": "yes"}).status_code == 302
    with pytest.raises(InvalidKey):
        verify_key(issued[1])


def test_the_list_takes_as_many_queries_for_fifty_keys_as_for_one(admin: Client, make_user: Any) -> None:
    issue_key(owner=make_user("user"), name="robot")
    admin.get(LIST)
    with CaptureQueriesContext(connection) as one:
        admin.get(LIST)
    for number in range(49):
        issue_key(owner=make_user(f"user{number}"), name="robot")

    with CaptureQueriesContext(connection) as fifty:
        page = admin.get(LIST)

    assert page.content.decode().count("field-hint") == 50
    assert len(fifty) == len(one)


def test_a_key_is_found_by_its_last_four_and_its_owner(admin: Client, issued: Any) -> None:
    for words in (issued[0].last4, "ad"):
        assert "svc_sk_live_…" in admin.get(LIST, {"q": words}).content.decode()
    assert "svc_sk_live_…" not in admin.get(LIST, {"q": "nobody"}).content.decode()


def test_name_networks_and_limits_are_changed_and_nothing_else(admin: Client, user: Any, issued: Any) -> None:
    key, secret = issued
    url = f"{LIST}{key.pk}/change/"
    page = admin.get(url).content.decode()
    assert 'name="rate"' in page
    assert 'name="scopes"' not in page

    answer = admin.post(
        url,
        {
            "name": "android",
            "allowed_networks": "192.0.2.0/24\r\n2001:db8::/32",
            "rate": "5/minute",
            "quota": "",
            "owner": "1",
            "scopes": "*",
            "revoked_at_0": "2030-01-01",
        },
    )

    assert answer.status_code == 302
    key.refresh_from_db()
    assert (key.name, key.rate, key.quota, key.scopes, key.owner) == ("android", "5/minute", "", None, user)
    assert key.allowed_networks == ["192.0.2.0/24", "2001:db8::/32"]
    assert verify_key(secret, address="192.0.2.1").name == "android"
    assert AuditEntry.objects.latest("id").action == "changed"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"allowed_networks": "10.0.0.1/8"}, "Neither an address nor a network"),
        ({"rate": "often"}, "A rate must look like 600/minute."),
        ({"quota": "1/week"}, "A quota must look like 10000/month."),
    ],
)
def test_networks_and_limits_that_are_none_are_shown_beside_their_field(
    admin: Client, user: Any, issued: Any, fields: dict[str, str], told: str
) -> None:
    unchanged = {"name": "robot", "allowed_networks": "", "rate": "", "quota": ""}

    for answer in (
        admin.post(ADD, form(user, **fields)),
        admin.post(f"{LIST}{issued[0].pk}/change/", unchanged | fields),
    ):
        assert answer.status_code == 200
        assert told in answer.content.decode()
    assert ApiKey.objects.count() == 1


def test_a_key_that_is_over_is_only_looked_at(admin: Client, issued: Any) -> None:
    revoke_key(issued[0])

    assert 'name="rate"' not in admin.get(f"{LIST}{issued[0].pk}/change/").content.decode()
    assert admin.post(f"{LIST}{issued[0].pk}/change/", {"name": "x"}).status_code == 403


def test_the_use_of_a_key_is_drawn_without_a_script(admin: Client, issued: Any) -> None:
    now = timezone.now()
    for hours, used, refused in ((1, 40, 0), (5, 10, 10), (200, 999, 0)):
        UsageHour.objects.create(
            key=issued[0],
            hour=(now - timedelta(hours=hours)).replace(minute=0, second=0, microsecond=0),
            used=used,
            refused=refused,
        )

    page = admin.get(f"{LIST}{issued[0].pk}/change/").content.decode()

    chart = page[page.index("<svg role") : page.index("</svg>", page.index("<svg role"))]
    assert chart.count("<rect") == 4
    assert 'height="56.0"' in chart
    assert "50 uses and 10 refusals in 7 days, at most 40 in an hour" in chart
    assert "script" not in chart
    assert "style=" not in chart


def test_the_chart_fits_any_page_and_has_numbers_that_a_browser_reads(issued: Any) -> None:
    now = timezone.now()
    hour = now.replace(minute=0, second=0, microsecond=0)
    UsageHour.objects.create(key=issued[0], hour=hour, used=2, refused=1)

    with override("de"):
        chart = usage_chart(issued[0], now=now)

    # An hour of now, at the right end, is not cut off where there is less room.
    assert 'width="100%"' in chart
    assert 'height="37.3"' in chart


def test_a_key_that_was_never_used_has_an_empty_chart(issued: Any) -> None:
    chart = usage_chart(issued[0], now=timezone.now())

    assert "0 uses and 0 refusals" in chart
    assert "<rect" not in chart


def test_the_audit_log_is_read_and_never_written(
    admin: Client, issued: Any, permit: Any, make_user: Any
) -> None:
    url = "/admin/svc_apikeys/auditentry/"
    entry = AuditEntry.objects.get()

    assert "robot" in admin.get(url).content.decode()
    assert "robot" in admin.get(url, {"q": str(issued[0].pk)}).content.decode()
    assert issued[1][12:-4] not in admin.get(f"{url}{entry.pk}/change/").content.decode()
    assert admin.post(f"{url}{entry.pk}/change/", {"action": "revoked"}).status_code == 403
    assert admin.post(f"{url}{entry.pk}/delete/", {"post": "yes"}).status_code == 403
    assert admin.get(f"{url}add/").status_code == 403


def test_the_audit_log_takes_as_many_queries_for_fifty_entries_as_for_one(admin: Client, user: Any) -> None:
    url = "/admin/svc_apikeys/auditentry/"
    issue_key(owner=user, name="robot")
    admin.get(url)
    with CaptureQueriesContext(connection) as one:
        admin.get(url)
    for _ in range(49):
        issue_key(owner=user, name="robot")

    with CaptureQueriesContext(connection) as fifty:
        assert admin.get(url).content.decode().count("field-key_hint") == 50

    assert len(fifty) == len(one)
