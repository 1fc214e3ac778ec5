"""For projects with Django REST framework: the same callers, permissions and problems as the suite's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._exports import lazy

if TYPE_CHECKING:
    from .authentication import PrincipalAuthentication as PrincipalAuthentication
    from .exceptions import problem_handler as problem_handler
    from .permissions import HasPermission as HasPermission
    from .permissions import NotDelegated as NotDelegated

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "HasPermission": ".permissions",
        "NotDelegated": ".permissions",
        "PrincipalAuthentication": ".authentication",
        "problem_handler": ".exceptions",
    },
)
