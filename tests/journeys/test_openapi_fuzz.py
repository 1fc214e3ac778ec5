"""Somebody sends every operation of the OpenAPI document whatever it allows, and what it does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
import schemathesis
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.test import Client
from django.test.client import ClientHandler
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.example_project.inside import run_inside

pytestmark = pytest.mark.django_db

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
# Examples for each caller: whom authentication stops, one stops as well as many.
EXAMPLES = {"nobody": 1, "somebody": 3, "everybody": 5}
EXAMPLES_IN_PUBLIC = 3
# Once is enough: whom the guards stop comes to no database, and who passes asks it what everybody asks.
ON_SQLITE_ALONE = {"nobody", "somebody"}
CALLERS = [
    pytest.param(name, marks=[pytest.mark.sqlite] if name in ON_SQLITE_ALONE else []) for name in EXAMPLES
]


def application(environ: Any, start_response: Any) -> list[bytes]:
    """The project as a WSGI application that leaves the test's database connection open."""
    response = HANDLER(environ)
    cookies = [("Set-Cookie", cookie.output(header="").strip()) for cookie in response.cookies.values()]
    start_response(f"{response.status_code} {response.reason_phrase}", [*response.headers.items(), *cookies])
    return [response.content]


HANDLER = ClientHandler(enforce_csrf_checks=True)
# Credentials are ours to give: made-up ones would only ever show that nobody is let in.
CONFIG = SchemathesisConfig.from_dict({"generation": {"with-security-parameters": False}})
DOCUMENT = schemathesis.openapi.from_wsgi("/api/openapi.json", application, config=CONFIG)
OPERATIONS = [result.ok() for result in DOCUMENT.get_all_operations()]
RAW: Any = DOCUMENT.raw_schema
LABELS = [operation.label for operation in OPERATIONS]


@dataclass
class Caller:
    """Who calls: what they send with every request, and the ids of their own rows by path parameter."""

    headers: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)
    rows: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def callers(django_db_setup: None, django_db_blocker: Any) -> Iterator[dict[str, Caller]]:
    """Nobody, somebody without permissions, and everybody: a superuser. The latter two own a few rows."""
    with django_db_blocker.unblock(), undone():
        yield {"nobody": Caller(), "somebody": signed_in("somebody"), "everybody": signed_in("everybody")}


def signed_in(name: str) -> Caller:
    user = get_user_model().objects.create_user(
        username=name,
        email=f"{name}@example.com",
        is_superuser=name == "everybody",
        is_staff=name == "everybody",
    )
    client = Client()
    client.force_login(user)
    token = "a" * 32
    session = client.cookies[django_settings.SESSION_COOKIE_NAME].value
    return Caller(
        headers={"X-CSRFToken": token},
        cookies={django_settings.SESSION_COOKIE_NAME: session, django_settings.CSRF_COOKIE_NAME: token},
        rows=rows_of(client, user),
    )


def rows_of(client: Client, user: Any) -> dict[str, str]:
    """Make one row of each kind that this caller may make."""
    made: dict[str, str] = {"name": "default"}
    for parameter, path, body in (
        ("key_id", "api-keys", {"name": "fuzz"}),
        ("role_id", "rbac/roles", {"name": "fuzz", "permissions": ["auth.view_group"]}),
        ("assignment_id", "rbac/assignments", {"user": str(user.pk), "role": "{role_id}"}),
        ("endpoint_id", "webhooks/endpoints", {"url": "https://hooks.example.com/in", "event_types": ["*"]}),
        ("message_id", "webhooks/messages", {"event_type": "order.placed", "data": {}}),
    ):
        text = json.dumps(body).replace("{role_id}", made.get("role_id", ""))
        response = client.post(f"/api/{path}", text, content_type="application/json")
        if response.status_code == 201:
            answer = response.json()
            # What shows a secret once has the row beside it.
            made[parameter] = answer.get("id") or next(iter(answer.values()))["id"]
    for delivery in client.get("/api/webhooks/deliveries").json().get("items", ()):
        made["delivery_id"] = str(delivery["id"])
    return made


def test_everybody_owns_rows_to_be_fuzzed(callers: Any) -> None:
    if django_settings.ROOT_URLCONF == "tests.urls":
        expected = {"key_id", "role_id", "assignment_id", "endpoint_id", "message_id", "delivery_id"}
        assert expected <= callers["everybody"].rows.keys()


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=LABELS)
def test_what_the_document_says_breaks_nothing(operation: Any, caller: str, callers: Any) -> None:
    known = callers[caller]

    examples = EXAMPLES[caller] if not is_public(operation) else EXAMPLES_IN_PUBLIC
    own = {name: known.rows[name] for name in path_names(operation) if name in known.rows}
    call_with(operation.as_strategy(generation_mode=GenerationMode.POSITIVE), known, examples, own)
    if can_be_wrong(operation):
        call_with(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE), known, examples)


def call_with(cases: Any, known: Caller, examples: int, path: dict[str, str] | None = None) -> None:
    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases)
    def call(case: Any) -> None:
        case.path_parameters = {**(case.path_parameters or {}), **(path or {})}
        with undone():
            case.call_and_validate(checks=CHECKS, headers=known.headers, cookies=known.cookies)

    call()


