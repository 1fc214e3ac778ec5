from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import timedelta
from time import time
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from django.utils import timezone
from jwt.algorithms import OKPAlgorithm
from pydantic import ValidationError

from svc_infra_django.accounts.conf import AccountsSettings
from svc_infra_django.accounts.errors import InvalidAccessToken
from svc_infra_django.accounts.jwt import derived_ring
from svc_infra_django.accounts.models import AuthSession
from svc_infra_django.accounts.services.checking_tokens import check_access_token
from svc_infra_django.accounts.services.issuing_tokens import issue_tokens
from svc_infra_django.accounts.services.remembering_sessions import memory
from svc_infra_django.sealing import derived_keys, key_id

pytestmark = pytest.mark.django_db


@pytest.fixture
def token(user: Any) -> str:
    return issue_tokens(user, amr=("pwd",)).access_token


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def signed(claims: dict[str, Any], *, headers: dict[str, Any] | None = None, **options: Any) -> str:
    """A token that our own key signed, with whatever claims and headers."""
    key = derived_ring().signing
    assert key is not None
    wanted = {"typ": "at+jwt", "kid": key.kid, **(headers or {})}
    private, algorithm = options.get("key", key.private), options.get("algorithm", key.algorithm)
    return jwt.encode(claims, private, algorithm=algorithm, headers=wanted)


def is_refused(token: str) -> bool:
    try:
        check_access_token(token, now=timezone.now())
    except InvalidAccessToken:
        return True
    return False


def test_our_own_signature_is_accepted_so_the_refusals_below_mean_something(token: str) -> None:
    assert not is_refused(signed(claims_of(token)))


def test_rule_24_a_token_names_its_type_key_and_session_and_nobody_in_person(token: str, user: Any) -> None:
    claims = claims_of(token)
    header = jwt.get_unverified_header(token)

    assert header == {
        "alg": "EdDSA",
        "typ": "at+jwt",
        "kid": key_id(derived_keys("accounts.jwt.EdDSA")[0]),
    }
    named = ("token_type", "exp", "iat", "jti", "sub", "sid", "amr", "acr", "auth_time", "iss", "aud")
    assert set(claims) == set(named)
    assert claims["acr"] == "sfa"
    assert claims["exp"] - claims["iat"] == 15 * 60
    assert not {user.username, user.email} & {str(value) for value in claims.values()}


@pytest.mark.parametrize("missing", ["exp", "iat", "jti", "sub", "iss", "aud", "sid", "token_type"])
def test_rule_20_every_claim_is_demanded(token: str, missing: str) -> None:
    claims = claims_of(token)
    del claims[missing]

    assert is_refused(signed(claims))


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        ("iss", "https://elsewhere.example"),
        ("aud", "another.api"),
        ("token_type", "refresh"),
        ("sub", "999999"),
        pytest.param("sid", str(uuid4()), id="sid-unknown"),
        ("sid", "not-a-uuid"),
        ("sid", 7),
        pytest.param("exp", int(time()) - 11, id="exp-past"),
        ("exp", "soon"),
        ("exp", 10**30),
        pytest.param("iat", int(time()) + 3600, id="iat-future"),
        pytest.param("nbf", int(time()) + 3600, id="nbf-future"),
        ("jti", 5),
    ],
)
def test_rules_20_and_21_every_claim_is_checked(token: str, claim: str, value: Any) -> None:
    assert is_refused(signed({**claims_of(token), claim: value}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("token_leeway_seconds", 61), ("access_token_seconds", 3601), ("revocation_seconds", 61)),
        *(
            ("login_attempts", 16),
            ("mfa_attempts", 11),
            ("mfa_challenge_seconds", 301),
            ("recovery_codes", 7),
        ),
        *(("password_min_length", 7), ("password_reset_seconds", 3601), ("email_code_seconds", 601)),
        *(("oauth_flow_seconds", 601), ("oauth_handoff_seconds", 61), ("fresh_factor_seconds", 3601)),
    ],
)
def test_rules_20_and_24_no_setting_goes_further_than_the_rules(name: str, value: int) -> None:
    with pytest.raises(ValidationError):
        AccountsSettings(**{name: value})


