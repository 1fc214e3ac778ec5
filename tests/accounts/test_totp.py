from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_infra_django.accounts.totp import code_of, enrolment_url, matching_step, shown, step_at

KEYS = st.binary(min_size=20, max_size=20)
STEPS = st.integers(min_value=10, max_value=2**40)


@pytest.mark.parametrize(
    ("seconds", "code"),
    [(59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (2000000000, "279037")],
)
def test_the_vectors_of_rfc_6238(seconds: int, code: str) -> None:
    key = b"12345678901234567890"

    assert code_of(key, step_at(datetime.fromtimestamp(seconds, UTC))) == code


@given(key=KEYS, step=STEPS, drift=st.integers(-1, 1))
def test_a_code_within_the_window_is_found(key: bytes, step: int, drift: int) -> None:
    found = matching_step(key, code_of(key, step + drift), step=step, after=-1)

    assert found is not None
    assert code_of(key, found) == code_of(key, step + drift)


@given(key=KEYS, step=STEPS, code=st.text(alphabet="0123456789", min_size=6, max_size=6), after=STEPS)
def test_what_is_found_is_in_the_window_and_later(key: bytes, step: int, code: str, after: int) -> None:
    found = matching_step(key, code, step=step, after=after)

    assert found is None or (abs(found - step) <= 1 and found > after and code_of(key, found) == code)


@given(key=KEYS, step=STEPS, code=st.text(max_size=8))
def test_nothing_but_six_ascii_digits_matches(key: bytes, step: int, code: str) -> None:
    if not (len(code) == 6 and code.isascii() and code.isdigit()):
        assert matching_step(key, code, step=step, after=-1) is None


@given(key=KEYS, issuer=st.text(min_size=1, max_size=20), account=st.text(min_size=1, max_size=20))
def test_the_enrolment_url_holds_the_key(key: bytes, issuer: str, account: str) -> None:
    parts = urlsplit(
        enrolment_url(key, issuer="Shop & Co: " + issuer.strip("\x00"), account="ada@example.com")
    )

    assert (parts.scheme, parts.netloc) == ("otpauth", "totp")
    assert parse_qs(parts.query)["secret"] == [shown(key)]
