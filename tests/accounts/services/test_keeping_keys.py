from __future__ import annotations

from datetime import timedelta
from io import StringIO
from typing import Any

import jwt
import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone
from jwt import PyJWKSet

from svc_infra_django.accounts.conf import settings
from svc_infra_django.accounts.errors import (
    InvalidAccessToken,
    KeyTooYoung,
    NoSigningKey,
    SessionsUnreadable,
)
from svc_infra_django.accounts.jwt import derived_ring, made_key, new_private
from svc_infra_django.accounts.models import SigningKey
from svc_infra_django.accounts.services import keeping_keys
from svc_infra_django.accounts.services.checking_tokens import check_access_token
from svc_infra_django.accounts.services.issuing_tokens import issue_tokens
from svc_infra_django.accounts.services.keeping_keys import key_ring, roll_keys, withdraw_keys
from svc_infra_django.config.sections import BadSettings
from svc_infra_django.sealing import derived_keys

pytestmark = pytest.mark.django_db

ALGORITHMS = ["EdDSA", "ES256", "RS256", "HS256"]
LATER = timedelta(minutes=6)


@pytest.fixture
def stored(svc_settings: Any) -> None:
    svc_settings(accounts={"signing_keys": "stored"})


def kid_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def is_refused(token: str, *, at: Any = None) -> bool:
    try:
        check_access_token(token, now=at or timezone.now())
    except InvalidAccessToken:
        return True
    return False


@pytest.mark.parametrize(("algorithm", "least"), [("RS256", 2048), ("ES256", 256), ("EdDSA", 256)])
def test_rule_23_a_new_key_is_long_enough(algorithm: str, least: int) -> None:
    made = [made_key("k", algorithm, new_private(algorithm)) for _ in range(2)]

    assert getattr(made[0].private, "key_size", 256) >= least
    assert made[0].jwk != made[1].jwk


def test_rule_23_an_hmac_key_has_256_bits_and_is_not_the_secret_key(settings: Any, svc_settings: Any) -> None:
    svc_settings(accounts={"signing_algorithm": "HS256"})
    signing = derived_ring().signing
    assert signing is not None

    keys = [made_key("k", "HS256", new_private("HS256")).private, signing.private]

    assert [len(key) for key in keys] == [32, 32]
    assert settings.SECRET_KEY.encode() not in keys
    assert len({*keys, *derived_keys("sealing"), *derived_keys("accounts.throttle")}) == 4


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_signs_and_verifies(user: Any, algorithm: str, client: Any) -> None:
    key = roll_keys(now=timezone.now(), algorithm=algorithm)
    token = issue_tokens(user, amr=("pwd",)).access_token

    assert jwt.get_unverified_header(token) == {"alg": algorithm, "typ": "at+jwt", "kid": key.kid}
    assert not is_refused(token)
    if algorithm != "HS256":
        published = PyJWKSet.from_dict(client.get("/.well-known/jwks.json").json())
        by_others = jwt.decode(
            token, published[key.kid].key, algorithms=[algorithm], audience="svc_infra_django.api"
        )
        assert by_others["sub"] == str(user.pk)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rule_30_the_key_set_has_public_parts_only(client: Any, algorithm: str) -> None:
    roll_keys(now=timezone.now(), algorithm=algorithm)
    response = client.get("/.well-known/jwks.json")

    assert response["Content-Type"] == "application/jwk-set+json"
    assert response["Cache-Control"] == "public, max-age=300"
    keys = response.json()["keys"]
    assert len(keys) == (0 if algorithm == "HS256" else 2)
    for key in keys:
        assert key.keys() <= {"kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"}
        assert (key["alg"], key["use"], bool(key["kid"])) == (algorithm, "sig", True)
    assert client.post("/.well-known/jwks.json").status_code == 405


def test_rule_30_keys_made_from_the_secret_key_are_published_too(user: Any, client: Any) -> None:
    token = issue_tokens(user, amr=("pwd",)).access_token
    published = PyJWKSet.from_dict(client.get("/.well-known/jwks.json").json())

    assert jwt.decode(
        token, published[kid_of(token)].key, algorithms=["EdDSA"], audience="svc_infra_django.api"
    )


@pytest.mark.usefixtures("stored")
def test_rule_30_a_rolled_key_verifies_until_its_last_token_is_over_and_signs_none(user: Any) -> None:
    now = timezone.now()
    first = roll_keys(now=now - LATER)
    following = SigningKey.objects.get(state="next")
    token = issue_tokens(user, amr=("pwd",)).access_token

    assert roll_keys(now=now).pk == following.pk
    fresh = issue_tokens(user, amr=("pwd",)).access_token

    assert (kid_of(token), kid_of(fresh)) == (first.kid, following.kid)
    assert not is_refused(token)
    assert not is_refused(fresh)
    states = dict(SigningKey.objects.values_list("kid", "state"))
    assert states.pop(first.kid) == "retiring"
    # Another process may sign with it for half a minute more.
    longest = timedelta(seconds=settings.access_token_seconds + settings.token_leeway_seconds + 30)
    assert SigningKey.objects.get(pk=first.pk).retires_at == now + longest
    assert states.pop(following.kid) == "active"
    assert list(states.values()) == ["next"]

    SigningKey.objects.filter(pk=first.pk).update(retires_at=now)
    keeping_keys._stored.forget()
    assert is_refused(token)
    roll_keys(now=now + LATER)
    assert not SigningKey.objects.filter(pk=first.pk).exists()


