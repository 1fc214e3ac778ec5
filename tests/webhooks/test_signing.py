from __future__ import annotations

import hmac
from base64 import b64decode, b64encode
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import example, given
from hypothesis import strategies as st

from svc_infra_django.webhooks import sign, verify, verify_webhook_signature
from svc_infra_django.webhooks.errors import VerificationError
from svc_infra_django.webhooks.signing import (
    MAX_HEADER_LENGTH,
    MAX_SIGNATURES,
    new_private_key,
    new_secret,
    public_key,
    secret_key,
    sign_simply,
)

# The vector that the official libraries of Standard Webhooks share.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
NOW = 1614265330
HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(NOW),
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
RIGHT = HEADERS["webhook-signature"]
WRONG = "v1," + b64encode(b"x" * 32).decode()

# RFC 8032, section 7.1, TEST 1: the seed, and the public key that belongs to it.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
PRIVATE_KEY = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2DXWpgBgrEKt9VL/tPJZAc6DuFy89qmIyWvAhpo9wdRGg=="
PUBLIC_KEY = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="

anything = st.one_of(
    st.text(), st.text(alphabet="v1a,. =+/\x00é\ud800"), st.from_regex(r"v1,[A-Za-z0-9+/=]*")
)


def test_the_official_vector_signs_and_verifies() -> None:
    made = sign(BODY, message_id=HEADERS["webhook-id"], timestamp=NOW, keys=[secret_key(SECRET)])

    assert made == RIGHT
    assert verify(BODY, HEADERS, SECRET, now=NOW) == HEADERS["webhook-id"]


@pytest.mark.parametrize("secret", [SECRET, SECRET.removeprefix("whsec_")])
@pytest.mark.parametrize("names", [str.lower, str.upper, str.title])
def test_names_have_no_case_and_the_prefix_may_be_missing(secret: str, names: Any) -> None:
    assert verify(BODY, {names(name): value for name, value in HEADERS.items()}, secret, now=NOW)


@pytest.mark.parametrize(("age", "is_fresh"), [(300, True), (-300, True), (301, False), (-301, False)])
def test_the_timestamp_may_lie_five_minutes_off(age: int, is_fresh: bool) -> None:
    assert verify_webhook_signature(BODY, secret=SECRET, headers=HEADERS, now=NOW + age) is is_fresh


@pytest.mark.parametrize(
    "signature",
    [
        f"{WRONG} {RIGHT}",
        f"{RIGHT} {WRONG}",
        f"v1a,AAAA {RIGHT}",
        f"v1,é {RIGHT}",
        f"v9,x nonsense , {RIGHT}",
    ],
)
def test_one_right_signature_among_others_is_enough(signature: str) -> None:
    assert verify(BODY, {**HEADERS, "webhook-signature": signature}, SECRET, now=NOW)


def test_any_of_several_secrets_will_do() -> None:
    assert verify(BODY, HEADERS, [new_secret(), SECRET], now=NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "msg_other"},
        {"webhook-id": ""},
        {"webhook-id": "a.b"},
        {"webhook-timestamp": str(NOW + 1)},
        {"webhook-timestamp": f"{NOW}.0"},
        {"webhook-timestamp": f" {NOW}"},
        {"webhook-timestamp": "1_614_265_330"},
        {"webhook-timestamp": "١٦١٤٢٦٥٣٣٠"},
        {"webhook-timestamp": "9" * 400},
        {"webhook-signature": ""},
        {"webhook-signature": "v1"},
        {"webhook-signature": "v1,a,b"},
        {"webhook-signature": "v1,é"},
        {"webhook-signature": RIGHT.removeprefix("v1,")},
        {"webhook-signature": WRONG},
        {"webhook-signature": " ".join([WRONG] * 100_000)},
        {"webhook-signature": " ".join([WRONG] * 50 + [RIGHT])},
    ],
)
def test_what_is_malformed_is_refused_like_what_is_forged(change: dict[str, str]) -> None:
    with pytest.raises(VerificationError):
        verify(BODY, {**HEADERS, **change}, SECRET, now=NOW)


