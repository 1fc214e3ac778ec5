from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from time import monotonic
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils import timezone

from svc_infra_django import memory
from svc_infra_django.apikeys import change_key, issue_key, revoke_key, rotate_key, verify_key
from svc_infra_django.apikeys.errors import AddressNotAllowed, InvalidKey
from svc_infra_django.apikeys.hashing import new_key
from svc_infra_django.apikeys.models import ApiKey
from svc_infra_django.apikeys.services import remembering, verifying
from svc_infra_django.cache import cache
from svc_infra_django.lookups import Row

pytestmark = pytest.mark.django_db(transaction=True)

BOUND = 2.0


@pytest.fixture(autouse=True)
def fresh(settings: Any) -> None:
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": uuid4().hex}
    }


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let so many seconds go by for what this process remembers."""

    def wait(seconds: float) -> None:
        now = monotonic() + seconds
        monkeypatch.setattr(memory, "monotonic", lambda: now)

    return wait


def place(key: ApiKey) -> str:
    return f"svc:apikey:{bytes(key.digest).hex()}"


def another_process() -> None:
    """What this process knows is forgotten, what all know together is not."""
    for memory_of_process in (remembering.nearby, remembering.readings, remembering.unchanged):
        memory_of_process.clear()


def test_a_key_that_was_read_a_moment_ago_costs_no_query(
    issued: Any, user: Any, django_assert_num_queries: Any
) -> None:
    verify_key(issued[1])

    with django_assert_num_queries(0):
        found = verify_key(issued[1])
        assert (found.pk, found.owner, found.owner.email) == (issued[0].pk, user, user.email)
        assert str(found) == str(issued[0])
    another_process()
    with django_assert_num_queries(0):
        assert verify_key(issued[1]).owner.username == user.username


def test_strict_asks_the_database_every_time(
    issued: Any, svc_settings: Callable[..., None], django_assert_num_queries: Any
) -> None:
    svc_settings(apikeys={"cache_seconds": 0})
    for _ in range(2):
        with django_assert_num_queries(1):
            verify_key(issued[1])
    assert cache.get(place(issued[0])) is None


@pytest.mark.parametrize(
    "change",
    [
        {"revoked_at": timezone.now()},
        {"expires_at": timezone.now()},
        {"allowed_networks": ["192.0.2.0/24"]},
        {"environment": "test"},
        {"owner__is_active": False},
    ],
)
def test_strict_knows_of_every_change_at_once_and_no_longer_than_it_is_so(
    issued: Any, svc_settings: Callable[..., None], change: dict[str, Any]
) -> None:
    svc_settings(apikeys={"cache_seconds": 0})
    (column, value), *_ = change.items()
    rows: Any = get_user_model().objects if column.startswith("owner") else ApiKey.objects
    column = column.removeprefix("owner__")
    before = rows.values_list(column, flat=True).get()
    verify_key(issued[1])
    rows.update(**{column: value})

    for _ in range(2):
        with pytest.raises((InvalidKey, AddressNotAllowed)):
            verify_key(issued[1], address="198.51.100.1")

    rows.update(**{column: before})
    verify_key(issued[1])


def test_strict_sees_other_scopes_at_once(issued: Any, svc_settings: Callable[..., None]) -> None:
    svc_settings(apikeys={"cache_seconds": 0})
    for scopes in (["orders.add_order"], [], None):
        ApiKey.objects.update(scopes=scopes)
        assert verify_key(issued[1]).scopes == scopes


def test_strict_asks_a_project_each_time_who_is_active_by_its_own_code(
    issued: Any, svc_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    svc_settings(apikeys={"cache_seconds": 0})
    monkeypatch.setattr(Row, "is_active", True, raising=False)
    verify_key(issued[1])

    monkeypatch.setattr(Row, "is_active", False)

    with pytest.raises(InvalidKey):
        verify_key(issued[1])


@pytest.mark.parametrize(
    "change", [revoke_key, lambda key: rotate_key(key, grace=timedelta(0)), lambda key: key.delete()]
)
def test_what_is_over_is_refused_by_every_process_within_the_bound(
    issued: Any, later: Callable[[float], None], change: Callable[[ApiKey], Any]
) -> None:
    verify_key(issued[1])
    change(issued[0])
    cache.delete(place(issued[0]))  # as if the shared cache had let go of it by now

    later(BOUND)

    with pytest.raises(InvalidKey):
        verify_key(issued[1])


def test_rule_55_what_our_services_change_is_seen_by_the_very_next_call(issued: Any) -> None:
    key, secret = issued
    verify_key(secret)
    change_key(key, allowed_networks=["192.0.2.0/24"])
    with pytest.raises(AddressNotAllowed):
        verify_key(secret, address="198.51.100.1")
    change_key(key, allowed_networks=[])
    successor, fresh = rotate_key(key, grace=timedelta(hours=1))
    assert verify_key(secret).successor_id == successor.pk
    assert verify_key(fresh) == successor
    _, last = rotate_key(successor, grace=timedelta(0))
    with pytest.raises(InvalidKey):
        verify_key(fresh)
    revoke_key(key)
    with pytest.raises(InvalidKey):
        verify_key(secret)
    verify_key(last)


def test_what_was_read_while_a_change_was_not_committed_is_forgotten_with_the_commit(issued: Any) -> None:
    key, secret = issued
    verify_key(secret)
    name = remembering.name_of(secret)
    known = remembering.nearby.recall(name)
    assert known is not None

    with transaction.atomic():
        revoke_key(key)
        # As another thread would, for which the key is good until the commit.
        remembering.nearby.keep(name, known, remembering.begin_to_read(secret))

    with pytest.raises(InvalidKey):
        verify_key(secret)


def test_the_end_of_a_key_needs_no_bound(user: Any, django_assert_num_queries: Any) -> None:
    now = timezone.now()
    _, secret = issue_key(owner=user, name="short", expires_at=now + timedelta(minutes=1), now=now)
    verify_key(secret, now=now)

    with django_assert_num_queries(0), pytest.raises(InvalidKey):
        verify_key(secret, now=now + timedelta(minutes=1))


def test_who_read_before_a_change_cannot_put_it_back(issued: Any, django_assert_num_queries: Any) -> None:
    key, secret = issued
    name, digest = remembering.name_of(secret), bytes(key.digest)
    before = ApiKey.objects.select_related("owner").get(pk=key.pk)
    ticket = remembering.begin_to_read(secret)
    revoke_key(key)

    remembering.remember(name, digest, remembering.KnownKey.of(before), ticket=ticket)

    assert remembering.nearby.recall(name) is None
    another_process()
    with django_assert_num_queries(1), pytest.raises(InvalidKey):
        verify_key(secret)


def test_who_was_slow_to_read_tells_nobody(issued: Any, later: Callable[[float], None]) -> None:
    key, secret = issued
    before = ApiKey.objects.select_related("owner").get(pk=key.pk)

    ticket = remembering.begin_to_read(secret)
    later(BOUND / 2)

    remembering.remember(
        remembering.name_of(secret), bytes(key.digest), remembering.KnownKey.of(before), ticket=ticket
    )

    assert cache.get(place(key)) is None
    assert remembering.nearby.recall(remembering.name_of(secret)) is None


def test_a_transaction_that_never_commits_leaves_nothing_behind(user: Any) -> None:
    secret = ""
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        _, secret = issue_key(owner=user, name="robot")
        verify_key(secret)
        raise ZeroDivisionError

    with pytest.raises(InvalidKey):
        verify_key(secret)


def test_a_transaction_sees_its_own_changes(issued: Any) -> None:
    key, secret = issued
    verify_key(secret)
    with transaction.atomic():
        ApiKey.objects.filter(pk=key.pk).update(revoked_at=timezone.now())
        with pytest.raises(InvalidKey):
            verify_key(secret)


def test_nothing_that_opens_anything_is_in_the_shared_cache(
    issued: Any, user: Any, django_assert_num_queries: Any
) -> None:
    key, secret = issued
    verify_key(secret)

    text = cache.get(place(key))
    assert secret not in text
    assert user.password not in text
    assert bytes(key.digest).hex() not in text
    another_process()
    owner = verify_key(secret).owner
    with django_assert_num_queries(1):
        assert owner.check_password("correct horse battery staple 7")


def test_every_call_has_rows_of_its_own(issued: Any) -> None:
    one, other = verify_key(issued[1]), verify_key(issued[1])
    one.owner.username = one.name = "changed"

    assert (other.owner.username, other.name) == ("ada", "robot")
    assert verify_key(issued[1]).owner.username == "ada"


@pytest.mark.parametrize(
    "found", ["", "nonsense", "[]", "[1,2,3]", "null", b"x", 7, {"a": 1}, "[0,null,[],[]]"]
)
def test_what_cannot_be_read_in_the_shared_cache_is_not_there(issued: Any, found: Any) -> None:
    cache.set(place(issued[0]), found)

    assert verify_key(issued[1]).pk == issued[0].pk


@pytest.mark.parametrize("seconds", [BOUND + 1, -1], ids=["outlived its time", "is of the future"])
def test_an_entry_that_is_of_another_time_is_not_believed(
    issued: Any, monkeypatch: pytest.MonkeyPatch, django_assert_num_queries: Any, seconds: float
) -> None:
    verify_key(issued[1])
    text = cache.get(place(issued[0]))
    cache.set(place(issued[0]), text, 60)
    another_process()
    moment = remembering.time() + seconds
    monkeypatch.setattr(remembering, "time", lambda: moment)

    with django_assert_num_queries(1):
        verify_key(issued[1])


def test_memory_holds_no_key(issued: Any) -> None:
    verify_key(issued[1])

    for kept in (remembering.nearby._young, remembering.unchanged._young):
        assert kept
        assert issued[1] not in repr(kept)
        for *_, known in kept.values():
            assert "digest" not in vars(known.row)
            assert "password" not in vars(known.user)
    assert len(remembering.readings) == 1
    assert issued[1] not in repr(remembering.readings._young)


def test_what_strangers_make_up_is_not_remembered(issued: Any) -> None:
    made_up, _ = new_key(brand="svc", environment="live")

    for text in (made_up, made_up[:-1], "nonsense"):
        with pytest.raises(InvalidKey):
            verify_key(text)

    assert len(remembering.readings) == 0


def test_a_key_is_read_once_and_asked_for_by_the_same_digests(issued: Any, svc_settings: Any) -> None:
    svc_settings(apikeys={"cache_seconds": 0})

    with patch.object(verifying, "parse_key", wraps=verifying.parse_key) as parsed:
        for _ in range(3):
            assert verify_key(issued[1]) == issued[0]

    assert parsed.call_count == 1
