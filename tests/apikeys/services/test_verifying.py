from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.utils import timezone

from svc_infra_django.apikeys import (
    aissue_key,
    arevoke_key,
    arotate_key,
    averify_key,
    issue_key,
    revoke_key,
    rotate_key,
    verify_key,
)
from svc_infra_django.apikeys.errors import AddressNotAllowed, InvalidKey
from svc_infra_django.apikeys.hashing import new_key
from svc_infra_django.apikeys.models import ApiKey
from svc_infra_django.config.secrets import Secret

pytestmark = pytest.mark.django_db

NOW = timezone.now()


def test_a_key_is_recognised_with_its_owner(issued: tuple[ApiKey, str], user: Any) -> None:
    key, secret = issued

    found = verify_key(secret)

    assert (found.pk, found.owner) == (key.pk, user)


@pytest.mark.parametrize(
    "text", ["", "x", "svc_sk_live_", "svc_sk_live_" + "A" * 38, "\0" * 50, "é" * 50, "A" * 1_000_000]
)
def test_malformed_keys_cost_no_query(text: str, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0), pytest.raises(InvalidKey):
        verify_key(text)


def test_a_key_of_the_other_environment_costs_no_query(
    user: Any, svc_settings: Callable[..., None], django_assert_num_queries: Any
) -> None:
    svc_settings(apikeys={"environment": "test"})
    key, secret = issue_key(owner=user, name="robot")
    assert key.environment == "test"
    assert secret.startswith("svc_sk_test_")
    verify_key(secret)

    svc_settings(apikeys={"environment": "live"})
    with django_assert_num_queries(0), pytest.raises(InvalidKey):
        verify_key(secret)


def test_made_up_keys_are_refused_and_leave_nothing_behind(django_assert_num_queries: Any, db: None) -> None:
    for _ in range(20):
        secret, _parts = new_key(brand="svc", environment="live")
        with django_assert_num_queries(1), pytest.raises(InvalidKey):
            verify_key(secret)

    assert not ApiKey.objects.exists()


def test_a_revoked_key_is_refused_by_the_very_next_call(issued: tuple[ApiKey, str]) -> None:
    key, secret = issued
    verify_key(secret)

    revoke_key(key)

    with pytest.raises(InvalidKey):
        verify_key(secret)


def test_a_key_is_refused_from_the_moment_it_ends(user: Any) -> None:
    _, secret = issue_key(owner=user, name="robot", expires_at=NOW + timedelta(hours=1), now=NOW)

    verify_key(secret, now=NOW + timedelta(hours=1) - timedelta(microseconds=1))
    with pytest.raises(InvalidKey):
        verify_key(secret, now=NOW + timedelta(hours=1))


def test_keys_of_a_disabled_owner_are_refused_at_once(issued: tuple[ApiKey, str], user: Any) -> None:
    verify_key(issued[1])

    type(user).objects.filter(pk=user.pk).update(is_active=False)

    with pytest.raises(InvalidKey):
        verify_key(issued[1])


def test_keys_die_with_their_owner(issued: tuple[ApiKey, str], user: Any) -> None:
    user.delete()

    with pytest.raises(InvalidKey):
        verify_key(issued[1])


def test_a_rotated_key_works_for_its_grace_and_its_successor_from_the_start(
    issued: tuple[ApiKey, str],
) -> None:
    key, old = issued
    successor, new = rotate_key(key, grace=timedelta(hours=2), now=NOW)

    assert verify_key(old, now=NOW + timedelta(hours=1)).pk == key.pk
    assert verify_key(new, now=NOW).pk == successor.pk
    with pytest.raises(InvalidKey):
        verify_key(old, now=NOW + timedelta(hours=2))


def test_all_refusals_read_the_same(user: Any) -> None:
    revoked, secret = issue_key(owner=user, name="robot")
    revoke_key(revoked)
    messages = set()
    for text in ("nonsense", secret, new_key(brand="svc", environment="live")[0]):
        with pytest.raises(InvalidKey) as refused:
            verify_key(text)
        messages.add((refused.value.message, refused.value.code, refused.value.status))

    assert messages == {("This API key is not valid.", "apikeys.invalid", 401)}


