from __future__ import annotations

import string
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from svc_infra_django.apikeys.hashing import (
    ALPHABET,
    SECRET_LENGTH,
    checksum,
    digest,
    new_key,
    parse_key,
)

KEY, PARTS = new_key(brand="svc", environment="live")

brands = st.from_regex(r"[a-z][a-z0-9]{1,15}", fullmatch=True)
environments = st.sampled_from(["live", "test"])


@given(brands, environments)
def test_a_new_key_parses_to_what_it_was_made_with(brand: str, environment: str) -> None:
    text, parts = new_key(brand=brand, environment=environment)

    assert parse_key(text) == parts
    assert (parts.prefix, parts.kind, parts.environment) == (f"{brand}_sk_{environment}_", "sk", environment)
    assert parts.last4 == text[-4:]


@given(st.integers(0, len(KEY) - 1), st.sampled_from(string.ascii_letters + string.digits + "_-. \n\0é"))
def test_one_wrong_character_anywhere_is_found(place: int, character: str) -> None:
    changed = KEY[:place] + character + KEY[place + 1 :]

    assert (parse_key(changed) is None) == (changed != KEY)


@given(st.integers(0, len(KEY) - 2))
def test_two_swapped_characters_are_found(place: int) -> None:
    swapped = KEY[:place] + KEY[place + 1] + KEY[place] + KEY[place + 2 :]

    assert (parse_key(swapped) is None) == (swapped != KEY)


@given(st.text(max_size=200))
def test_nonsense_is_refused_and_never_raises(text: str) -> None:
    assert parse_key(text) is None


def test_what_surrounds_a_key_makes_it_no_key() -> None:
    for text in (
        f" {KEY}",
        f"{KEY} ",
        f"{KEY}\n",
        KEY + KEY,
        KEY.upper(),
        "",
        "x" * 1_000_000,
        KEY[:-1],
        "\ud800" + KEY,
    ):
        assert parse_key(text) is None


@given(st.text())
def test_the_checksum_is_six_characters_of_the_alphabet(text: str) -> None:
    found = checksum(text.encode(errors="replace").decode())

    assert len(found) == 6
    assert set(found) <= set(ALPHABET)


def test_the_checksum_can_be_made_by_others() -> None:
    # CRC-32 of "123456789" is 0xCBF43926 (the check value of the algorithm), written in base 62.
    number, digits = 0xCBF43926, ""
    while number:
        number, rest = divmod(number, 62)
        digits = ALPHABET[rest] + digits

    assert checksum("123456789") == digits.rjust(6, "0")


def test_keys_never_repeat_and_use_the_whole_alphabet() -> None:
    keys = {new_key(brand="svc", environment="live")[0] for _ in range(500)}

    assert len(keys) == 500
    assert set("".join(key.rsplit("_", 1)[1][:SECRET_LENGTH] for key in keys)) == set(ALPHABET)


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_another_pepper_gives_another_digest(one: bytes, other: bytes) -> None:
    assert len(digest(KEY, pepper=one)) == 32
    assert (digest(KEY, pepper=one) == digest(KEY, pepper=other)) == (one == other)


def test_the_parts_do_not_show_the_secret(caplog: Any) -> None:
    assert KEY[12:-4] not in repr(PARTS)
