"""What the demo says when it is up: where to look, who to be, what to paste."""

from __future__ import annotations

import json

from .credentials import ADMIN, CLERK, PASSWORD

FROM_ANSWER = "python3 -c 'import json, sys; print(json.load(sys.stdin)[\"access_token\"])'"
CURL = r"curl -sw '\n'"
AS_JSON = "-H 'Content-Type: application/json'"
AS_CLERK = '-H "Authorization: Bearer $TOKEN"'


def banner(url: str) -> str:
    return f"""
The demo runs at {url}    (Ctrl-C stops it)

  Admin        {url}/admin/       {ADMIN.name} / {PASSWORD}
  API docs     {url}/api/docs
  Health       {url}/readyz
  Metrics      {url}/metrics
  Received     {url}/demo/webhooks/inbox     what a receiver of our webhooks heard

Paste these into another terminal:

{chr(10).join(curl_lines(url))}
"""


def curl_lines(url: str) -> list[str]:
    """A login, an order, and what came of it."""
    login = json.dumps({"email": CLERK.email, "password": PASSWORD})
    order = json.dumps(
        {"customer_email": "grace@example.com", "item": "Teapot", "quantity": 2, "unit_price": "19.50"}
    )
    return [
        f"{CURL} {url}/api/auth/login {AS_JSON} -d '{login}'",
        f"TOKEN=$({CURL} {url}/api/auth/login {AS_JSON} -d '{login}' | {FROM_ANSWER})",
        f"{CURL} {url}/api/auth/me {AS_CLERK}",
        f"{CURL} {url}/api/orders {AS_CLERK} {AS_JSON} -d '{order}'",
        f"{CURL} {url}/api/orders {AS_CLERK}",
        f"sleep 1; {CURL} {url}/demo/webhooks/inbox",
    ]
