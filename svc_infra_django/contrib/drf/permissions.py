"""Guards of REST framework's views that ask the `Principal`, so that a key's scopes count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from ...api.authentication import nobody
from ...api.guards import DelegationRefused
from ...errors import ConfigurationError, PermissionDeniedError
from ...principals import Principal


class NoRequiredPermission(ConfigurationError):
    """A view with HasPermission must say what it needs in `required_permission`."""

    code = "drf.no_required_permission"


class HasPermission(BasePermission):
    """Lets a principal in who has the view's `required_permission`.

    The attribute is `"app_label.codename"` for every method, or a dict of method to permission, where
    HEAD follows GET and a method that is missing is refused; OPTIONS needs a caller only. A view
    without the attribute is refused with an error, not let through.
    """

    def has_permission(self, request: Request, view: Any) -> bool:
        """Raises AuthenticationError, or PermissionDeniedError that names the permission."""
        return self._may(request, view)

    def has_object_permission(self, request: Request, view: Any, obj: Any) -> bool:
        """As for the view; refuses also rows of another tenant and what is denied for this one."""
        return self._may(request, view, obj)

    def _may(self, request: Request, view: Any, obj: Any = None) -> bool:
        required = getattr(view, "required_permission", None)
        if required is None:
            raise NoRequiredPermission()
        principal = caller(request)
        if request.method == "OPTIONS":
            return True
        if isinstance(required, Mapping):
            method = "GET" if request.method == "HEAD" else request.method
            required = required.get(method)
        if required is None:
            raise PermissionDeniedError()
        if not principal.can(required, obj):
            raise PermissionDeniedError(f"You need the permission {required}.", permission=required)
        return True


class NotDelegated(BasePermission):
    """Lets only the user in person in, not an API key that acts for them."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Raises AuthenticationError or DelegationRefused."""
        if caller(request).is_delegated:
            raise DelegationRefused()
        return True


def caller(request: Request) -> Principal:
    """The principal of `PrincipalAuthentication`. Raises AuthenticationError if there is none."""
    if not isinstance(request.auth, Principal):
        raise nobody()
    return request.auth
