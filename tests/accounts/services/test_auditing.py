from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.core import mail
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from svc_infra_django.accounts import issue_tokens
from svc_infra_django.accounts.models import AuditEvent, RepeatedEvent
from svc_infra_django.accounts.tasks import chain_audit_events
from svc_infra_django.api.events import ACCESS_REFUSED, AccessRefused
from svc_infra_django.apikeys import issue_key, revoke_key
from svc_infra_django.events import catalog
from svc_infra_django.jobs.worker import drain
from tests.accounts.services.test_mfa import enrol
from tests.conftest import PASSWORD

pytestmark = pytest.mark.django_db


def names() -> list[str]:
    return list(AuditEvent.objects.order_by("created_at", "id").values_list("name", flat=True))


@pytest.fixture
def chained(user: Any, visitor: Any) -> list[AuditEvent]:
    """Five rows of the chain."""
    for _ in range(5):
        visitor.login()
    chain_audit_events.call()
    return list(AuditEvent.objects.chained())


def test_rule_63_a_login_is_a_row_with_who_what_where_and_which_request(user: Any, visitor: Any) -> None:
    visitor.login(headers={"X-Request-ID": "request-7654321"})
    row = AuditEvent.objects.get()

    assert (row.name, row.subject, row.client_address) == ("user.logged_in", str(user.pk), "127.0.0.1")
    assert row.request_id == "request-7654321"
    assert row.data["amr"] == ["pwd"]


def test_rule_63_every_event_of_accounts_keys_and_roles_is_audited() -> None:
    from svc_infra_django.accounts.conf import settings
    from svc_infra_django.principals import covered

    apps = ("accounts", "apikeys", "rbac")
    ours = [
        name
        for name, kind in catalog.items()
        if kind.payload.__module__.startswith(tuple(f"svc_infra_django.{app}." for app in apps))
    ]

    assert len(ours) > 15
    assert [name for name in ours if not covered(name, settings.audited)] == []


def test_rule_63_what_goes_wrong_is_a_row(user: Any, visitor: Any) -> None:
    visitor.login(password="wrong")
    visitor.login()
    first = visitor.tokens["refresh_token"]
    visitor.refresh(first)
    visitor.refresh(first)

    assert names() == ["login.failed", "user.logged_in", "session.reuse_detected"]


def test_rule_63_a_refusal_is_a_row_also_when_the_request_is_undone(ada: Any, user: Any) -> None:
    before = connection.settings_dict["ATOMIC_REQUESTS"]
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    try:
        assert ada.get("audit").status_code == 403
    finally:
        connection.settings_dict["ATOMIC_REQUESTS"] = before

    row = AuditEvent.objects.get(name="access.refused")
    assert (row.subject, row.actor, row.client_address) == (str(user.pk), str(user.pk), "127.0.0.1")
    assert row.request_id
    assert row.data == {
        "user_id": str(user.pk),
        "credential": "jwt",
        "method": "GET",
        "route": "/api/auth/audit",
        "code": "permission_denied",
        "permission": "svc_accounts.view_auditevent",
    }


@pytest.fixture
def later() -> Any:
    """Let a minute pass, and have the job of each minute run."""

    def pass_a_minute() -> None:
        RepeatedEvent.objects.update(ends_at=timezone.now())
        chain_audit_events.call()

    return pass_a_minute


def test_rule_63_a_scanner_fills_no_table_and_is_seen_all_the_same(ada: Any, later: Any) -> None:
    for _ in range(30):
        assert ada.get("audit").status_code == 403
    headers = {"Authorization": f"Bearer {ada.tokens['access_token']}"}
    assert ada.http.post("/api/auth/introspect", {"token": "x"}, headers=headers).status_code == 403
    refused = AuditEvent.objects.filter(name="access.refused")
    permissions = ["svc_accounts.view_auditevent", "svc_accounts.introspect_token"]
    assert [row.data["permission"] for row in refused.order_by("id")] == permissions

    later()
    later()

    told = refused.get(data__has_key="repeated")
    assert (told.data["repeated"], told.data["permission"]) == (29, permissions[0])
    assert (told.subject, told.actor) == (refused.earliest("id").subject, refused.earliest("id").actor)
    assert told.is_good()
    assert not RepeatedEvent.objects.exists()
    ada.get("audit")
    assert refused.count() == 4


