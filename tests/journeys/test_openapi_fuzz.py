"""Somebody sends every operation of the OpenAPI document whatever it allows, and what it does not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
import schemathesis
from django.conf import settings as django_settings
from django.db import transaction
from django.test import Client
from django.test.client import ClientHandler
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

pytestmark = pytest.mark.django_db

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
CALLERS = ("nobody", "somebody", "everybody")
EXAMPLES = 6


def application(environ: Any, start_response: Any) -> list[bytes]:
    """The project as a WSGI application that leaves the test's database connection open."""
    response = HANDLER(environ)
    cookies = [("Set-Cookie", cookie.output(header="").strip()) for cookie in response.cookies.values()]
    start_response(f"{response.status_code} {response.reason_phrase}", [*response.headers.items(), *cookies])
    return [response.content]


HANDLER = ClientHandler(enforce_csrf_checks=True)
DOCUMENT = schemathesis.openapi.from_wsgi("/api/openapi.json", application)
OPERATIONS = [result.ok() for result in DOCUMENT.get_all_operations()]
LABELS = [operation.label for operation in OPERATIONS]


@pytest.fixture
def credentials(make_user: Callable[..., Any]) -> Callable[[str], dict[str, dict[str, str]]]:
    """Headers and cookies of a caller: nobody, somebody without permissions, or a superuser."""

    def made(caller: str) -> dict[str, dict[str, str]]:
        if caller == "nobody":
            return {"headers": {}, "cookies": {}}
        user = make_user("caller", is_superuser=caller == "everybody", is_staff=caller == "everybody")
        client = Client()
        client.force_login(user)
        token = "a" * 32
        return {
            "headers": {"X-CSRFToken": token},
            "cookies": {
                django_settings.SESSION_COOKIE_NAME: client.cookies[django_settings.SESSION_COOKIE_NAME].value,
                django_settings.CSRF_COOKIE_NAME: token,
            },
        }

    return made


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=LABELS)
def test_no_input_breaks_an_operation(operation: Any, caller: str, credentials: Any) -> None:
    known = credentials(caller)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    def allowed(case: Any) -> None:
        with undone():
            case.call_and_validate(checks=CHECKS, **known)

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))
    def refused(case: Any) -> None:
        with undone():
            case.call_and_validate(checks=CHECKS, **known)

    allowed()
    if takes_input(operation):
        refused()


def takes_input(operation: Any) -> bool:
    return bool(list(operation.iter_parameters()) or list(operation.body))


class undone:
    """What the block writes is taken back."""

    def __enter__(self) -> None:
        self._atomic = transaction.atomic()
        self._atomic.__enter__()

    def __exit__(self, *error: Any) -> None:
        transaction.set_rollback(True)
        self._atomic.__exit__(*error)
