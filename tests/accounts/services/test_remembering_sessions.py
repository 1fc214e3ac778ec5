from __future__ import annotations

from datetime import timedelta
from time import sleep
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, transaction
from django.test import Client
from django.utils import timezone

from svc_infra_django import memory as memory_module
from svc_infra_django.accounts.errors import InvalidAccessToken, SessionsUnreadable
from svc_infra_django.accounts.jwt import derived_ring, digest_of
from svc_infra_django.accounts.models import AuthSession
from svc_infra_django.accounts.services import checking_tokens
from svc_infra_django.accounts.services.checking_tokens import check_access_token
from svc_infra_django.accounts.services.ending_sessions import end_session
from svc_infra_django.accounts.services.issuing_tokens import Tokens, issue_tokens, refresh_tokens
from svc_infra_django.accounts.services.remembering_sessions import memory
from svc_infra_django.accounts.services.sharing_sessions import forget_sessions
from svc_infra_django.lookups import Row

pytestmark = pytest.mark.django_db


@pytest.fixture
def tokens(user: Any) -> Tokens:
    return issue_tokens(user, amr=("pwd",))


def checked(tokens: Tokens) -> Any:
    return check_access_token(tokens.access_token, now=timezone.now())


def revoked_elsewhere(tokens: Tokens) -> None:
    """As another process does it: nothing tells this one."""
    rows = AuthSession.objects.filter(pk=tokens.session.pk)
    assert rows.revoke(now=timezone.now(), reason=AuthSession.Reason.LOGOUT) == 1