def test_rule_20_clocks_may_differ_by_the_leeway_only(token: str) -> None:
    claims = claims_of(token)

    assert not is_refused(signed({**claims, "exp": int(time()) - 5}))
    assert is_refused(signed({**claims, "exp": int(time()) - 15}))


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "HS256", "HS512", "HS384", "RS256", "ES256", "ES512", "", None, 7]
)
def test_rule_16_the_header_does_not_choose_the_algorithm(token: str, alg: str) -> None:
    header, payload, signature = token.split(".")
    changed = json.loads(urlsafe_b64decode(header + "==")) | {"alg": alg}
    forged = urlsafe_b64encode(json.dumps(changed).encode()).decode().rstrip("=")

    assert is_refused(f"{forged}.{payload}.{signature}")
    assert is_refused(f"{forged}.{payload}.")


def hmac_signed(token: str, secret: bytes) -> str:
    """The token's claims under its `kid`, signed by HMAC with whatever `secret`: no library would do it."""
    kid = jwt.get_unverified_header(token)["kid"]
    head = json.dumps({"alg": "HS256", "typ": "at+jwt", "kid": kid}).encode()
    text = f"{urlsafe_b64encode(head).decode().rstrip('=')}.{token.split('.')[1]}"
    signature = hmac.digest(secret, text.encode(), "sha256")
    return f"{text}.{urlsafe_b64encode(signature).decode().rstrip('=')}"


def test_rule_17_a_public_key_verifies_no_hmac(token: str) -> None:
    signing = derived_ring().signing
    assert signing is not None
    formats = serialization.PublicFormat
    spellings = [
        signing.public.public_bytes(serialization.Encoding.PEM, formats.SubjectPublicKeyInfo),
        signing.public.public_bytes(serialization.Encoding.DER, formats.SubjectPublicKeyInfo),
        signing.public.public_bytes_raw(),
        json.dumps(signing.jwk).encode(),
        derived_keys("accounts.jwt.EdDSA")[0],
    ]

    for secret in spellings:
        assert is_refused(hmac_signed(token, secret))


def test_hmac_can_be_chosen_and_then_nothing_else_is_taken(user: Any, token: str, svc_settings: Any) -> None:
    svc_settings(accounts={"signing_algorithm": "HS256"})
    fresh = issue_tokens(user, amr=("pwd",)).access_token

    assert jwt.get_unverified_header(fresh)["alg"] == "HS256"
    assert not is_refused(fresh)
    assert is_refused(token)
    assert derived_ring().jwks == {"keys": []}


@pytest.mark.parametrize(
    "kid",
    ["../../etc/passwd", "' OR 1=1 --", "http://127.0.0.1/key", "x" * 20_000, 7, None, ["a"], {"a": 1}, ""],
)
def test_rule_18_kid_only_selects_from_the_ring(token: str, kid: Any) -> None:
    _, payload, signature = token.split(".")
    head = {"alg": "HS256", "typ": "at+jwt", "kid": kid}
    forged = urlsafe_b64encode(json.dumps(head).encode()).decode().rstrip("=")

    assert is_refused(f"{forged}.{payload}.{signature}")


@pytest.mark.parametrize(
    "headers", [{"crit": ["exp"]}, {"crit": ["x"], "x": 1}, {"typ": "JWT"}, {"typ": None}]
)
def test_rules_19_and_22_types_and_critical_headers_are_minded(token: str, headers: dict[str, Any]) -> None:
    assert is_refused(signed(claims_of(token), headers=headers))