NASTY_BODIES = {
    "nothing": b"",
    "null": b"null",
    "a list": b"[]",
    "text": b'"text"',
    "broken": b'{"a":',
    "not utf-8": b'{"a": "\xff"}',
    "a lone surrogate": b'{"a": "\\ud800"}',
    "not a number": b'{"a": NaN}',
    "10000 deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "10000 lists deep": b"[" * 10_000 + b"]" * 10_000,
    "unknown fields": b'{"no_such_field": 1, "and/another~": {}}',
    "3 MB": b'{"a": "' + b"x" * 3_000_000 + b'"}',
}
NASTY_VALUES = {
    "1 MB": "x" * 1_000_000,
    "NUL": "a\x00b",
    "a number too large": 10**30,
    "a negative number": -(10**18),
    "an object": {"a": [1]},
    "a long list": ["x"] * 5_000,
    "nothing": None,
    "true": True,
    "right to left": "\u202e\u0000",
}


@pytest.mark.parametrize("caller", CALLERS[1:])
@pytest.mark.parametrize("operation", OPERATIONS, ids=LABELS)
def test_nasty_input_is_refused_by_every_operation(operation: Any, caller: str, callers: Any) -> None:
    send = sender(operation, callers[caller])

    for name in path_names(operation):
        for value in ("a%00b", "%ED%A0%80", "%FF", "-1", "9" * 40, "x" * 1_000_000, "..%2f", "%20"):
            expect_refusal(send(path={name: value}), operation, f"{name} = {value[:20]}")
    for name in [parameter.name for parameter in operation.query]:
        for value in ("a%00b", "x" * 1_000_000):
            expect_refusal(send(query=f"{name}={value}"), operation, f"?{name}={value[:20]}")
    if not list(operation.body):
        return
    for what, body in NASTY_BODIES.items():
        expect_refusal(send(body=body), operation, what)
    for content_type in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
    ):
        expect_refusal(send(body=b"{}", content_type=content_type), operation, content_type)
    for name in fields(operation):
        for what, value in NASTY_VALUES.items():
            response = send(body=json.dumps({**valid(operation), name: value}).encode())
            # Some fields take some of these; none of them may break on one.
            assert response.status_code < 500, f"{operation.label}: {name} = {what}: {response.content!r}"
            if what in ("1 MB", "NUL"):
                expect_refusal(response, operation, f"{name} = {what}")
    expect_refusal(
        send(body=json.dumps({**valid(operation), "no_such_field": 1}).encode()), operation, "unknown"
    )


def expect_refusal(response: Any, operation: Any, what: str) -> None:
    assert 400 <= response.status_code < 500, f"{operation.label}: {what}: {response.status_code}"
    assert response["Content-Type"] == "application/problem+json", f"{operation.label}: {what}"
    body = response.json()
    assert {"type", "title", "status", "detail", "code", "request_id"} <= body.keys()
    assert body["status"] == response.status_code
    if response.status_code == 422:
        assert body["errors"], f"{operation.label}: {what}: no pointer in {body}"


def path_names(operation: Any) -> list[str]:
    return [parameter.name for parameter in operation.path_parameters]


def sender(operation: Any, known: Caller) -> Callable[..., Any]:
    client = Client(raise_request_exception=False)
    client.cookies.load(known.cookies)

    def send(
        *,
        path: dict[str, str] | None = None,
        query: str = "",
        body: bytes = b"",
        content_type: str = "application/json",
    ) -> Any:
        nowhere = dict.fromkeys(path_names(operation), str(UUID(int=7)))
        filled = nowhere | known.rows | (path or {})
        target = operation.path.format(**filled) + (f"?{query}" if query else "")
        with undone():
            return client.generic(
                operation.method.upper(),
                target,
                data=body,
                content_type=content_type,
                headers=known.headers,
            )

    return send


def schema_of(operation: Any) -> dict[str, Any]:
    """The object that the operation takes, references resolved one level deep."""
    found: dict[str, Any] = next(
        iter(RAW["paths"][operation.path][operation.method]["requestBody"]["content"].values())
    )["schema"]
    if "$ref" in found:
        found = RAW["components"]["schemas"][found["$ref"].rpartition("/")[2]]
    return found


def fields(operation: Any) -> list[str]:
    return list(schema_of(operation).get("properties", {}))


def valid(operation: Any) -> dict[str, Any]:
    """A body with something of the right type in each required field."""
    schema = schema_of(operation)
    simple = {
        "string": "text@example.com",
        "integer": 1,
        "number": 1,
        "boolean": True,
        "array": [],
        "object": {},
    }
    return {
        name: simple.get(schema["properties"][name].get("type", ""), "x")
        for name in schema.get("required", ())
    }


def can_be_wrong(operation: Any) -> bool:
    """Whether some input does not fit: not so where all it takes is a name that may be any text."""
    described = RAW["paths"][operation.path][operation.method]
    anything = {"type", "title", "description"}
    schemas = [parameter["schema"] for parameter in described["parameters"]]
    return "requestBody" in described or any(
        schema.get("type") != "string" or schema.keys() - anything for schema in schemas
    )


def is_public(operation: Any) -> bool:
    return "security" not in RAW["paths"][operation.path][operation.method]


@contextmanager
def undone() -> Iterator[None]:
    """What the block writes is taken back."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


@pytest.mark.sqlite
def test_the_example_project_holds_too() -> None:
    run_inside(__file__, "/orders and everybody")
