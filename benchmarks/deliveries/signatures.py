"""`python -m benchmarks.deliveries.signatures WHAT` prints the microseconds of one signature of 1 KiB.

WHAT is `sign` or `verify` of ours, or `bare`: what the mathematics alone cost, HMAC-SHA256 and base64.
"""

from __future__ import annotations

import sys
import timeit
from base64 import b64decode, b64encode
from hmac import digest

from svc_infra_django.webhooks import sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = b64decode(SECRET.removeprefix("whsec_"))
BODY = b"b" * 1024
ID, NOW = "msg_01a2061013fa7124b70b78de1984892e", 1614265330
HEADERS = {
    "webhook-id": ID,
    "webhook-timestamp": str(NOW),
    "webhook-signature": sign(BODY, message_id=ID, timestamp=NOW, keys=[KEY]),
}
CALLS = 20_000


def bare() -> str:
    return b64encode(digest(KEY, b"%b.%d.%b" % (ID.encode(), NOW, BODY), "sha256")).decode()


WAYS = {
    "sign": lambda: sign(BODY, message_id=ID, timestamp=NOW, keys=[KEY]),
    "verify": lambda: verify(BODY, HEADERS, SECRET, now=NOW),
    "bare": bare,
}

if __name__ == "__main__":
    assert HEADERS["webhook-signature"] == f"v1,{bare()}"
    print(min(timeit.repeat(WAYS[sys.argv[1]], number=CALLS, repeat=5)) / CALLS * 1e6)
