from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import jwt
import pytest
from django.apps import apps
from django.db import connections
from django.utils import timezone

from svc_infra_django.accounts.errors import InvalidRefreshToken
from svc_infra_django.accounts.hashing import token_digest
from svc_infra_django.accounts.models import AuthSession, RefreshToken
from svc_infra_django.accounts.services.issuing_tokens import issue_tokens, refresh_tokens

pytestmark = pytest.mark.django_db


def test_rule_32_a_used_refresh_token_is_dead(user: Any) -> None:
    first = issue_tokens(user, amr=("pwd",))
    second = refresh_tokens(first.refresh_token, now=timezone.now())

    assert second.refresh_token != first.refresh_token
    with pytest.raises(InvalidRefreshToken):
        refresh_tokens(first.refresh_token, now=timezone.now())


def test_rule_33_reuse_ends_the_family_with_its_access_tokens_and_nobody_else(
    ada: Any, new_visitor: Any, events: Any
) -> None:
    phone = new_visitor()
    phone.login()
    stolen = ada.tokens["refresh_token"]
    ada.refresh()
    assert ada.get("me").status_code == 200

    assert phone.post("refresh", {"refresh_token": stolen}, token="").status_code == 401

    assert ada.get("me").status_code == 401
    assert ada.refresh().status_code == 401
    assert phone.get("me").status_code == 200
    session = AuthSession.objects.get(revoked_for="reuse")
    reused = [event for event in events if event.type.name == "session.reuse_detected"]
    assert [event.payload.session_id for event in reused] == [session.pk]


def test_reuse_is_told_once(user: Any, events: Any) -> None:
    tokens = issue_tokens(user, amr=("pwd",))
    refresh_tokens(tokens.refresh_token, now=timezone.now())
    for _ in range(3):
        with pytest.raises(InvalidRefreshToken):
            refresh_tokens(tokens.refresh_token, now=timezone.now())

    assert [event.type.name for event in events].count("session.reuse_detected") == 1


@pytest.mark.django_db(transaction=True)
def test_rule_34_of_eight_refreshes_at_once_at_most_one_member_lives(make_user: Any) -> None:
    user = make_user("ada")
    for _ in range(3):
        token = issue_tokens(user, amr=("pwd",)).refresh_token
        won: list[str] = []
        lost: list[Exception] = []

        def attempt(token: str = token, won: list[str] = won, lost: list[Exception] = lost) -> None:
            try:
                won.append(refresh_tokens(token, now=timezone.now()).refresh_token)
            except InvalidRefreshToken as error:
                lost.append(error)
            finally:
                connections.close_all()

        threads = [threading.Thread(target=attempt) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len(won) <= 1
        assert len(won) + len(lost) == 8
        living = AuthSession.objects.alive(now=timezone.now()).filter(refresh_tokens__used_at=None)
        assert living.count() <= 1


def test_rule_34_a_refresh_token_is_taken_by_one_statement_that_compares_and_sets(
    user: Any, django_assert_num_queries: Any
) -> None:
    digest = token_digest(issue_tokens(user, amr=("pwd",)).refresh_token)

    with django_assert_num_queries(1) as asked:
        assert RefreshToken.objects.use(digest, now=timezone.now())

    sql = asked.captured_queries[0]["sql"]
    assert sql.startswith("UPDATE")
    assert '"used_at" IS NULL' in sql
    assert not RefreshToken.objects.use(digest, now=timezone.now())


def test_rule_35_the_absolute_end_is_fixed_at_login(user: Any, svc_settings: Any) -> None:
    svc_settings(accounts={"session_seconds": 1000, "session_idle_seconds": 600})
    start = timezone.now()
    tokens = issue_tokens(user, amr=("pwd",), now=start)
    end = tokens.session.expires_at

    tokens = refresh_tokens(tokens.refresh_token, now=start + timedelta(seconds=500))
    assert tokens.session.expires_at == end
    assert tokens.session.idle_expires_at == end

    with pytest.raises(InvalidRefreshToken):
        refresh_tokens(tokens.refresh_token, now=start + timedelta(seconds=1001))


def test_rule_35_an_idle_session_ends(user: Any, svc_settings: Any) -> None:
    svc_settings(accounts={"session_seconds": 1000, "session_idle_seconds": 100})
    start = timezone.now()
    tokens = issue_tokens(user, amr=("pwd",), now=start)

    with pytest.raises(InvalidRefreshToken):
        refresh_tokens(tokens.refresh_token, now=start + timedelta(seconds=101))


def test_rule_26_disabling_the_user_stops_access_and_refresh(ada: Any, user: Any) -> None:
    type(user).objects.filter(pk=user.pk).update(is_active=False)

    assert ada.get("me").status_code == 401
    assert ada.refresh().status_code == 401


def test_a_password_change_by_any_path_ends_every_session(ada: Any, user: Any) -> None:
    user.set_password("changed in the admin")
    user.save()

    assert ada.get("me").status_code == 401
    assert ada.refresh().status_code == 401
    assert not AuthSession.objects.filter(revoked_for="reuse").exists()


def test_the_admins_own_password_form_ends_every_session(ada: Any, user: Any, admin_client: Any) -> None:
    from django.contrib.auth.forms import AdminPasswordChangeForm

    form = AdminPasswordChangeForm(user, {"password1": "another horse 7", "password2": "another horse 7"})
    assert form.is_valid(), form.errors
    form.save()

    assert ada.get("me").status_code == 401


def test_rule_47_methods_survive_refreshing(user: Any) -> None:
    tokens = issue_tokens(user, amr=("pwd", "otp", "mfa"))

    later = refresh_tokens(tokens.refresh_token, now=timezone.now() + timedelta(minutes=5))

    assert later.session.methods == ("pwd", "otp", "mfa")
    first, second = (
        jwt.decode(each.access_token, options={"verify_signature": False}) for each in (tokens, later)
    )
    for claim in ("amr", "acr", "auth_time", "sid"):
        assert second[claim] == first[claim]
    assert second["iat"] > first["iat"]


def test_rule_36_no_table_holds_a_token(ada: Any, user: Any) -> None:
    ada.refresh()
    secrets = [
        ada.tokens["access_token"],
        ada.tokens["refresh_token"],
        ada.tokens["refresh_token"].partition("_")[2],
    ]

    for model in apps.get_models():
        if model._meta.managed and not model._meta.abstract:
            for row in model._base_manager.values():
                assert not [secret for secret in secrets if secret in str(row)], model


@pytest.mark.parametrize("token", ["", "rt_", "x" * 257, "rt_" + "\u212a" * 20, 7, None, ["rt_x"], {"a": 1}])
def test_nonsense_is_refused_politely(db: None, visitor: Any, token: Any) -> None:
    assert visitor.post("refresh", {"refresh_token": token}).status_code in {401, 422}


def test_rule_22_access_tokens_do_not_refresh_and_refresh_tokens_do_not_open(ada: Any) -> None:
    access, refresh = ada.tokens["access_token"], ada.tokens["refresh_token"]

    assert visitor_refresh(ada, access) in {401, 422}
    assert ada.get("me", token=refresh).status_code == 401


def visitor_refresh(visitor: Any, token: str) -> int:
    return int(visitor.post("refresh", {"refresh_token": token}, token="").status_code)


def test_tokens_are_not_shown_by_accident(user: Any) -> None:
    tokens = issue_tokens(user, amr=("pwd",))

    assert tokens.access_token not in repr(tokens)
    assert tokens.refresh_token not in repr(tokens)
    assert RefreshToken.objects.get().digest not in repr(tokens)
