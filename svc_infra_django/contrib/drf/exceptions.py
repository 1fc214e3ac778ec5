"""Errors of REST framework's views as problem+json (RFC 9457)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from django.http import HttpResponse
from rest_framework import exceptions, views

from ...api.authentication import challenges
from ...api.errors import (
    MethodNotAllowed,
    PlainStatus,
    UnreadableBody,
    UnsupportedMediaType,
    field_problem,
    problem,
)
from ...errors import (
    AuthenticationError,
    FieldProblem,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    SvcInfraError,
    ValidationError,
)


def problem_handler(error: Exception, context: dict[str, Any]) -> HttpResponse:
    """For `REST_FRAMEWORK["EXCEPTION_HANDLER"]`: every error of a view in the suite's one shape.

    What nobody foresaw is logged, shows no detail and undoes the request's transaction as usual.
    """
    views.set_rollback()
    known = _of_framework(error) if isinstance(error, exceptions.APIException) else error
    return problem(context["request"]._request, known)


def _of_framework(error: exceptions.APIException) -> SvcInfraError:
    match error:
        case exceptions.ValidationError():
            return ValidationError(errors=list(_fields(error.detail, ("body",))))
        case exceptions.ParseError():
            return UnreadableBody()
        case exceptions.NotAuthenticated() | exceptions.AuthenticationFailed():
            return AuthenticationError(str(error.detail), headers={"WWW-Authenticate": challenges()})
        case exceptions.PermissionDenied():
            return PermissionDeniedError(str(error.detail))
        case exceptions.NotFound():
            return NotFoundError()
        case exceptions.MethodNotAllowed():
            return MethodNotAllowed()
        case exceptions.UnsupportedMediaType():
            return UnsupportedMediaType()
        case exceptions.Throttled():
            return RateLimitedError(retry_after=math.ceil(error.wait or 1))
    return PlainStatus(error.status_code, str(error.detail))


def _fields(detail: Any, at: tuple[object, ...]) -> Iterator[FieldProblem]:
    if isinstance(detail, dict):
        for name, inner in detail.items():
            yield from _fields(inner, at if name == views.api_settings.NON_FIELD_ERRORS_KEY else (*at, name))
    elif isinstance(detail, list):
        for number, inner in enumerate(detail):
            # A list of messages belongs to the field, a list of dicts to its items.
            yield from _fields(inner, (*at, number) if isinstance(inner, (dict, list)) else at)
    else:
        yield field_problem(at, str(getattr(detail, "code", None) or "invalid"), str(detail))
