from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from svc_infra_django.accounts.models import AuthSession, RefreshToken, Throttle
from svc_infra_django.accounts.services.issuing_tokens import issue_tokens, refresh_tokens
from svc_infra_django.accounts.tasks import prune_accounts, send_notice
from svc_infra_django.apikeys import issue_key, rotate_key
from svc_infra_django.jobs.worker import drain

pytestmark = pytest.mark.django_db


def test_only_what_is_long_over_is_forgotten(user: Any, svc_settings: Any) -> None:
    svc_settings(accounts={"session_history_seconds": 3600})
    now = timezone.now()
    kept = issue_tokens(user, amr=("pwd",)).session
    lately = issue_tokens(user, amr=("pwd",)).session
    long_ago = issue_tokens(user, amr=("pwd",)).session
    ran_out = issue_tokens(user, amr=("pwd",), now=now - timedelta(days=60)).session
    rows = AuthSession.objects
    rows.filter(pk=lately.pk).revoke(now=now, reason=AuthSession.Reason.LOGOUT)
    rows.filter(pk=long_ago.pk).revoke(now=now - timedelta(hours=2), reason=AuthSession.Reason.LOGOUT)
    Throttle.objects.create(scope="login", subject="a", started_at=now, ends_at=now - timedelta(seconds=1))

    prune_accounts.func()

    assert set(rows.values_list("pk", flat=True)) == {kept.pk, lately.pk}
    assert ran_out.pk not in set(RefreshToken.objects.values_list("session_id", flat=True))
    assert not Throttle.objects.exists()


def test_a_long_family_of_tokens_is_forgotten_without_reading_it(user: Any) -> None:
    begun = timezone.now() - timedelta(days=400)
    tokens = issue_tokens(user, amr=("pwd",), now=begun)
    for days in range(1, 4):
        tokens = refresh_tokens(tokens.refresh_token, now=begun + timedelta(days=days))

    with CaptureQueriesContext(connection) as asked:
        prune_accounts.func()

    assert not RefreshToken.objects.exists()
    of_tokens = [each["sql"] for each in asked if "svc_accounts_refreshtoken" in each["sql"]]
    assert [sql.split()[0] for sql in of_tokens] == ["DELETE"]


def test_rule_33_a_reused_token_is_told_by_mail(ada: Any, user: Any) -> None:
    stolen = ada.tokens["refresh_token"]
    ada.refresh()
    ada.post("refresh", {"refresh_token": stolen}, token="")
    drain()

    assert [(message.to, message.subject) for message in mail.outbox] == [
        (["ada@example.com"], "One of your sessions was ended")
    ]
    assert stolen not in str(mail.outbox[0].message())


def test_a_user_who_is_gone_gets_no_mail(user: Any) -> None:
    send_notice.enqueue(str(user.pk), "mfa_enabled")
    user.delete()
    drain()

    assert not mail.outbox


def test_rule_15_a_login_from_a_new_device_is_told_by_mail(user: Any, visitor: Any) -> None:
    def log_in(agent: str) -> list[str]:
        mail.outbox.clear()
        visitor.login(headers={"User-Agent": agent})
        drain()
        return [message.subject for message in mail.outbox]

    assert log_in("Firefox on Linux") == []
    assert log_in("Firefox on Linux") == []
    assert log_in("Safari on iPhone") == ["A login from a new device"]
    assert "Safari on iPhone" in str(mail.outbox[0].body) and "127.0.0.1" in str(mail.outbox[0].body)
    assert log_in("Safari on iPhone") == []


def test_rule_15_a_new_key_is_told_by_mail(user: Any, svc_settings: Any) -> None:
    key, _ = issue_key(owner=user, name="robot")
    rotate_key(key)
    svc_settings(accounts={"new_key_mails": False})
    issue_key(owner=user, name="another")
    drain()

    assert [message.subject for message in mail.outbox] == ["A new API key acts for you"] * 2
    assert "robot" not in str(mail.outbox[0].body)


def test_mails_of_new_devices_can_be_switched_off(user: Any, visitor: Any, svc_settings: Any) -> None:
    svc_settings(accounts={"new_device_mails": False})
    for agent in ("one", "another"):
        visitor.login(headers={"User-Agent": agent})
    drain()

    assert not mail.outbox


def test_a_hostile_program_name_stays_in_its_line(user: Any, visitor: Any) -> None:
    visitor.login()
    visitor.login(headers={"User-Agent": "x\r\nBcc: evil@example.com\r\n\r\nhello {{ service }}"})
    drain()

    assert mail.outbox[0].recipients() == ["ada@example.com"]
    assert "\nBcc:" not in str(mail.outbox[0].body)
