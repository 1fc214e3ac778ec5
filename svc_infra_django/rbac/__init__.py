"""Who may: roles with permissions, granted to users, answered through Django's `has_perm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._exports import lazy

if TYPE_CHECKING:
    from .services.explaining import explain as explain
    from .services.granting import agrant as agrant
    from .services.granting import awithdraw as awithdraw
    from .services.granting import grant as grant
    from .services.granting import sync_declared_roles as sync_declared_roles
    from .services.granting import withdraw as withdraw

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "agrant": ".services.granting",
        "awithdraw": ".services.granting",
        "explain": ".services.explaining",
        "grant": ".services.granting",
        "sync_declared_roles": ".services.granting",
        "withdraw": ".services.granting",
    },
)
