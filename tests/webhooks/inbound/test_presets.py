"""Each preset takes what its sender signed, and nothing else, and raises nothing but VerificationError."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_infra_django.webhooks import new_private_key, public_key
from svc_infra_django.webhooks.errors import VerificationError
from svc_infra_django.webhooks.inbound.errors import UnreadableWebhook
from svc_infra_django.webhooks.inbound.presets import (
    PRESETS,
    GitHub,
    Preset,
    Shopify,
    Simple,
    Slack,
    StandardWebhooks,
    Stripe,
    storable,
)

from .conftest import HMAC_SECRET

NOW = 1614265330
BODY = b'{"id": "evt_1", "type": "invoice.paid"}'
SECRET = "hush"

every_preset = pytest.mark.parametrize("preset", [cls() for cls in PRESETS.values()], ids=list(PRESETS))
signature_of = {
    "standard": "webhook-signature", "stripe": "stripe-signature", "github": "x-hub-signature-256",
    "shopify": "x-shopify-hmac-sha256", "slack": "x-slack-signature", "simple": "x-signature",
}  # fmt: skip
anything = st.one_of(
    st.text(),
    st.text(alphabet="tv01=,. sha256:/+\x00é\ud800"),
    st.from_regex(r"(v0=|sha256=|t=)[0-9a-f,=v]*"),
)


def secret_of(preset: Preset) -> str:
    return HMAC_SECRET if isinstance(preset, StandardWebhooks) else SECRET


def signed(preset: Preset, body: bytes = BODY, **changes: Any) -> dict[str, str]:
    options = {"secret": secret_of(preset), "message_id": "msg_1", "event_type": "invoice.paid", "now": NOW}
    return preset.sign(body, **{**options, **changes})


def is_genuine(
    preset: Preset,
    headers: Mapping[str, str],
    *,
    body: bytes = BODY,
    secrets: Any = None,
    tolerance: int = 300,
    now: float = NOW,
) -> bool:
    known = [secret_of(preset)] if secrets is None else secrets
    try:
        preset.verify(body, headers, known, tolerance=tolerance, now=now)
    except VerificationError:
        return False
    return True


@pytest.mark.parametrize("kind", [Stripe, GitHub, Shopify, Slack, Simple])
def test_what_is_signed_with_nothing_is_forged(kind: type[Preset], monkeypatch: pytest.MonkeyPatch) -> None:
    preset = kind()
    with monkeypatch.context() as patch:
        patch.setattr("svc_infra_django.webhooks.inbound.presets._key", str.encode)
        headers = signed(preset, secret="")

    assert not is_genuine(preset, headers, secrets=[""])
    assert not is_genuine(preset, headers, secrets=["\ud800"])


@every_preset
def test_what_its_sender_signs_is_genuine_and_a_change_is_not(preset: Preset) -> None:
    headers = signed(preset)
    other = "whsec_" + b64encode(b"o" * 32).decode()

    assert is_genuine(preset, headers)
    assert is_genuine(preset, headers, secrets=[other, secret_of(preset)])
    assert not is_genuine(preset, headers, body=BODY + b" ")
    assert not is_genuine(preset, headers, secrets=[other])
    assert not is_genuine(preset, headers, secrets=[])
    assert not is_genuine(preset, headers, secrets=[""])
    assert not is_genuine(preset, {})


@every_preset
def test_an_old_request_is_refused_where_the_time_is_signed(preset: Preset) -> None:
    headers = signed(preset)

    assert is_genuine(preset, headers, now=NOW + 300)
    assert is_genuine(preset, headers, now=NOW + 301) is not preset.supports_timestamps
    assert is_genuine(preset, headers, now=NOW - 301) is not preset.supports_timestamps
    assert is_genuine(preset, headers, now=NOW + 11, tolerance=10) is not preset.supports_timestamps


@pytest.mark.parametrize("name", PRESETS)
@given(value=anything, body=st.binary(max_size=50))
def test_no_signature_makes_a_preset_raise_anything_else(name: str, value: str, body: bytes) -> None:
    preset = PRESETS[name]()

    headers = {**signed(preset), signature_of[name]: value}

    assert is_genuine(preset, headers, body=body) is False


@pytest.mark.parametrize("name", PRESETS)
@given(body=st.binary(max_size=500), stamp=st.integers(0, 10**11))
def test_every_body_that_is_signed_is_genuine(name: str, body: bytes, stamp: int) -> None:
    preset = PRESETS[name]()

    assert is_genuine(preset, signed(preset, body, now=stamp), body=body, now=stamp)


@pytest.mark.parametrize(
    ("preset", "headers"),
    [
        (Stripe(), {"stripe-signature": "t=1614265330,t=1,v1={}"}),
        (Stripe(), {"stripe-signature": "v1={}"}),
        (Stripe(), {"stripe-signature": "t=١٦١٤٢٦٥٣٣٠,v1={}"}),
        (Stripe(), {"stripe-signature": "t=1614265330,v0={}"}),
        (Stripe(), {"stripe-signature": "t=1614265330," + "v1=x," * 16 + "v1={}"}),
        (Stripe(), {"stripe-signature": "t=1614265330,v1={}," + "x" * 5000}),
        (GitHub(), {"x-hub-signature-256": "{}"}),
        (GitHub(), {"x-hub-signature": "sha256={}"}),
        (GitHub(), {"x-hub-signature-256": "sha256={} "}),
        (Slack(), {"x-slack-request-timestamp": "1614265330", "x-slack-signature": "v1={}"}),
        (Slack(), {"x-slack-request-timestamp": "1614265330.0", "x-slack-signature": "v0={}"}),
        (Shopify(), {"x-shopify-hmac-sha256": "{}"}),
    ],
)
def test_a_signature_in_another_form_is_refused(preset: Preset, headers: dict[str, str]) -> None:
    content = {Stripe: b"1614265330." + BODY, Slack: b"v0:1614265330:" + BODY}.get(type(preset), BODY)
    digest = hmac.new(SECRET.encode(), content, sha256).hexdigest()

    assert not is_genuine(preset, {name: value.replace("{}", digest) for name, value in headers.items()})


def test_the_known_vectors_of_the_senders() -> None:
    # From GitHub's "Validating webhook deliveries" and Slack's "Verifying requests from Slack".
    github = {
        "x-hub-signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    }
    assert is_genuine(GitHub(), github, body=b"Hello, World!", secrets=["It's a Secret to Everybody"])
    slack = {
        "x-slack-request-timestamp": "1531420618",
        "x-slack-signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
    }
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F"
        b"96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    assert is_genuine(Slack(), slack, body=body, secrets=["8f742231b10e8888abcd99yyyzzz85a5"], now=1531420618)
    form = {"content-type": "application/x-www-form-urlencoded"}
    assert Slack().identify(form, Slack().parse(body, form)) == ("", "/webhook-collect")


def test_a_public_key_verifies_a_sender_of_v1a() -> None:
    private = new_private_key()
    headers = signed(StandardWebhooks(), secret=private)

    assert is_genuine(StandardWebhooks(), headers, secrets=[public_key(private)])
    assert not is_genuine(StandardWebhooks(), headers)


@pytest.mark.parametrize(
    ("name", "headers", "data", "expected"),
    [
        ("standard", {"webhook-id": "msg_1"}, {"type": "a.b"}, ("msg_1", "a.b")),
        ("stripe", {}, {"id": "evt_1", "type": "invoice.paid"}, ("evt_1", "invoice.paid")),
        ("stripe", {}, {"id": True, "type": "invoice.paid"}, ("", "invoice.paid")),
        ("github", {"x-github-delivery": "d", "x-github-event": "push"}, {}, ("d", "push")),
        ("github", {"x-github-event": "issues"}, {"action": "opened"}, ("", "issues.opened")),
        (
            "shopify",
            {"x-shopify-webhook-id": "w", "x-shopify-topic": "orders/create"},
            {},
            ("w", "orders/create"),
        ),
        ("slack", {}, {"event_id": "Ev1", "event": {"type": "message"}}, ("Ev1", "message")),
        ("simple", {"x-event-id": "7", "x-topic": "a.b"}, {}, ("7", "a.b")),
        ("simple", {}, {"id": 7, "topic": "a.b"}, ("7", "a.b")),
    ],
)
def test_where_each_sender_says_what_it_is(
    name: str, headers: dict[str, str], data: Any, expected: tuple[str, str]
) -> None:
    assert PRESETS[name]().identify(headers, data) == expected


@every_preset
@pytest.mark.parametrize(
    "data", [None, [], 7, "x", {"id": None, "type": [], "event": 7, "action": {}}, {"id": True}]
)
def test_a_body_of_another_shape_has_no_id(preset: Preset, data: Any) -> None:
    assert preset.identify({"webhook-id": "x"}, data)[1] == ""


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a": NaN}'])
@every_preset
def test_a_body_that_is_no_json_is_unreadable(preset: Preset, body: bytes) -> None:
    with pytest.raises(UnreadableWebhook):
        preset.parse(body, {})


def test_github_and_slack_send_forms_too() -> None:
    form = {"content-type": "application/x-www-form-urlencoded"}

    assert GitHub().parse(b"payload=%7B%22action%22%3A%22opened%22%7D", form) == {"action": "opened"}
    assert Slack().parse(b"payload=%7B%22type%22%3A%22block_actions%22%7D", form) == {"type": "block_actions"}
    assert Slack().parse(b"command=%2Fdo&text=", form) == {"command": "/do", "text": ""}
    for bad in (b"\xff", b"&".join([b"a=1"] * 2000)):
        with pytest.raises(UnreadableWebhook):
            Slack().parse(bad, form)


def test_what_a_column_cannot_keep_is_replaced_and_the_rest_cut() -> None:
    assert storable("a\x00b\ud800cd", length=5) == "a\ufffdb\ufffdc"