def test_without_a_worker_the_next_refusal_tells_of_those_before(ada: Any) -> None:
    for _ in range(3):
        ada.get("audit")
    RepeatedEvent.objects.update(ends_at=timezone.now())
    ada.get("audit")

    refused = AuditEvent.objects.filter(name="access.refused").order_by("created_at", "id")
    assert [row.data.get("repeated") for row in refused] in ([None, 2, None], [None, None, 2])
    assert RepeatedEvent.objects.get().count == 0


def test_another_user_is_told_of_apart(ada: Any, stranger: Any, new_visitor: Any) -> None:
    mallory = new_visitor()
    mallory.login("mallory@example.com")
    for visitor in (ada, mallory, ada, mallory):
        visitor.get("audit")

    rows = AuditEvent.objects.filter(name="access.refused")
    assert len(set(rows.values_list("subject", flat=True))) == rows.count() == 2


def test_rule_63_who_goes_on_after_a_stop_fills_no_table(user: Any, visitor: Any, later: Any) -> None:
    for number in range(25):
        visitor.login(password="wrong", REMOTE_ADDR=f"10.0.0.{number}")
    stopped = AuditEvent.objects.filter(name="login.stopped")
    assert stopped.count() == 1

    later()

    assert stopped.get(data__has_key="repeated").data["repeated"] == 14


