from __future__ import annotations

import json
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from svc_infra_django.accounts.models import AuditEvent
from svc_infra_django.accounts.tasks import chain_audit_events
from svc_infra_django.apikeys import issue_key, revoke_key
from svc_infra_django.events import catalog
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
    change = reverse("admin:svc_accounts_auditevent_change", args=[row.pk])
    assert row.digest in admin_client.get(change).content.decode()
    assert admin_client.post(change, {"subject": "7"}).status_code == 403
    exported = admin_client.post(url, {"action": "export_selected", "_selected_action": [str(row.pk)]})
    assert exported["Content-Type"] == "application/jsonl"
    assert json.loads(exported.content)["digest"] == row.digest