def test_the_first_check_is_one_query_and_the_next_none(
    tokens: Tokens, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(1):
        first = checked(tokens)
        assert first.user.username == "ada"

    with django_assert_num_queries(0):
        second = checked(tokens)
        assert (second.user.pk, second.user.is_active) == (first.user.pk, True)
        assert second.credential_id == str(tokens.session.pk)
        assert (second.amr, second.auth_time, second.tenant) == (first.amr, first.auth_time, first.tenant)

    with django_assert_num_queries(1):
        assert second.user.username == "ada"


def test_an_operation_that_does_not_look_at_the_user_asks_nothing(
    user: Any, tokens: Tokens, rf: Any, django_assert_num_queries: Any
) -> None:
    from svc_infra_django.api.authentication import identified

    checked(tokens)

    with django_assert_num_queries(0):
        principal = identified(rf.get("/", headers={"Authorization": f"Bearer {tokens.access_token}"}))

    assert principal is not None
    assert isinstance(principal.user, get_user_model())
    assert principal.user == user


def test_strictly_every_check_is_one_query(
    tokens: Tokens, svc_settings: Any, django_assert_num_queries: Any
) -> None:
    svc_settings(accounts={"revocation_seconds": 0})

    for _ in range(3):
        with django_assert_num_queries(1):
            assert checked(tokens).user.username == "ada"


def test_the_cost_does_not_grow_with_sessions(
    user: Any, tokens: Tokens, django_assert_num_queries: Any
) -> None:
    for _ in range(50):
        issue_tokens(user, amr=("pwd",))

    with django_assert_num_queries(1):
        checked(tokens)


def test_strictly_what_another_process_did_counts_at_once(tokens: Tokens, svc_settings: Any) -> None:
    svc_settings(accounts={"revocation_seconds": 0})
    checked(tokens)
    revoked_elsewhere(tokens)

    with pytest.raises(InvalidAccessToken):
        checked(tokens)


@pytest.mark.parametrize(
    "change",
    [{"is_active": False}, {"password": "another"}, {"is_staff": True}, {"is_superuser": True}],
)
def test_strictly_what_changes_of_the_user_counts_at_once_and_no_longer_than_it_is_so(
    user: Any, tokens: Tokens, svc_settings: Any, change: dict[str, Any]
) -> None:
    svc_settings(accounts={"revocation_seconds": 0, "staff_second_factor": True})
    rows = get_user_model().objects.filter(pk=user.pk)
    before = rows.values(*change).get()
    checked(tokens)
    rows.update(**change)

    for _ in range(2):
        with pytest.raises(InvalidAccessToken):
            checked(tokens)

    rows.update(**before)
    checked(tokens)


def test_strictly_a_project_may_say_by_code_of_its_own_who_is_active(
    tokens: Tokens, svc_settings: Any, monkeypatch: Any
) -> None:
    svc_settings(accounts={"revocation_seconds": 0})
    monkeypatch.setattr(Row, "is_active", True, raising=False)
    checked(tokens)

    monkeypatch.setattr(Row, "is_active", False)

    with pytest.raises(InvalidAccessToken):
        checked(tokens)


def test_strictly_a_session_ends_by_the_clock(tokens: Tokens, svc_settings: Any) -> None:
    svc_settings(accounts={"revocation_seconds": 0, "token_leeway_seconds": 60})
    AuthSession.objects.update(idle_expires_at=timezone.now() + timedelta(seconds=30))
    checked(tokens)

    with pytest.raises(InvalidAccessToken):
        check_access_token(tokens.access_token, now=timezone.now() + timedelta(seconds=31))


def test_rule_26_what_another_process_did_counts_within_the_bound(tokens: Tokens, svc_settings: Any) -> None:
    svc_settings(accounts={"revocation_seconds": 0.3})
    checked(tokens)
    revoked_elsewhere(tokens)
    sleep(0.3)

    with pytest.raises(InvalidAccessToken):
        checked(tokens)


def test_being_asked_often_does_not_make_a_memory_last(
    tokens: Tokens, svc_settings: Any, monkeypatch: Any
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(memory_module, "monotonic", lambda: clock[0])
    svc_settings(accounts={"revocation_seconds": 2})
    checked(tokens)
    revoked_elsewhere(tokens)

    seen = []
    for _ in range(20):
        clock[0] += 0.1
        try:
            checked(tokens)
        except InvalidAccessToken:
            seen.append(clock[0])

    assert seen[0] <= 1002


def test_what_this_process_did_counts_at_once(user: Any, tokens: Tokens) -> None:
    checked(tokens)
    end_session(tokens.session, reason=AuthSession.Reason.LOGOUT, now=timezone.now())

    with pytest.raises(InvalidAccessToken):
        checked(tokens)


@pytest.mark.parametrize("change", [{"is_active": False}, {"password": "another hash"}])
def test_a_user_who_is_changed_anywhere_in_this_process_counts_at_once(
    user: Any, tokens: Tokens, change: dict[str, Any]
) -> None:
    checked(tokens)
    for name, value in change.items():
        setattr(user, name, value)
    user.save()

    with pytest.raises(InvalidAccessToken):
        checked(tokens)


def test_a_user_who_is_deleted_counts_at_once(user: Any, tokens: Tokens) -> None:
    checked(tokens)
    user.delete()

    with pytest.raises(InvalidAccessToken):
        checked(tokens)


def test_a_login_elsewhere_makes_nobody_ask_again(
    user: Any, tokens: Tokens, django_assert_num_queries: Any
) -> None:
    checked(tokens)
    issue_tokens(user, amr=("pwd",))

    with django_assert_num_queries(0):
        checked(tokens)


def test_a_user_disabled_behind_our_back_is_not_handed_out(user: Any, tokens: Tokens) -> None:
    checked(tokens)
    remembered = checked(tokens)
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)

    with pytest.raises(InvalidAccessToken):
        _ = remembered.user.username


def test_a_session_that_runs_out_meanwhile_is_over(tokens: Tokens) -> None:
    checked(tokens)
    AuthSession.objects.update(idle_expires_at=timezone.now())
    ends_at = tokens.session.idle_expires_at

    with pytest.raises(InvalidAccessToken):
        check_access_token(tokens.access_token, now=ends_at)


def test_a_session_that_was_prolonged_meanwhile_is_read_again(tokens: Tokens, monkeypatch: Any) -> None:
    now = timezone.now()
    AuthSession.objects.update(idle_expires_at=now + timedelta(seconds=5))
    checked(tokens)
    AuthSession.objects.update(idle_expires_at=now + timedelta(days=1))

    assert check_access_token(tokens.access_token, now=now + timedelta(seconds=6)).credential_id


def test_rule_25_a_token_that_expires_meanwhile_is_over(tokens: Tokens) -> None:
    checked(tokens)
    at_its_end = timezone.now() + timedelta(seconds=15 * 60 + 11)

    with pytest.raises(InvalidAccessToken):
        check_access_token(tokens.access_token, now=at_its_end)


def test_rule_27_without_a_database_nothing_is_taken_for_good(
    tokens: Tokens, svc_settings: Any, monkeypatch: Any
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OperationalError("server closed the connection")

    checked(tokens)
    monkeypatch.setattr(checking_tokens._sessions, "get", fails)
    checked(tokens)
    svc_settings(accounts={"revocation_seconds": 0})

    with pytest.raises(SessionsUnreadable):
        checked(tokens)
    answer = Client().get("/api/auth/me", headers={"Authorization": f"Bearer {tokens.access_token}"})
    assert answer.status_code == 503
    assert answer.json()["code"] == "accounts.sessions_unreadable"


@pytest.mark.django_db(transaction=True)
def test_what_is_read_before_the_commit_is_forgotten_with_it(make_user: Any) -> None:
    user = make_user("grace")
    tokens = issue_tokens(user, amr=("pwd",))
    name = digest_of(f"Bearer {tokens.access_token}")
    with transaction.atomic():
        forget_sessions(user.pk)
        # What another thread reads now is the state before the change.
        checked(tokens)
        assert memory.recall(name) is not None

    assert memory.recall(name) is None


def test_a_key_that_leaves_the_ring_takes_its_tokens_along_at_once(tokens: Tokens, monkeypatch: Any) -> None:
    checked(tokens)
    monkeypatch.setattr(derived_ring(), "keys", {})

    with pytest.raises(InvalidAccessToken):
        checked(tokens)


def test_a_token_of_a_later_proof_than_what_is_remembered_is_looked_up(user: Any, tokens: Tokens) -> None:
    checked(tokens)
    later = timezone.now() + timedelta(seconds=2)
    AuthSession.objects.update(auth_time=later, amr="pwd otp mfa")  # a step-up in another process
    assert checked(tokens).amr == ("pwd",)

    fresh = refresh_tokens(tokens.refresh_token, now=timezone.now())

    assert checked(fresh).amr == ("pwd", "otp", "mfa")