@pytest.mark.django_db(transaction=True)
def test_of_those_that_come_at_once_none_is_lost(make_user: Any, later: Any) -> None:
    user = make_user("ada")
    payload = AccessRefused(
        user_id=str(user.pk),
        credential="jwt",
        method="GET",
        route="/",
        code="x",
        permission="",
        client_address="",
    )

    def refuse() -> None:
        ACCESS_REFUSED.emit(payload, owner=user)
        connections.close_all()

    threads = [threading.Thread(target=refuse) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = AuditEvent.objects.filter(name="access.refused")
    at_once = rows.count()
    later()

    counted = sum(row.data.get("repeated", 0) for row in rows)
    assert at_once + counted == 8


def test_rule_63_a_wrong_code_after_the_right_password_is_a_row_and_so_is_its_stop(
    user: Any, visitor: Any, settings: Any
) -> None:
    settings.OTP_TOTP_THROTTLE_FACTOR = 0
    enrol(user)
    for _ in range(3):
        token = visitor.login().json()["mfa_token"]
        for _ in range(4):
            visitor.post("mfa/verify", {"mfa_token": token, "code": "000000"})

    assert names() == ["user.mfa_enabled"] + ["login.proof_failed"] * 10 + ["login.stopped"]
    failed = AuditEvent.objects.filter(name="login.proof_failed").first()
    assert failed is not None
    assert (failed.subject, failed.data["method"]) == (str(user.pk), "otp")
    assert AuditEvent.objects.get(name="login.stopped").data["scope"] == "mfa"
    drain()
    subjects = [message.subject for message in mail.outbox if message.to == ["ada@example.com"]]
    assert subjects.count("Wrong codes for your account") == 1


def test_rule_63_a_wrong_code_of_a_factor_that_is_being_added_is_a_row(ada: Any, user: Any) -> None:
    ada.post("mfa/totp", {})
    assert ada.post("mfa/totp/confirm", {"code": "000000"}).status_code == 401

    row = AuditEvent.objects.get(name="login.proof_failed")
    assert (row.subject, row.actor, row.data["method"]) == (str(user.pk), str(user.pk), "otp")


def test_rule_63_a_wrong_present_password_is_a_row(ada: Any, user: Any) -> None:
    ada.post("password/change", {"current_password": "wrong", "password": "another horse battery 8"})

    row = AuditEvent.objects.get(name="login.proof_failed")
    assert (row.subject, row.actor, row.data["method"]) == (str(user.pk), str(user.pk), "pwd")


def test_who_did_it_is_whoever_is_signed_in(
    user: Any, visitor: Any, admin_client: Any, admin_user: Any
) -> None:
    visitor.login()
    visitor.post("logout-all")
    own = AuditEvent.objects.get(name="session.all_ended")
    assert own.actor == own.subject == str(user.pk)

    visitor.login()
    from svc_infra_django.accounts.models import AuthSession

    session = AuthSession.objects.filter(owner=user, revoked_at=None).get()
    url = reverse("admin:svc_accounts_authsession_changelist")
    admin_client.post(url, {"action": "end_selected", "_selected_action": [str(session.pk)]})
    row = AuditEvent.objects.get(name="session.ended")
    assert (row.subject, row.actor) == (str(user.pk), str(admin_user.pk))


def test_nobody_is_taken_for_the_caller_before(user: Any, visitor: Any) -> None:
    visitor.login()
    visitor.post("logout-all")
    visitor.tokens = {}
    visitor.login(password="wrong")

    assert AuditEvent.objects.get(name="login.failed").actor == ""


def test_what_is_undone_leaves_no_row(user: Any) -> None:
    from django.db import transaction

    from svc_infra_django.accounts import issue_tokens

    with transaction.atomic():
        issue_tokens(user, amr=("pwd",))
        transaction.set_rollback(True)

    assert not AuditEvent.objects.exists()


def test_rule_63_no_row_holds_a_secret(user: Any, visitor: Any) -> None:
    visitor.login(password="a password that is wrong 1")
    visitor.login()
    visitor.refresh()
    sent = {"current_password": PASSWORD, "password": "a password that is next 3"}
    visitor.post("password/change", sent)
    key, secret = issue_key(owner=user, name="k")
    revoke_key(key)

    held = "".join(json.dumps(row.record) for row in AuditEvent.objects.all())
    assert AuditEvent.objects.count() >= 5
    for each in ("that is wrong 1", PASSWORD, "that is next 3", secret, *visitor.tokens.values()):
        if isinstance(each, str) and len(each) > 10:
            assert each not in held
    assert "ada@example.com" not in held


def test_other_events_are_audited_if_the_project_says_so(svc_settings: Any, user: Any, visitor: Any) -> None:
    svc_settings(accounts={"audited": ("login.*",)})
    visitor.login()
    visitor.login(password="wrong")

    assert names() == ["login.failed"]


def test_the_list_is_for_those_who_may_look(user: Any, visitor: Any) -> None:
    visitor.login(password="wrong")
    visitor.login()
    assert visitor.get("audit").status_code == 403

    user.user_permissions.add(Permission.objects.get(codename="view_auditevent"))
    everything = visitor.get("audit").json()["items"]
    assert [row["name"] for row in everything] == ["access.refused", "user.logged_in", "login.failed"]
    assert [row["name"] for row in visitor.get("audit?name=login.failed").json()["items"]] == ["login.failed"]
    mine = visitor.get(f"audit?subject={user.pk}").json()["items"]
    assert [row["name"] for row in mine] == ["access.refused", "user.logged_in"]
    assert visitor.get("audit?name=%00").status_code == 422


def test_rule_61_a_credential_of_a_tenant_sees_what_happened_in_it(stranger: Any, client: Any) -> None:
    stranger.user_permissions.add(Permission.objects.get(codename="view_auditevent"))
    tokens = {
        tenant: issue_tokens(stranger, amr=("pwd",), tenant=tenant).access_token
        for tenant in ("", "acme", "other")
    }

    def seen(tenant: str) -> list[str]:
        headers = {"Authorization": f"Bearer {tokens[tenant]}"}
        return [row["tenant"] for row in client.get("/api/auth/audit", headers=headers).json()["items"]]

    assert seen("acme") == ["acme"]
    assert sorted(seen("")) == ["", "acme", "other"]


def results(page: Any) -> str:
    """The rows that a page of the admin lists."""
    return str(page.content.decode().partition('id="result_list"')[2].partition("</table>")[0])


def test_the_admin_shows_exports_and_changes_nothing(
    chained: list[AuditEvent], admin_client: Any, visitor: Any
) -> None:
    url = reverse("admin:svc_accounts_auditevent_changelist")
    row = chained[0]

    assert "user.logged_in" in admin_client.get(url).content.decode()
    with CaptureQueriesContext(connection) as few:
        admin_client.get(url)
    for _ in range(20):
        visitor.login()
    with CaptureQueriesContext(connection) as many:
        admin_client.get(url)
    assert len(many) == len(few)
    assert not [query["sql"] for query in many if "DISTINCT" in query["sql"]]
    assert "user.logged_in" not in results(admin_client.get(url, {"name": "login.failed"}))
    assert "user.logged_in" in results(admin_client.get(url, {"name": "user.logged_in"}))
    change = reverse("admin:svc_accounts_auditevent_change", args=[row.pk])
    assert row.digest in admin_client.get(change).content.decode()
    assert admin_client.post(change, {"subject": "7"}).status_code == 403
    exported = admin_client.post(url, {"action": "export_selected", "_selected_action": [str(row.pk)]})
    assert exported["Content-Type"] == "application/jsonl"
    assert json.loads(exported.content)["digest"] == row.digest
