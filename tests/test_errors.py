from __future__ import annotations

import copy
import pickle

import pytest

from svc_infra_django import errors
from svc_infra_django.errors import (
    AuthenticationError,
    ConflictError,
    FieldProblem,
    NotFoundError,
    RateLimitedError,
    SvcInfraError,
    ValidationError,
)


class KeyAlreadyRevoked(ConflictError):
    """This key was revoked already;
    issue a new one.
    """

    code = "apikeys.already_revoked"


class Silent(ConflictError):
    code = "tests.silent"


def test_the_docstring_is_the_message() -> None:
    assert str(KeyAlreadyRevoked()) == "This key was revoked already; issue a new one."


def test_a_message_of_the_raiser_wins() -> None:
    assert KeyAlreadyRevoked("Gone since Monday.").message == "Gone since Monday."


def test_without_a_docstring_the_kind_speaks() -> None:
    assert Silent().message == "The request does not fit the present state of the thing it names."


def test_a_field_is_named_by_its_pointer() -> None:
    error = ValidationError.at("/body/url", "Only https.", code="scheme")

    assert error.errors == (FieldProblem("/body/url", "scheme", "Only https."),)
    assert str(error) == "The request is not well formed; `errors` names the fields. Only https."
    assert error.status == 422


def test_what_is_not_found_is_named() -> None:
    assert str(NotFoundError("Order", 7)) == "Order 7 not found."
    assert str(NotFoundError("Order")) == "Order not found."
    assert str(NotFoundError()) == "There is no such thing here."


def test_headers_that_a_status_must_have_are_there() -> None:
    assert AuthenticationError().headers == {"WWW-Authenticate": "Bearer"}
    assert RateLimitedError(retry_after=7).headers == {"Retry-After": "7"}
    assert AuthenticationError(headers={"WWW-Authenticate": "ApiKey"}).headers == {
        "WWW-Authenticate": "ApiKey"
    }


@pytest.mark.parametrize(
    "error",
    [
        KeyAlreadyRevoked(key="k1"),
        NotFoundError("Order", 7),
        RateLimitedError(retry_after=9, scope="login"),
        ValidationError.at("/body", "no"),
    ],
)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy])  # noqa: S301 our own bytes
def test_an_error_survives_the_way_to_another_process(error: SvcInfraError, again) -> None:
    other = again(error)

    assert type(other) is type(error)
    assert str(other) == str(error)
    assert vars(other) == vars(error)


def test_every_kind_has_a_status_a_code_and_a_message() -> None:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SvcInfraError)
    ]

    assert {kind.status for kind in kinds} == {401, 403, 404, 409, 422, 429, 500, 503}
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(kind.__doc__ for kind in kinds)
