"""Who may call an operation: decorators below the router's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import wraps
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import HttpRequest
from django.utils import timezone
from ninja.operation import Operation
from ninja.signature.utils import get_typed_signature
from ninja.utils import contribute_operation_callback

from ..errors import AuthenticationError, PermissionDeniedError
from ..principals import Principal

ViewT = TypeVar("ViewT", bound=Callable[..., Any])


class DelegationRefused(PermissionDeniedError):
    """An API key may not do this; sign in as yourself."""

    code = "delegation_refused"


class TenantRefused(PermissionDeniedError):
    """This concerns every tenant, and your credential is bound to one."""

    code = "tenant_refused"


def requires(
    permission: str, *, delegated: bool = True, everywhere: bool = False
) -> Callable[[ViewT], ViewT]:
    """Let only principals with `permission` (`app_label.codename`) call the operation.

    With `delegated=False`, API keys are refused whatever they may. With `everywhere=True`, for what all
    tenants share, so are credentials of a tenant: what they may, they may there. Raises
    PermissionDeniedError that names the permission, DelegationRefused or TenantRefused. Write it below the
    router's decorator.
    """

    def check(principal: Principal) -> None:
        if not delegated:
            _refuse_delegated(principal)
        if everywhere and principal.tenant:
            raise TenantRefused()
        if not principal.can(permission):
            raise PermissionDeniedError(_refusal(principal, permission), permission=permission)

    note = f"Needs the permission `{permission}`."
    note += " Not with a credential of a tenant." if everywhere else ""
    return _guard(check, note + ("" if delegated else " Not with an API key."))


def not_delegated(view: ViewT) -> ViewT:
    """Refuse API keys: only the user in person may call the operation. Raises DelegationRefused."""
    return _guard(_refuse_delegated, "Not with an API key.")(view)


class StepUpRequired(AuthenticationError):
    """Prove anew who you are: `max_age` says how lately, `acr_values` how well."""

    code = "step_up_required"

    def __init__(self, *, max_age: int, acr: str | None) -> None:
        # RFC 9470, section 3
        challenge = f'Bearer error="insufficient_user_authentication", max_age="{max_age}"'
        if acr is not None:
            challenge += f', acr_values="{acr}"'
        super().__init__(headers={"WWW-Authenticate": challenge}, max_age=max_age, acr_values=acr)


def requires_step_up(*, max_age: int = 600, acr: str | None = None) -> Callable[[ViewT], ViewT]:
    """Let only somebody call the operation who proved who they are at most `max_age` seconds ago.

    With `acr="mfa"` they must have done so by two factors. Raises StepUpRequired, a 401 by RFC 9470;
    API keys are refused, for they prove nobody. Write it below the router's decorator. Raises ValueError
    for an `acr` that nobody can reach.
    """
    if acr not in (None, "sfa", "mfa"):
        raise ValueError(f'acr is "mfa" or "sfa", not {acr!r}.')

    def check(principal: Principal) -> None:
        demand_step_up(principal, max_age=max_age, acr=acr)

    factors = "two factors" if acr == "mfa" else "a factor"
    return _guard(check, f"Needs {factors} proved within {max_age} seconds (RFC 9470). Not with an API key.")


def demand_step_up(principal: Principal, *, max_age: int, acr: str | None = None) -> None:
    """Raise what `requires_step_up` raises, where a setting decides whether it is wanted."""
    _refuse_delegated(principal)
    age = None if principal.auth_time is None else timezone.now() - principal.auth_time
    is_fresh = age is not None and age <= timedelta(seconds=max_age)
    if not is_fresh or (acr == "mfa" and principal.acr != "mfa"):
        raise StepUpRequired(max_age=max_age, acr=acr)


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
