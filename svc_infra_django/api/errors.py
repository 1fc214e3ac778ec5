"""Every error becomes one thing: a problem (RFC 9457) as application/problem+json."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from http import HTTPStatus
from typing import Any

import orjson
from django.core import exceptions as django_errors
from django.core.signals import got_request_exception
from django.db import DataError, IntegrityError, OperationalError, connections
from django.db.utils import DatabaseError
from django.http import Http404, HttpRequest, HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.http.request import RawPostDataException
from django.urls import NoReverseMatch, get_resolver, reverse
from django.views import defaults
from ninja import errors as ninja_errors

from ..errors import (
    AuthenticationError,
    ConflictError,
    FieldProblem,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    SvcInfraError,
    UnavailableError,
    ValidationError,
)
from ..observability.context import request_id
from ..observability.logging import get_logger
from .conf import settings

CONTENT_TYPE = "application/problem+json"
ERRORS_SHOWN = 50
SEGMENT_LENGTH = 100
MESSAGE_LENGTH = 500

# SQLSTATE (PostgreSQL, appendix A) and SQLite's extended result codes.
CONFLICTS = frozenset({"23505", "23503", "23P01", 2067, 1555, 2579, 787})
TRANSIENT_CLASSES = ("08", "40", "53", "55", "57")
SQLITE_BUSY = frozenset({5, 6})

logger = get_logger("svc_infra_django.api")


class BadRequest(SvcInfraError):
    """The request cannot be understood."""

    code = "bad_request"
    status = 400


class UnreadableBody(BadRequest):
    """The body is not valid JSON."""

    code = "unreadable_body"


class AmbiguousCredentials(BadRequest):
    """Send one Authorization header, with one credential in it."""

    code = "ambiguous_credentials"


class MethodNotAllowed(SvcInfraError):
    """This path exists, but not for this method; see the Allow header."""

    code = "method_not_allowed"
    status = 405


class BodyTooLarge(SvcInfraError):
    """The body is larger than this server takes."""

    code = "body_too_large"
    status = 413


class UrlTooLong(SvcInfraError):
    """The path or the query is longer than this server takes."""

    code = "url_too_long"
    status = 414


class UnsupportedMediaType(SvcInfraError):
    """Send JSON, with `Content-Type: application/json`."""

    code = "unsupported_media_type"
    status = 415


class OutOfRange(ValidationError):
    """A value is too long, or outside the range that can be kept."""

    code = "out_of_range"


class CsrfFailed(PermissionDeniedError):
    """A session needs a CSRF token for this: send the csrftoken cookie's value as X-CSRFToken."""

    code = "csrf_failed"


class PlainStatus(SvcInfraError):
    """An error of which only the HTTP status is known, answered and logged by somebody else."""

    def __init__(self, status: int, message: str | None = None, **options: Any) -> None:
        self.status = status  # type: ignore[misc]  # a class attribute elsewhere; here each has its own
        self.code = _code(status)  # type: ignore[misc]  # as above
        super().__init__(message or f"{_title(status)}.", **options)


def problem(request: HttpRequest, error: BaseException) -> HttpResponse:
    """The response for `error`, whatever it is. What nobody foresaw is logged and shows no detail."""
    known = understood(error)
    if known.status == 403:
        request.refusal = known  # type: ignore[attr-defined]  # for the middleware, which tells of it
    hidden = known.status >= 500 and known.status != 503
    if known.status >= 500:
        _report(request, error)
    elif isinstance(error, (DataError, RecursionError)):
        # The caller's doing as a rule, and a mistake of ours else.
        logger.warning("request refused", exc_info=error, code=known.code, path=request.path)
    body: dict[str, Any] = {
        **({} if hidden else known.extra),
        "type": f"{settings.problem_type_base}{known.code}" if settings.problem_type_base else "about:blank",
        "title": _title(known.status),
        "status": known.status,
        "detail": SvcInfraError().message if hidden else known.message[:MESSAGE_LENGTH],
        "code": known.code,
        "request_id": request_id(),
    }
    if known.errors:
        body["errors"] = [
            {"pointer": field.pointer, "code": field.code, "message": field.message}
            for field in known.errors[:ERRORS_SHOWN]
        ]
    return HttpResponse(
        orjson.dumps(body, default=str, option=orjson.OPT_NON_STR_KEYS),
        status=known.status,
        content_type=CONTENT_TYPE,
        headers={**known.headers, "Cache-Control": "no-store"},
    )


def _report(request: HttpRequest, error: BaseException) -> None:
    if isinstance(error, PlainStatus):  # whoever answered first has reported it
        return
    if isinstance(error, UnavailableError):
        logger.warning("request refused", code=error.code, detail=error.message, path=request.path)
        return
    logger.error("request failed", exc_info=error, path=request.path, method=request.method)
    got_request_exception.send(sender=None, request=request)