@pytest.mark.parametrize(
    ("message_id", "timestamp"),
    [
        *((message_id, str(NOW)) for message_id in ("", "a.b", "a b", "é", "a\n", "x" * 257)),
        *(("a", timestamp) for timestamp in (f" {NOW}", f"+{NOW}", f"0_{NOW}", "١٦١٤٢٦٥٣٣٠", f"000{NOW}")),
    ],
)
def test_a_head_that_could_be_read_in_another_way_is_refused_though_it_is_signed(
    message_id: str, timestamp: str
) -> None:
    def is_good(message_id: str, timestamp: str) -> bool:
        content = f"{message_id}.{timestamp}.".encode() + BODY
        signature = b64encode(hmac.digest(b64decode(SECRET[6:]), content, "sha256")).decode()
        headers = {
            "webhook-id": message_id,
            "webhook-timestamp": timestamp,
            "webhook-signature": f"v1,{signature}",
        }
        return verify_webhook_signature(BODY, secret=SECRET, headers=headers, now=NOW)

    assert is_good("a", str(NOW))
    assert not is_good(message_id, timestamp)


def test_a_header_that_is_too_long_is_refused_though_its_first_signature_is_right() -> None:
    fits = f"{RIGHT} {'x' * (MAX_HEADER_LENGTH - len(RIGHT) - 1)}"

    assert verify(BODY, {**HEADERS, "webhook-signature": fits}, SECRET, now=NOW)
    assert not verify_webhook_signature(
        BODY, secret=SECRET, headers={**HEADERS, "webhook-signature": f"{fits}x"}, now=NOW
    )


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "whsec_!!!",
        f"{SECRET}!",
        "\ud800",
        "é",
        None,
        [],
        [None],
        [[]],
        7,
        b"x",
        PRIVATE_KEY,
        "whpk_",
        "whpk_AAAA",
        "whsk_AAAA",
    ],
)
def test_a_bad_secret_verifies_nothing(secret: Any) -> None:
    assert verify_webhook_signature(BODY, secret=secret, headers=HEADERS, now=NOW) is False
    assert verify_webhook_signature(BODY, "0" * 64, secret if secret != "é" else "") is False


def test_an_empty_key_never_verifies() -> None:
    signature = hmac.new(b"", BODY, sha256).hexdigest()
    made = sign(BODY, message_id="msg_1", timestamp=NOW, keys=[b""])
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": made}

    assert verify_webhook_signature(payload=BODY, signature=signature, secret="") is False
    for secret in ("", "whsec_", "whsec_===="):
        assert verify_webhook_signature(BODY, secret=secret, headers=headers, now=NOW) is False


def test_headers_without_a_signature_are_no_way_to_the_weaker_form() -> None:
    assert verify_webhook_signature(BODY, sign_simply(BODY, secret=SECRET), SECRET)
    assert not verify_webhook_signature(BODY, sign_simply(BODY, secret=SECRET), SECRET, headers={})


def test_a_number_is_no_payload() -> None:
    assert not verify_webhook_signature(3, sign_simply(b"\0\0\0", secret=SECRET), SECRET)  # type: ignore[arg-type]


@given(body=st.binary(), name=st.sampled_from(sorted(HEADERS)), value=anything)
def test_no_header_makes_verification_raise_anything_else(body: bytes, name: str, value: str) -> None:
    assert verify_webhook_signature(body, secret=SECRET, headers={**HEADERS, name: value}, now=NOW) in (
        True,
        False,
    )


@given(signature=anything, payload=st.one_of(st.binary(), st.text(), st.none()), secret=st.text())
def test_the_simple_form_answers_yes_or_no_whatever_it_is_given(
    signature: Any, payload: Any, secret: str
) -> None:
    assert verify_webhook_signature(payload, signature, secret) in (True, False)


