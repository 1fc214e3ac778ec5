from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from svc_infra_django.accounts.hashing import (
    RECOVERY_ALPHABET,
    RECOVERY_LENGTH,
    looks_like_recovery_code,
    new_recovery_code,
    new_token,
    plain_recovery_code,
    token_digest,
)


def test_tokens_have_256_bits_and_codes_120() -> None:
    assert len(new_token("rt").partition("_")[2]) >= 43
    assert len(RECOVERY_ALPHABET) ** RECOVERY_LENGTH == 2**120
    assert len({new_token("rt") for _ in range(100)} | {new_recovery_code() for _ in range(100)}) == 200


def test_a_recovery_code_survives_being_typed() -> None:
    code = new_recovery_code()
    for typed in (code, code.upper(), code.replace("-", ""), code.replace("-", " ")):
        assert looks_like_recovery_code(typed)
        assert plain_recovery_code(typed) == plain_recovery_code(code)


@given(st.text(max_size=40))
def test_most_text_is_no_recovery_code(text: str) -> None:
    assert not looks_like_recovery_code(text) or len(plain_recovery_code(text)) == RECOVERY_LENGTH


@given(st.text(max_size=64))
def test_every_text_has_a_digest(text: str) -> None:
    assert len(token_digest(text)) == 64