def understood(error: BaseException) -> SvcInfraError:
    """`error` as one of the suite's errors; a plain SvcInfraError (500) if it is none that we know."""
    match error:
        case SvcInfraError():
            return error
        case ninja_errors.HttpError():
            return _http_error(error)
        case Http404():
            return NotFoundError()
        case django_errors.PermissionDenied():
            return PermissionDeniedError()
        case django_errors.RequestDataTooBig():
            return BodyTooLarge()
        case RawPostDataException():
            return UnsupportedMediaType()
        case (
            django_errors.SuspiciousOperation()
            | django_errors.BadRequest()
            | MultiPartParserError()
            | UnreadablePostError()
        ):
            return BadRequest()
        case django_errors.ValidationError():
            return ValidationError(errors=list(_model_problems(error)))
        case RecursionError():
            return UnreadableBody("The body is nested too deeply.")
        case DatabaseError():
            return _database_error(error)
        case _:
            return SvcInfraError()


def field_problem(location: Iterable[object], code: str, message: str) -> FieldProblem:
    """A FieldProblem from a path of names and indexes; long names are cut, `~` and `/` escaped (RFC 6901)."""
    parts = (str(part)[:SEGMENT_LENGTH].replace("~", "~0").replace("/", "~1") for part in location)
    return FieldProblem("".join(f"/{part}" for part in parts), code, message[:MESSAGE_LENGTH])


def roll_back_request() -> None:
    """Undo what this request wrote under ATOMIC_REQUESTS, although its error was answered."""
    for connection in connections.all(initialized_only=True):
        if connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block:
            connection.set_rollback(True)


def handler400(request: HttpRequest, exception: Exception) -> HttpResponse:
    """For `handler400` of the project's URLconf."""
    return problem(request, exception) if wants_problem(request) else defaults.bad_request(request, exception)


def handler403(request: HttpRequest, exception: Exception) -> HttpResponse:
    """For `handler403` of the project's URLconf."""
    return (
        problem(request, exception)
        if wants_problem(request)
        else defaults.permission_denied(request, exception)
    )


def handler404(request: HttpRequest, exception: Exception) -> HttpResponse:
    """For `handler404` of the project's URLconf."""
    return (
        problem(request, exception) if wants_problem(request) else defaults.page_not_found(request, exception)
    )


def handler500(request: HttpRequest) -> HttpResponse:
    """For `handler500` of the project's URLconf. Django has logged the error already."""
    return problem(request, PlainStatus(500)) if wants_problem(request) else defaults.server_error(request)


def wants_problem(request: HttpRequest) -> bool:
    """Whether the caller reads problem+json: everybody under an API, elsewhere who prefers JSON to HTML."""
    if under_api(request):
        return True
    preferred = request.get_preferred_type(["text/html", CONTENT_TYPE, "application/json"])
    return preferred in (CONTENT_TYPE, "application/json")


def under_api(request: HttpRequest) -> bool:
    """Whether the path belongs to a mounted API, even if nothing there matches it."""
    match = request.resolver_match
    return (
        "ninja" in match.app_names if match else any(request.path.startswith(root) for root in _api_roots())
    )


def _api_roots() -> Iterable[str]:
    for namespace in get_resolver().app_dict.get("ninja", ()):
        with suppress(NoReverseMatch):  # a prefix with parameters has no single root
            yield reverse(f"{namespace}:api-root")


def _http_error(error: ninja_errors.HttpError) -> SvcInfraError:
    if isinstance(error.__cause__, SvcInfraError):
        return error.__cause__
    match error:
        case ninja_errors.Throttled():
            return RateLimitedError(retry_after=math.ceil(error.wait or 1))
        case ninja_errors.AuthenticationError():
            return AuthenticationError()
        case ninja_errors.AuthorizationError():
            return PermissionDeniedError()
    return PlainStatus(error.status_code, error.message)


def _model_problems(error: django_errors.ValidationError) -> Iterable[FieldProblem]:
    by_field = error.error_dict if hasattr(error, "error_dict") else {None: error.error_list}
    for name, problems in by_field.items():
        location = ("body",) if name in (None, django_errors.NON_FIELD_ERRORS) else ("body", name)
        for each in problems:
            yield field_problem(location, each.code or "invalid", " ".join(each.messages))


def _database_error(error: DatabaseError) -> SvcInfraError:
    # By code, never by text: messages differ between servers and languages.
    cause = error.__cause__
    code = getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorcode", None)
    match error:
        case IntegrityError() if code in CONFLICTS:
            return ConflictError()
        case DataError():
            return OutOfRange()
        case OperationalError() if _is_transient(code):
            return UnavailableError(headers={"Retry-After": "1"})
    return SvcInfraError()


def _is_transient(code: object) -> bool:
    if isinstance(code, int):
        return code & 0xFF in SQLITE_BUSY
    # psycopg has no code for a server that cannot be reached.
    return code is None or str(code).startswith(TRANSIENT_CLASSES)


@cache
def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _code(status: int) -> str:
    return _title(status).lower().replace("'", "").replace(" ", "_").replace("-", "_")