def test_a_key_made_under_an_older_pepper_is_found_in_one_query_and_rewritten(
    issued: tuple[ApiKey, str], settings: Any, django_assert_num_queries: Any
) -> None:
    key, secret = issued
    verify_key(secret, now=NOW)
    old_digest, old_pepper = bytes(key.digest), key.pepper_id
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "the-next-secret-key-that-is-long-enough-for-everybody-0123456789"

    with django_assert_num_queries(2):
        verify_key(secret, now=NOW)

    key.refresh_from_db()
    assert (bytes(key.digest), key.pepper_id) != (old_digest, old_pepper)
    settings.SECRET_KEY_FALLBACKS = []
    with django_assert_num_queries(1):
        verify_key(secret, now=NOW)


def test_without_the_old_pepper_the_row_is_useless(issued: tuple[ApiKey, str], settings: Any) -> None:
    settings.SECRET_KEY = "a-stranger-who-holds-the-table-only-does-not-have-this-0123456789"

    with pytest.raises(InvalidKey):
        verify_key(issued[1])


def test_the_key_is_in_no_column_and_no_log(user: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key, secret = issue_key(owner=user, name="robot")
    verify_key(secret)
    rotate_key(key)
    revoke_key(key)
    with pytest.raises(InvalidKey):
        verify_key(secret)

    body = secret.removeprefix(key.prefix)[:-4]
    assert body not in repr(list(ApiKey.objects.values()))
    assert body.encode() not in repr(list(ApiKey.objects.values())).encode()
    assert body not in "".join(repr(vars(record)) for record in caplog.records)
    assert body not in repr(key) + str(key)


def test_a_keys_whole_life_has_async_ends(user: Any) -> None:
    async def live() -> None:
        key, _ = await aissue_key(owner=user, name="robot")
        successor, secret = await arotate_key(key)
        assert (await averify_key(secret)).pk == successor.pk
        await arevoke_key(successor)
        with pytest.raises(InvalidKey):
            await averify_key(secret)

    async_to_sync(live)()


def test_a_key_of_another_environment_is_refused_whatever_its_text_says(
    issued: tuple[ApiKey, str],
) -> None:
    ApiKey.objects.update(environment="test")

    with pytest.raises(InvalidKey):
        verify_key(issued[1])


@pytest.mark.parametrize(
    ("networks", "address", "is_allowed"),
    [
        ([], "", True),
        (["192.0.2.0/24"], "192.0.2.255", True),
        (["192.0.2.0/24"], "192.0.3.0", False),
        (["192.0.2.7"], "192.0.2.7", True),
        (["2001:db8::/32"], "2001:db8:ffff::1", True),
        (["2001:db8::/32"], "2001:db9::1", False),
        (["2001:db8::/32", "192.0.2.0/24"], "192.0.2.1", True),
        (["::ffff:192.0.2.0/120"], "192.0.2.1", True),
        (["0.0.0.0/0"], "2001:db8::1", False),
        (["192.0.2.0/24"], "", False),
        (["192.0.2.0/24"], "unix:", False),
        (["192.0.2.0/24"], "192.0.2.1, 10.0.0.1", False),
    ],
)
def test_rule_57_a_key_with_networks_is_taken_from_there_only(
    user: Any, networks: list[str], address: str, is_allowed: bool
) -> None:
    _, secret = issue_key(owner=user, name="robot", allowed_networks=networks)

    if is_allowed:
        verify_key(secret, address=address)
    else:
        with pytest.raises(AddressNotAllowed):
            verify_key(secret, address=address)


def test_an_own_pepper_needs_no_secret_key(
    user: Any, settings: Any, svc_settings: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, before = issue_key(owner=user, name="before")
    monkeypatch.setenv("PEPPER_ONE", "a pepper of the first year, 32 characters")
    monkeypatch.setenv("PEPPER_TWO", "a pepper of the second year, 32 characters")
    svc_settings(apikeys={"peppers": (Secret("env:PEPPER_ONE"),)})
    _, first = issue_key(owner=user, name="first")
    verify_key(before)
    settings.SECRET_KEY = "another-secret-key-that-is-long-enough-for-everybody-0123456789"

    verify_key(first)
    verify_key(before)  # moved to the pepper when it was used
    svc_settings(apikeys={"peppers": (Secret("env:PEPPER_TWO"), Secret("env:PEPPER_ONE"))})
    verify_key(first)
    svc_settings(apikeys={"peppers": (Secret("env:PEPPER_TWO"),)})
    verify_key(first)
    with pytest.raises(InvalidKey):
        verify_key(before)
