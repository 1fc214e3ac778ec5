from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.db import OperationalError, connection
from django.utils import timezone

from svc_infra_django.accounts.errors import InvalidAccessToken, SessionsUnreadable
from svc_infra_django.accounts.models import AuthSession
from svc_infra_django.accounts.services import checking_tokens
from svc_infra_django.accounts.services.checking_tokens import check_access_token
from svc_infra_django.accounts.services.ending_sessions import end_all_sessions, end_session
from svc_infra_django.accounts.services.issuing_tokens import Tokens, issue_tokens, refresh_tokens
from svc_infra_django.accounts.services.remembering_sessions import memory
from svc_infra_django.accounts.services.sharing_sessions import shared_memory

pytestmark = pytest.mark.django_db(transaction=True)

LOCMEM = "django.core.cache.backends.locmem.LocMemCache"
BOUND = 2.0


@pytest.fixture
def tokens(make_user: Any) -> Tokens:
    return issue_tokens(make_user("ada"), amr=("pwd", "otp", "mfa"))


@pytest.fixture
def together(settings: Any, svc_settings: Any) -> Iterator[None]:
    """All processes have a cache in common; what stands in for another one has forgotten what it knew."""
    settings.CACHES = {"default": {"BACKEND": LOCMEM}, "all": {"BACKEND": LOCMEM, "LOCATION": uuid4().hex}}
    svc_settings(accounts={"shared_cache": "all"})
    shared_memory._asks_again_at = float("-inf")
    yield
    shared_memory._asks_again_at = float("-inf")


def elsewhere(tokens: Tokens) -> Any:
    """What another process, that has not seen the token yet, makes of it."""
    memory.clear()
    return check_access_token(tokens.access_token, now=timezone.now())


def is_refused(tokens: Tokens) -> bool:
    try:
        elsewhere(tokens)
    except InvalidAccessToken:
        return True
    return False


