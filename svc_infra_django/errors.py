"""Every kind of error that a caller may see.

Services raise them, `svc_infra_django.api.errors` turns them into problem+json (RFC 9457), and
nothing in between looks at HTTP. An app narrows a kind by subclassing it; the docstring of the
subclass is the message the caller reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import getdoc
from typing import Any, ClassVar, Self


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One field that is wrong: where it is (JSON Pointer, RFC 6901), what kind of wrong, and why."""

    pointer: str
    code: str
    message: str


class SvcInfraError(Exception):
    """Something went wrong on our side."""

    code: ClassVar[str] = "internal_error"
    """Stable and machine-readable: `<app>.<what>`, or the bare kind."""

    status: ClassVar[int] = 500
    """The HTTP status that this kind becomes."""

    keeps_writes: ClassVar[bool] = False
    """Whether ATOMIC_REQUESTS must not undo what was written before: a counted attempt, an ended session."""

    def __init__(
        self,
        message: str | None = None,
        *,
        errors: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        kind: Any = type(self)
        self.message = message or _said_by(kind)
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.extra = extra
        super().__init__(self.message)

    def __str__(self) -> str:
        """With what is wrong with each field: who reads a traceback sees nothing else of them."""
        return " ".join((self.message, *(problem.message for problem in self.errors)))

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception would pickle by calling __init__ again, and subclasses have arguments of their own.
        return _revived, (type(self), self.__dict__)


@cache
def _said_by(cls: Any) -> str:
    return " ".join((getdoc(cls) or cls.code).split())


def _revived(cls: type[SvcInfraError], state: dict[str, Any]) -> SvcInfraError:
    error = cls.__new__(cls, state["message"])
    error.__dict__.update(state)
    return error


class NotFoundError(SvcInfraError):
    """There is no such thing here."""

    code = "not_found"
    status = 404

    def __init__(self, kind: str | None = None, identifier: object = None, **options: Any) -> None:
        message = None
        if kind is not None:
            message = f"{kind} not found." if identifier is None else f"{kind} {identifier} not found."
        super().__init__(message, **options)


class ValidationError(SvcInfraError):
    """The request is not well formed; `errors` names the fields."""

    code = "validation_error"
    status = 422

    @classmethod
    def at(cls, pointer: str, message: str, *, code: str = "invalid") -> Self:
        """A refusal of a single field; `pointer` is a JSON Pointer such as `/body/url`."""
        return cls(errors=[FieldProblem(pointer, code, message)])


class ConflictError(SvcInfraError):
    """The request does not fit the present state of the thing it names."""

    code = "conflict"
    status = 409


class AuthenticationError(SvcInfraError):
    """Sign in first: there is no valid credential in this request."""

    code = "not_authenticated"
    status = 401

    def __init__(self, message: str | None = None, **options: Any) -> None:
        super().__init__(message, **options)
        self.headers.setdefault("WWW-Authenticate", "Bearer")


class PermissionDeniedError(SvcInfraError):
    """You may not do this."""

    code = "permission_denied"
    status = 403


class RateLimitedError(SvcInfraError):
    """Too many requests; wait as long as Retry-After says."""

    code = "rate_limited"
    status = 429

    def __init__(self, message: str | None = None, *, retry_after: int, **options: Any) -> None:
        super().__init__(message, **options)
        self.headers.setdefault("Retry-After", str(retry_after))


class UnavailableError(SvcInfraError):
    """A part that this request needs is not available; try again."""

    code = "unavailable"
    status = 503


class ConfigurationError(SvcInfraError):
    """The project's settings do not allow this."""

    code = "misconfigured"
    status = 500
