from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest
from django.test import RequestFactory
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from svc_infra_django.config import Secret
from svc_infra_django.observability.redaction import (
    REDACTED,
    SHAPES,
    _without_secret,
    is_secret_name,
    redacted,
    redacted_line,
    redacted_text,
)

SECRET = "hunter2-hunter2"


class Login(BaseModel):
    email: str
    password: str


@dataclass
class Card:
    holder: str
    api_key: str
    number: str = field(default="4111", repr=False)


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PASSWORD",
        "new_password",
        "passwd",
        "passphrase",
        "secret",
        "client_secret",
        "token",
        "access_token",
        "accessToken",
        "refresh-token",
        "tokens",
        "Authorization",
        "HTTP_AUTHORIZATION",
        "Cookie",
        "Set-Cookie",
        "apiKey",
        "api_key",
        "X-API-Key",
        "apikey",
        "private_key",
        "signingKey",
        "signature",
        "webhook_signature",
        "otp",
        "totp",
        "otp_code",
        "recovery_codes",
        "session_key",
        "sessionid",
        "csrftoken",
        "csrfmiddlewaretoken",
        "jwt",
        "credentials",
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "user_id",
        "key",
        "cache_key",
        "path",
        "passenger",
        "tokenizer",
        "session_id",
        "credential",
        "secretary",
        "compass",
        "design",
        "author",
        "keyboard",
        "order",
        "code",
        "optional",
    ],
)
def test_names_of_other_things(name: str) -> None:
    assert not is_secret_name(name)


def test_every_place_in_a_structure_is_looked_at() -> None:
    event = {
        "event": "login",
        "form": {"email": "ada@example.com", "password": SECRET},
        "headers": [{"Authorization": SECRET}, ("Cookie", {"cookie": SECRET})],
        "login": Login(email="ada@example.com", password=SECRET),
        "card": Card("Ada", SECRET),
        "several": {frozenset({f"token={SECRET}"}): 1, "set": {f"password={SECRET}"}},
        "bytes_key": {b"password": SECRET},
        "tokens": [SECRET],
        "scope": {"headers": [(b"authorization", SECRET.encode()), [b"x-api-key", SECRET.encode()]]},
    }

    clean = redacted(event)

    assert SECRET not in str({name: value for name, value in clean.items() if name != "several"})
    assert SECRET not in str(clean["several"]["set"])
    assert clean["login"] == {"email": "ada@example.com", "password": REDACTED}
    assert clean["card"] == {"holder": "Ada", "api_key": REDACTED}
    assert event["form"]["password"] == SECRET  # what was logged is not changed


class Wordless:
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_what_cannot_be_printed_costs_no_line() -> None:
    assert redacted({"event": "met", "guest": Wordless()}) == {
        "event": "met",
        "guest": "<Wordless that cannot be printed>",
    }


def test_that_there_is_no_secret_may_be_said() -> None:
    assert redacted({"token": None, "has_password": True}) == {"token": None, "has_password": True}


def test_a_request_shows_no_query() -> None:
    assert redacted({"request": RequestFactory().get(f"/reset?next={SECRET}")}) == {"request": "GET /reset"}


def test_a_circle_ends() -> None:
    circle: dict[str, object] = {}
    circle["again"] = circle

    assert "..." in str(redacted(circle))


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"basic {SECRET}",
        f"postgres://ada:{SECRET}@db/shop",
        f"redis://:{SECRET}@cache:6379/0",
        f"amqp://ada:p@{SECRET}@queue",
        f"GET /reset?token={SECRET}&next=/",
        f"password={SECRET}",
        f"{{'password': '{SECRET}', 'email': 'a'}}",
        f'{{"client_secret": "{SECRET}"}}',
        f"Login(email='a', password='{SECRET}')",
        f"refresh_token = '{SECRET}'",
        f"password='it\\'s {SECRET}'",
        "eyJhbGciOiJIUzI1NiJ9.eyJodW50ZXIyIjoxfQ.hunter2-hunter2",
        "whsec_hunter2hunter2",
        "no such key: svc_sk_live_hunter2hunter2hunter2hunter2hunter2hun",
        "key SHOP_SK_TEST_hunter2hunter2hunter2hunter2hunter2hun.",
    ],
)
def test_shapes_of_secrets_in_running_text(text: str) -> None:
    clean = redacted_text(text)

    assert "hunter2" not in clean
    assert REDACTED in clean


@pytest.mark.parametrize(
    "text",
    [
        "Invalid token: it has expired.",
        "GET /orders?limit=5",
        "https://shop.example/a@b",
        "eyJ is base64 for {",
        "The password is too short.",
        "basic income",
        "postgres://db/shop",
        "otp is needed",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    assert redacted_text(text) == text


def test_the_value_of_a_known_secret_is_found_anywhere(monkeypatch) -> None:
    monkeypatch.setenv("TESTS_PLAIN_WORD", "an ordinary sentence")

    Secret("env:TESTS_PLAIN_WORD").reveal()

    assert redacted_text("refused: an ordinary sentence.") == f"refused: {REDACTED}."


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_nothing_that_can_be_logged_breaks_it(value: object) -> None:
    redacted({"value": value})


@pytest.mark.parametrize(
    "attack",
    [
        "password='" + "\\" * 60_000,
        "-eyJaaaaaaaaa" * 20_000,
        "eyJaaaaaaaaa." * 20_000,
        "a-" * 100_000 + "password",
        "://:" * 50_000,
        "bearer " * 40_000,
        "password=" * 30_000,
        "password='\"" * 30_000,
        "secret" + " " * 200_000,
        "token: '" * 30_000,
        "whsec_" * 40_000,
        "a_sk_live_" * 40_000,
        "a" * 400_000,
    ],
    ids=range(13),
)
def test_no_text_takes_long(attack: str) -> None:
    started = time.process_time()

    redacted_text(attack)

    assert time.process_time() - started < 1


WORDS = ["eyJhbGciOi", "EYJhbGciOi", "whsec_", "bearer ", "Basic\t", "password", "token", "svc_sk_live_"]
MARKS = ["=", ":", ".", "'", "://", "@", "a" * 38]


@given(st.lists(st.one_of(st.sampled_from(WORDS + MARKS), st.text(max_size=12))).map("".join))
def test_a_text_that_looks_harmless_at_first_sight_is(text) -> None:
    assert redacted_text(text) == SHAPES.sub(_without_secret, text)


@given(st.lists(st.one_of(st.sampled_from(WORDS + MARKS), st.text(max_size=12))).map("".join))
def test_a_line_that_looks_harmless_as_a_whole_is(text) -> None:
    values = {"event": "request", "path": text, "status": 200, "client": "127.0.0.1"}

    assert redacted_line(values) == redacted(values)


def test_a_line_tells_no_known_secret(monkeypatch) -> None:
    monkeypatch.setenv("TESTS_LETTERS", "onlyletters")

    Secret("env:TESTS_LETTERS").reveal()

    assert redacted_line({"event": "onlyletters"}) == {"event": REDACTED}
