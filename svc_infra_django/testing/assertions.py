"""What tests say often, with messages that show what came instead."""

from __future__ import annotations

import json
from typing import Any

from django.http import HttpResponse


def assert_problem(
    response: HttpResponse,
    status: int,
    *,
    code: str | None = None,
    pointer: str | None = None,
    **members: object,
) -> dict[str, Any]:
    """The response is a problem (RFC 9457) of this status; returns its body.

    `code` is the problem's code, `pointer` the JSON Pointer of one of its fields (RFC 6901), and
    `members` are further members of the body, such as `permission="orders.add_order"`.
    """
    shown = response.content.decode(errors="replace")[:1000]
    assert response.status_code == status, f"expected {status}, got {response.status_code}: {shown}"
    kind = response.headers.get("Content-Type", "")
    assert kind.startswith("application/problem+json"), f"not a problem but {kind or 'nothing'}: {shown}"
    body: dict[str, Any] = json.loads(response.content)
    assert body["status"] == status, f"the body says another status: {shown}"
    if code is not None:
        assert body.get("code") == code, f"expected code {code!r}: {shown}"
    if pointer is not None:
        pointers = [error["pointer"] for error in body.get("errors", ())]
        assert pointer in pointers, f"no field {pointer!r} among {pointers}"
    for name, value in members.items():
        assert body.get(name) == value, f"expected {name}={value!r}: {shown}"
    return body
