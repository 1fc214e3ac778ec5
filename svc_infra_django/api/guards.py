"""Who may call an operation: decorators below the router's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest
from ninja.operation import Operation
from ninja.signature.utils import get_typed_signature
from ninja.utils import contribute_operation_callback

from ..errors import AuthenticationError, PermissionDeniedError
from ..principals import Principal

ViewT = TypeVar("ViewT", bound=Callable[..., Any])


class DelegationRefused(PermissionDeniedError):
    """An API key may not do this; sign in as yourself."""

    code = "delegation_refused"


def requires(permission: str, *, delegated: bool = True) -> Callable[[ViewT], ViewT]:
    """Let only principals with `permission` (`app_label.codename`) call the operation.

    With `delegated=False`, API keys are refused whatever they may. Raises PermissionDeniedError that
    names the permission. Write it below the router's decorator.
    """

    def check(principal: Principal) -> None:
        if not delegated:
            _refuse_delegated(principal)
        if not principal.can(permission):
            raise PermissionDeniedError(_refusal(principal, permission), permission=permission)

    return _guard(
        check, f"Needs the permission `{permission}`." + ("" if delegated else " Not with an API key.")
    )


def not_delegated(view: ViewT) -> ViewT:
    """Refuse API keys: only the user in person may call the operation. Raises DelegationRefused."""
    return _guard(_refuse_delegated, "Not with an API key.")(view)


def _refuse_delegated(principal: Principal) -> None:
    if principal.is_delegated:
        raise DelegationRefused()


def _refusal(principal: Principal, permission: str) -> str:
    if principal.scopes is not None and replace(principal, scopes=None).can(permission):
        return f"You may, but this key may not: it lacks the scope {permission}."
    return f"You need the permission {permission}."


def _guard(check: Callable[[Principal], None], note: str) -> Callable[[ViewT], ViewT]:
    def decorate(view: Any) -> Any:
        if iscoroutinefunction(view):

            @wraps(view)
            async def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                await sync_to_async(check)(_principal(request))
                return await view(request, *args, **kwargs)

        else:

            @wraps(view)
            def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
                check(_principal(request))
                return view(request, *args, **kwargs)

        # Ninja evaluates annotations in the module of the function it is given, which is this one.
        guarded.__signature__ = get_typed_signature(view)  # type: ignore[attr-defined]
        contribute_operation_callback(guarded, _describe(note))
        return guarded

    return decorate


def _describe(note: str) -> Callable[[Operation], None]:
    def describe(operation: Operation) -> None:
        operation.description = "\n\n".join(filter(None, (operation.description, note)))

    return describe


def _principal(request: HttpRequest) -> Principal:
    principal = getattr(request, "principal", None)
    if principal is None:
        raise AuthenticationError()
    return principal  # type: ignore[no-any-return]