@given(body=st.binary(max_size=2000), stamp=st.integers(0, 10**11), flip=st.integers(0, 10**6))
def test_what_is_signed_verifies_and_one_changed_byte_does_not(body: bytes, stamp: int, flip: int) -> None:
    secret = new_secret()
    signature = sign(body, message_id="msg_1", timestamp=stamp, keys=[secret_key(secret)])
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(stamp), "webhook-signature": signature}

    assert verify(body, headers, secret, now=stamp) == "msg_1"
    if body:
        changed = bytearray(body)
        changed[flip % len(body)] ^= 1
        assert not verify_webhook_signature(bytes(changed), secret=secret, headers=headers, now=stamp)


@given(key=st.binary(min_size=1, max_size=200), body=st.binary(max_size=300))
@example(key=b"k" * 64, body=b"")
@example(key=b"k" * 65, body=b"")
def test_v1_is_the_hmac_of_the_standard_library_whatever_the_length_of_the_key(
    key: bytes, body: bytes
) -> None:
    expected = hmac.digest(key, b"msg_1.7." + body, sha256)

    assert sign(body, message_id="msg_1", timestamp=7, keys=[key]) == f"v1,{b64encode(expected).decode()}"


def test_the_simple_form_is_over_the_very_bytes() -> None:
    body = '{"name": "Zoë"}'.encode()
    digest = hmac.new(b"hush", body, sha256).hexdigest()

    assert verify_webhook_signature(payload=body, signature=digest, secret="hush")
    assert verify_webhook_signature(payload=body, signature=f"sha256={digest}", secret="hush")
    assert verify_webhook_signature(payload=body, signature=digest.upper(), secret="hush")
    assert sign_simply(body, secret="hush") == f"sha256={digest}"
    assert not verify_webhook_signature(payload=body + b" ", signature=digest, secret="hush")
    assert not verify_webhook_signature(payload=body, signature=digest, secret="other")


def test_a_new_secret_is_32_random_bytes() -> None:
    first, second = new_secret(), new_secret()

    assert first != second
    assert first.startswith("whsec_")
    assert len(secret_key(first)) == 32


