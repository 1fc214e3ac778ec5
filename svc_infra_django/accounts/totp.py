"""Time-based one-time passwords (RFC 6238): which step a code belongs to."""

from __future__ import annotations

import hmac
import re
from base64 import b32encode
from datetime import datetime
from secrets import randbelow
from urllib.parse import quote, urlencode

import segno
from django_otp.oath import hotp

PERIOD = 30
DIGITS = 6
KEY_BYTES = 20
MAILED_CODE = re.compile(r"[0-9]{8}")
CODE = re.compile(r"[0-9]{6}")


def step_at(moment: datetime) -> int:
    """The number of the time step that `moment` falls into."""
    return int(moment.timestamp()) // PERIOD


def code_of(key: bytes, step: int) -> str:
    """The six digits of a step (RFC 4226, section 5)."""
    return f"{hotp(key, step, DIGITS):0{DIGITS}}"


def new_mailed_code() -> str:
    """Eight random digits: a mailed code is guessed at for minutes, not for one step."""
    return f"{randbelow(10**8):08}"


def matching_step(key: bytes, code: str, *, step: int, after: int, window: int = 1) -> int | None:
    """The step, at most `window` away from `step` and later than `after`, that `code` is the code of."""
    if not CODE.fullmatch(code):
        return None
    found = None
    for candidate in range(step - window, step + window + 1):
        if hmac.compare_digest(code_of(key, candidate), code) and candidate > after:
            found = candidate
    return found


def enrolment_url(key: bytes, *, issuer: str, account: str) -> str:
    """An `otpauth://` URL for an authenticator app's QR code."""
    label = f"{issuer.replace(':', '')}:{account}"
    query = urlencode(
        {"secret": shown(key), "issuer": issuer, "digits": DIGITS, "period": PERIOD}, quote_via=quote
    )
    return f"otpauth://totp/{quote(label)}?{query}"


def qr_svg(url: str) -> str:
    """The URL as a QR code, for a page to show as it is: one `<svg>` element without scripts or styles."""
    return str(segno.make_qr(url, error="m").svg_inline(scale=4, light="#fff", omitsize=False))


def shown(key: bytes) -> str:
    """The key as people type it: base 32 (RFC 4648)."""
    return b32encode(key).decode()