def test_rule_19_keys_brought_along_are_ignored(token: str) -> None:
    own = ed25519.Ed25519PrivateKey.generate()
    brought = {
        "jwk": json.loads(OKPAlgorithm.to_jwk(own.public_key())),
        "jku": "http://127.0.0.1:1/",
        "x5u": "x",
    }

    assert is_refused(signed(claims_of(token), headers=brought, key=own))
    assert not is_refused(signed(claims_of(token), headers=brought))


def test_rule_30_a_rotated_secret_key_verifies_old_tokens_and_signs_none(
    user: Any, token: str, settings: Any
) -> None:
    old, settings.SECRET_KEY = (
        settings.SECRET_KEY,
        "the next secret key, long enough for every check 0123456789",
    )
    assert is_refused(token)

    settings.SECRET_KEY_FALLBACKS = [old]
    assert not is_refused(token)
    fresh = issue_tokens(user, amr=("pwd",)).access_token
    assert jwt.get_unverified_header(fresh)["kid"] != jwt.get_unverified_header(token)["kid"]


def test_a_session_that_ran_out_opens_nothing(user: Any, token: str) -> None:
    AuthSession.objects.update(idle_expires_at=timezone.now() - timedelta(seconds=1))

    assert is_refused(token)


MALFORMED = [
    "", ".", "..", "a.b.c", "eyJ.eyJ.x", "x" * 5000, "\u212a", "a b", "null",
    urlsafe_b64encode(b"[" * 2900).decode() + ".e30.x",
    urlsafe_b64encode(b'{"alg":"HS256","typ":"at+jwt","kid":"\xff"}').decode() + ".e30.x",
    urlsafe_b64encode(b"7").decode() + ".e30.x",
    urlsafe_b64encode(b"null").decode() + ".e30.x",
    urlsafe_b64encode(b"[]").decode() + ".e30.x",
]  # fmt: skip


@pytest.mark.parametrize("token", MALFORMED)
def test_rule_29_malformed_tokens_are_a_plain_401(db: None, visitor: Any, token: str) -> None:
    response = visitor.get("me", headers={"Authorization": f"Bearer {token}"}, token="-")

    assert response.status_code in {400, 401}
    if response.status_code == 401:
        assert response["WWW-Authenticate"].startswith("Bearer")
        assert response.json()["detail"] == "The access token is malformed, expired or revoked."


@pytest.mark.parametrize("token", MALFORMED)
def test_malformed_tokens_raise_the_one_refusal(token: str) -> None:
    assert is_refused(token)


def test_rule_28_tokens_are_taken_from_the_header_only(token: str, client: Any) -> None:
    client.cookies["access_token"] = token

    assert client.get(f"/api/auth/me?access_token={token}").status_code == 401
    assert client.get("/api/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert (
        client.get("/api/auth/me", headers={"Authorization": f"Bearer {token}, Bearer x"}).status_code == 400
    )


def test_rule_22_tokens_of_another_kind_are_not_access_tokens(ada: Any, user: Any) -> None:
    from svc_infra_django.apikeys import issue_key

    _, key = issue_key(owner=user, name="a key")
    for other in (ada.tokens["refresh_token"], key):
        assert ada.get("me", token=other).status_code == 401


def test_rule_25_verified_claims_hold_no_token_and_belong_to_the_whole_of_it(token: str) -> None:
    from svc_infra_django.accounts import jwt as access

    assert not is_refused(token)
    kept = {**access.verified._young, **access.verified._old, **memory._young, **memory._old}
    assert len(kept) >= 1
    assert token not in repr(kept)
    assert token.rpartition(".")[2] not in repr(kept)

    head, payload, signature = token.split(".")
    changed = "A" if signature[0] != "A" else "B"
    assert is_refused(f"{head}.{payload}.{changed}{signature[1:]}")
    assert is_refused(token + "=")
    assert is_refused(f"{token}.")


def test_a_refused_token_is_not_remembered(token: str) -> None:
    from svc_infra_django.accounts import jwt as access

    before = len(access.verified)
    for number in range(10):
        assert is_refused(signed({**claims_of(token), "aud": f"another {number}"}))

    assert len(access.verified) <= before