def headers_for(body: bytes, *keys: str) -> dict[str, str]:
    signature = sign(body, message_id="msg_1", timestamp=NOW, keys=[secret_key(key) for key in keys])
    return {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": signature}


def test_the_keys_of_v1a_are_serialized_as_the_standard_says() -> None:
    assert "whsk_" + b64encode(SEED + PUBLIC).decode() == PRIVATE_KEY
    assert public_key(PRIVATE_KEY) == PUBLIC_KEY == "whpk_" + b64encode(PUBLIC).decode()
    fresh = new_private_key()
    assert fresh != new_private_key()
    assert fresh.startswith("whsk_")
    assert public_key(fresh).startswith("whpk_")


def test_v1a_signs_the_same_content_with_ed25519() -> None:
    headers = headers_for(BODY, PRIVATE_KEY)

    scheme, _, signature = headers["webhook-signature"].partition(",")
    content = b"msg_1." + str(NOW).encode() + b"." + BODY
    Ed25519PublicKey.from_public_bytes(PUBLIC).verify(b64decode(signature), content)
    assert (scheme, len(b64decode(signature))) == ("v1a", 64)
    assert verify(BODY, headers, PUBLIC_KEY, now=NOW) == "msg_1"
    assert not verify_webhook_signature(BODY + b" ", secret=PUBLIC_KEY, headers=headers, now=NOW)
    assert not verify_webhook_signature(BODY, secret=public_key(new_private_key()), headers=headers, now=NOW)


def test_both_schemes_in_one_header_serve_receivers_of_either_kind() -> None:
    headers = headers_for(BODY, SECRET, PRIVATE_KEY)

    assert headers["webhook-signature"].count(" ") == 1
    assert verify(BODY, headers, SECRET, now=NOW)
    assert verify(BODY, headers, PUBLIC_KEY, now=NOW)
    assert verify(BODY, headers, [new_secret(), PUBLIC_KEY], now=NOW)


def test_a_key_verifies_its_own_scheme_only() -> None:
    # Whoever knows the public key must not be able to sign v1 with its bytes.
    forged = hmac.new(PUBLIC, b"msg_1." + str(NOW).encode() + b"." + BODY, sha256).digest()
    for scheme in ("v1", "v1a"):
        headers = {**headers_for(BODY, SECRET), "webhook-signature": f"{scheme},{b64encode(forged).decode()}"}
        assert not verify_webhook_signature(BODY, secret=PUBLIC_KEY, headers=headers, now=NOW)
    right = headers_for(BODY, PRIVATE_KEY)
    item = right["webhook-signature"]
    for changed, is_good in (
        (item, True),
        (f"v1a,!!! {item}", True),
        (item.removeprefix("v1a,"), False),
        (f"{item[:9]}!{item[9:]}", False),
    ):
        headers = {**right, "webhook-signature": changed}
        assert verify_webhook_signature(BODY, secret=PUBLIC_KEY, headers=headers, now=NOW) is is_good
    swapped = headers_for(BODY, SECRET)
    swapped["webhook-signature"] = swapped["webhook-signature"].replace("v1,", "v1a,")
    assert not verify_webhook_signature(BODY, secret=SECRET, headers=swapped, now=NOW)


@pytest.mark.parametrize(
    "changed", [PRIVATE_KEY[:-4] + "AA==", "whsk_" + b64encode(SEED).decode(), PUBLIC_KEY, SECRET]
)
def test_what_is_no_private_key_makes_no_public_one(changed: str) -> None:
    with pytest.raises(ValueError):
        public_key(changed)


@given(value=anything)
def test_no_header_makes_a_public_key_raise_anything_else(value: str) -> None:
    headers = {**HEADERS, "webhook-signature": f"v1a,{value}"}

    assert verify_webhook_signature(BODY, secret=PUBLIC_KEY, headers=headers, now=NOW) is False


@given(body=st.binary(max_size=2000), stamp=st.integers(0, 10**11), flip=st.integers(0, 10**6))
def test_v1a_of_any_body_verifies_and_one_changed_byte_does_not(body: bytes, stamp: int, flip: int) -> None:
    signature = sign(body, message_id="msg_1", timestamp=stamp, keys=[secret_key(PRIVATE_KEY)])
    headers = {"webhook-id": "msg_1", "webhook-timestamp": str(stamp), "webhook-signature": signature}

    assert verify(body, headers, PUBLIC_KEY, now=stamp) == "msg_1"
    changed = bytearray(body or b"\0")
    changed[flip % len(changed)] ^= 1
    assert not verify_webhook_signature(bytes(changed), secret=PUBLIC_KEY, headers=headers, now=stamp)


def test_a_body_may_be_any_kind_of_bytes() -> None:
    for body in (bytearray(BODY), memoryview(BODY)):
        assert verify(body, HEADERS, SECRET, now=NOW)
    for text in (BODY.decode(), None, 7):
        assert not verify_webhook_signature(text, secret=SECRET, headers=HEADERS, now=NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "headers", [[], None, 7, {"webhook-id": 7}, {7: "x"}, {"webhook-signature": b"v1,x"}]
)
def test_what_are_no_headers_verify_nothing(headers: Any) -> None:
    with pytest.raises(VerificationError):
        verify(BODY, headers, SECRET, now=NOW)


def test_only_so_many_signatures_are_looked_at() -> None:
    first = " ".join([WRONG] * (MAX_SIGNATURES - 1) + [RIGHT])
    too_late = " ".join([WRONG] * MAX_SIGNATURES + [RIGHT])

    assert verify(BODY, {**HEADERS, "webhook-signature": first}, SECRET, now=NOW)
    assert not verify_webhook_signature(
        BODY, secret=SECRET, headers={**HEADERS, "webhook-signature": too_late}, now=NOW
    )
