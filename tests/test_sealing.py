from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_infra_django.errors import ConfigurationError
from svc_infra_django.sealing import UnsealingFailed, derived_keys, key_id, seal, unseal

text = st.text(st.characters(exclude_categories=["Cs"]))


@given(text, text)
def test_what_is_sealed_opens_with_the_same_context(secret: str, context: str) -> None:
    assert unseal(seal(secret, context=context), context=context) == secret


@given(text, text, text)
def test_no_other_context_opens_it(secret: str, context: str, other: str) -> None:
    if other != context:
        with pytest.raises(UnsealingFailed):
            unseal(seal(secret, context=context), context=other)


@given(st.text(min_size=8), st.data())
def test_a_changed_box_does_not_open(secret: str, data: st.DataObject) -> None:
    version, key, body = seal("hunter2 hunter2", context="c").split(".")
    raw = bytearray(urlsafe_b64decode(body))
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))

    with pytest.raises(UnsealingFailed):
        unseal(f"{version}.{key}.{urlsafe_b64encode(raw).decode()}", context="c")


@given(st.text())
def test_nonsense_is_refused_in_the_one_way(nonsense: str) -> None:
    for box in (nonsense, f"v1.{nonsense}", f"v1.{key_id(derived_keys('sealing')[0])}.{nonsense}"):
        with pytest.raises(UnsealingFailed):
            unseal(box, context="c")


def test_two_seals_of_one_secret_differ() -> None:
    assert seal("same", context="c") != seal("same", context="c")


def test_the_box_does_not_show_the_secret_nor_the_key(settings) -> None:
    box = seal("hunter2 hunter2", context="c")

    assert "hunter2" not in box
    assert derived_keys("sealing")[0].hex() not in box
    assert settings.SECRET_KEY not in box


def test_a_fallback_key_opens_what_it_sealed_and_seals_nothing_new(settings) -> None:
    old = settings.SECRET_KEY
    box = seal("kept", context="c")

    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "the next key " * 5, [old]
    assert unseal(box, context="c") == "kept"
    fresh = seal("kept", context="c")

    settings.SECRET_KEY_FALLBACKS = []
    assert unseal(fresh, context="c") == "kept"
    with pytest.raises(UnsealingFailed) as failure:
        unseal(box, context="c")
    assert isinstance(failure.value, ConfigurationError)
    assert "SECRET_KEY_FALLBACKS" in str(failure.value)


def test_purposes_have_keys_of_their_own(settings) -> None:
    settings.SECRET_KEY_FALLBACKS = ["an older key " * 5]

    keys = [*derived_keys("sealing"), *derived_keys("jwt")]

    assert len(set(keys)) == 4
    assert {len(key) for key in keys} == {32}
    assert settings.SECRET_KEY.encode() not in keys


def test_a_key_of_bytes_is_the_same_key(settings) -> None:
    box = seal("kept", context="c")

    settings.SECRET_KEY = settings.SECRET_KEY.encode()

    assert unseal(box, context="c") == "kept"