@pytest.mark.usefixtures("together")
def test_what_one_process_read_no_other_reads(tokens: Tokens, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(1):
        first = elsewhere(tokens)
    with django_assert_num_queries(0):
        second = elsewhere(tokens)
        assert second.user.pk == first.user.pk

    assert (second.amr, second.auth_time, second.tenant, second.credential_id) == (
        first.amr,
        first.auth_time,
        first.tenant,
        first.credential_id,
    )
    assert second.user == first.user


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize(
    "change",
    [
        lambda tokens: end_session(tokens.session, reason=AuthSession.Reason.LOGOUT, now=timezone.now()),
        lambda tokens: end_all_sessions(
            tokens.session.owner, reason=AuthSession.Reason.LOGOUT_ALL, now=timezone.now()
        ),
        lambda tokens: _save(tokens.session.owner, is_active=False),
        lambda tokens: _save(tokens.session.owner, password="another hash"),  # not one
        lambda tokens: tokens.session.owner.delete(),
        lambda tokens: _reused(tokens),
    ],
    ids=["logout", "logout-all", "disabled", "password", "deleted", "reuse"],
)
def test_rule_26_what_one_process_changes_all_others_know_with_the_commit(
    tokens: Tokens, change: Callable[[Tokens], Any]
) -> None:
    elsewhere(tokens)
    assert not is_refused(tokens)

    change(tokens)

    assert is_refused(tokens)


def _save(user: Any, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(user, name, value)
    user.save()


def _reused(tokens: Tokens) -> None:
    from svc_infra_django.accounts.errors import InvalidRefreshToken

    refresh_tokens(tokens.refresh_token, now=timezone.now())
    with pytest.raises(InvalidRefreshToken):
        refresh_tokens(tokens.refresh_token, now=timezone.now())


@pytest.mark.usefixtures("together")
def test_a_change_that_is_rolled_back_is_none(tokens: Tokens) -> None:
    from django.db import transaction

    elsewhere(tokens)
    with transaction.atomic():
        end_session(tokens.session, reason=AuthSession.Reason.LOGOUT, now=timezone.now())
        transaction.set_rollback(True)

    assert not is_refused(tokens)


@pytest.mark.usefixtures("together")
def test_a_slow_reader_puts_nothing_back(tokens: Tokens) -> None:
    subject, session_id = str(tokens.session.owner_id), str(tokens.session.pk)
    elsewhere(tokens)
    state, generation = shared_memory.recall(subject, session_id)
    assert state is not None
    end_session(tokens.session, reason=AuthSession.Reason.LOGOUT, now=timezone.now())

    shared_memory.share(subject, session_id, state, generation)

    assert shared_memory.recall(subject, session_id)[0] is None
    assert is_refused(tokens)


@pytest.mark.usefixtures("together")
def test_a_generation_that_was_evicted_is_never_the_same_again(tokens: Tokens) -> None:
    subject, session_id = str(tokens.session.owner_id), str(tokens.session.pk)
    elsewhere(tokens)
    _, generation = shared_memory.recall(subject, session_id)
    for key in [key for key in caches["all"]._cache if ":user:" in key]:
        caches["all"].delete(key.partition(":1:")[2])

    state, next_generation = shared_memory.recall(subject, session_id)

    assert state is None
    assert next_generation not in ("", generation)


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("rubbish", ["", "{}", "[1]", "null", "[1,2,3,4,5]", 7, b"\xff", [1], {}])
def test_rubbish_in_the_cache_is_nothing(tokens: Tokens, rubbish: Any) -> None:
    elsewhere(tokens)
    for key in [key for key in caches["all"]._cache if ":session:" in key]:
        caches["all"].set(key.partition(":1:")[2], rubbish)

    assert not is_refused(tokens)


@pytest.mark.usefixtures("together")
def test_the_cache_holds_neither_token_nor_digest_of_one(tokens: Tokens) -> None:
    elsewhere(tokens)
    held = repr({key: caches["all"].get(key.partition(":1:")[2]) for key in caches["all"]._cache})

    assert str(tokens.session.pk) in held
    assert tokens.access_token.rpartition(".")[2] not in held
    assert tokens.refresh_token not in held
    assert "'ada'" not in held and "ada@" not in held, "no name or address of a user"


@pytest.mark.usefixtures("together")
def test_rule_27_without_the_cache_the_database_is_asked_and_without_both_nobody_gets_in(
    tokens: Tokens, monkeypatch: Any, caplog: Any, django_assert_num_queries: Any
) -> None:
    asked = []

    def fails(*_: Any, **__: Any) -> None:
        asked.append(1)
        raise ConnectionRefusedError

    def fails_too(*_: Any, **__: Any) -> None:
        raise OperationalError

    for name in ("get_many", "get", "add", "set"):
        monkeypatch.setattr(LocMemCache, name, fails)
    with django_assert_num_queries(1):
        elsewhere(tokens)
    elsewhere(tokens)
    assert len(asked) == 1  # left alone for a moment
    assert "the shared cache does not answer" in caplog.text

    end_session(tokens.session, reason=AuthSession.Reason.LOGOUT, now=timezone.now())
    assert len(asked) == 2  # a change is told in any case
    assert "could not be told to other processes" in caplog.text
    assert is_refused(tokens)

    monkeypatch.setattr(checking_tokens._sessions, "get", fails_too)
    with pytest.raises(SessionsUnreadable):
        elsewhere(tokens)


@pytest.mark.usefixtures("together")
def test_a_change_around_our_code_counts_when_the_cache_forgets(tokens: Tokens, svc_settings: Any) -> None:
    svc_settings(accounts={"shared_cache_seconds": 1})
    elsewhere(tokens)
    get_user_model().objects.update(is_active=False)
    time.sleep(1.05)

    assert is_refused(tokens)


def last_good(tokens: Tokens, *, accounts: dict[str, Any], cache_settings: dict[str, Any]) -> list[float]:
    """Seconds from the end of the session to the last moment that each of two processes took it for good."""
    order = {
        "database": str(connection.settings_dict["NAME"]),
        "accounts": accounts,
        "caches": cache_settings,
        "token": tokens.access_token,
    }
    command = [sys.executable, "-m", "tests.accounts.watcher", json.dumps(order)]
    watchers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for watcher in watchers:
            assert watcher.stdout is not None
            assert watcher.stdout.readline() == "good\n"
        end_session(tokens.session, reason=AuthSession.Reason.LOGOUT, now=timezone.now())
        ended_at = time.time()
        return [float(watcher.communicate(timeout=60)[0]) - ended_at for watcher in watchers]
    finally:
        for watcher in watchers:
            watcher.kill()
            watcher.communicate()


def test_rule_26_other_processes_hear_of_an_end_within_the_bound(tokens: Tokens) -> None:
    caches_of_one = {"default": {"BACKEND": LOCMEM}}

    late = last_good(tokens, accounts={"revocation_seconds": BOUND}, cache_settings=caches_of_one)

    assert max(late) <= BOUND


@pytest.mark.redis
def test_rule_26_other_processes_hear_of_an_end_within_the_bound_through_a_cache(
    tokens: Tokens, settings: Any, svc_settings: Any
) -> None:
    settings.CACHES = {
        "default": {"BACKEND": LOCMEM},
        "all": {
            "BACKEND": "django_redis.cache.RedisCache",
            "LOCATION": os.environ["REDIS_URL"],
            "KEY_PREFIX": uuid4().hex,
        },
    }
    accounts = {"revocation_seconds": BOUND, "shared_cache": "all", "shared_cache_seconds": 60}
    svc_settings(accounts=accounts)

    late = last_good(tokens, accounts=accounts, cache_settings=settings.CACHES)

    assert max(late) <= BOUND