@pytest.mark.usefixtures("stored")
def test_a_retiring_key_outlives_every_token_it_signed(user: Any) -> None:
    now = timezone.now()
    first = roll_keys(now=now - LATER)
    roll_keys(now=now)
    first.refresh_from_db()

    assert first.retires_at is not None
    assert first.retires_at >= now + timedelta(seconds=900 + 10 + keeping_keys.RING_SECONDS)


@pytest.mark.usefixtures("stored")
def test_a_key_signs_only_after_others_could_learn_it() -> None:
    now = timezone.now()
    roll_keys(now=now)

    with pytest.raises(KeyTooYoung):
        roll_keys(now=now + timedelta(minutes=4))
    assert roll_keys(now=now + timedelta(minutes=4), force=True)


@pytest.mark.usefixtures("stored")
def test_a_key_that_another_process_made_is_found(user: Any, monkeypatch: Any) -> None:
    roll_keys(now=timezone.now() - LATER)
    old_ring = key_ring()
    roll_keys(now=timezone.now() - LATER, force=True)
    roll_keys(now=timezone.now(), force=True)
    token = issue_tokens(user, amr=("pwd",)).access_token
    stored = keeping_keys._stored
    stored._ring, stored._read_at = old_ring, stored._read_at - keeping_keys.RELOAD_SECONDS - 1

    assert not is_refused(token)


@pytest.mark.usefixtures("stored")
def test_rule_18_unknown_keys_do_not_make_us_ask_the_database_again_and_again(
    user: Any, django_assert_num_queries: Any
) -> None:
    roll_keys(now=timezone.now())
    key_ring()
    forged = jwt.encode({"sub": "1"}, b"k" * 32, algorithm="HS256", headers={"kid": "unknown"})

    with django_assert_num_queries(0):
        for _ in range(20):
            assert is_refused(forged)


@pytest.mark.usefixtures("stored")
def test_a_withdrawn_key_verifies_nothing_also_not_what_is_remembered(user: Any) -> None:
    roll_keys(now=timezone.now())
    token = issue_tokens(user, amr=("pwd",)).access_token
    assert not is_refused(token)

    withdraw_keys(now=timezone.now())

    assert is_refused(token)
    assert not is_refused(issue_tokens(user, amr=("pwd",)).access_token)


@pytest.mark.usefixtures("stored")
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rule_36_private_keys_are_sealed_and_shown_nowhere(algorithm: str) -> None:
    key = roll_keys(now=timezone.now(), algorithm=algorithm)
    text = keeping_keys.SigningKey.objects.filter(pk=key.pk).values().get()

    assert "PRIVATE" not in str(text)
    made = key.opened()
    assert "private" not in repr(made)
    if algorithm == "HS256":
        assert made.private.hex() not in str(text)
        assert len(made.private) == 32


@pytest.mark.usefixtures("stored")
def test_one_key_signs_and_one_is_next() -> None:
    from django.db import IntegrityError, transaction

    roll_keys(now=timezone.now())
    for state in (SigningKey.State.ACTIVE, SigningKey.State.NEXT):
        with pytest.raises(IntegrityError), transaction.atomic():
            SigningKey.make("EdDSA", state=state, now=timezone.now())


@pytest.mark.usefixtures("stored")
def test_without_a_key_nobody_is_let_in_unsigned(user: Any, client: Any) -> None:
    with pytest.raises(NoSigningKey):
        issue_tokens(user, amr=("pwd",))
    assert client.get("/.well-known/jwks.json").json() == {"keys": []}


@pytest.mark.usefixtures("stored")
def test_keys_that_cannot_be_read_are_those_of_before(user: Any, monkeypatch: Any, caplog: Any) -> None:
    roll_keys(now=timezone.now())
    token = issue_tokens(user, amr=("pwd",)).access_token

    def fails(*_: Any, **__: Any) -> None:
        raise OperationalError

    monkeypatch.setattr(keeping_keys.SigningKey.objects, "using", fails)
    keeping_keys._stored._read_at -= keeping_keys.RING_SECONDS + 1
    assert not is_refused(token)
    assert "signing keys cannot be read" in caplog.text

    keeping_keys._stored.forget()
    with pytest.raises(SessionsUnreadable):
        key_ring()


@pytest.mark.usefixtures("stored")
def test_the_command_rolls_and_withdraws(events: Any) -> None:
    said = StringIO()
    call_command("roll_signing_keys", stdout=said)
    assert SigningKey.objects.get(state="active").kid in said.getvalue()
    with pytest.raises(CommandError, match="published a moment ago"):
        call_command("roll_signing_keys")
    call_command("roll_signing_keys", "--force", "--algorithm", "ES256", stdout=said)
    call_command("roll_signing_keys", "--withdraw", stdout=said)

    assert SigningKey.objects.count() == 2
    assert [event.payload.withdrawn for event in events] == [False, False, True]


def test_the_command_needs_stored_keys() -> None:
    with pytest.raises(CommandError, match="SECRET_KEY"):
        call_command("roll_signing_keys")


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
def test_only_some_keys_can_be_made_from_the_secret_key(svc_settings: Any, algorithm: str) -> None:
    from svc_infra_django.accounts.conf import settings

    svc_settings(accounts={"signing_algorithm": algorithm})

    with pytest.raises(BadSettings, match="stored"):
        _ = settings.issuer
