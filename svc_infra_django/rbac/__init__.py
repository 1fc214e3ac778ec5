"""Who may: roles with permissions, granted to users, answered through Django's `has_perm`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._exports import lazy

if TYPE_CHECKING:
    from .services.checking import acheck as acheck
    from .services.checking import check as check
    from .services.checking import list_objects as list_objects
    from .services.defining import change_role as change_role
    from .services.defining import define_role as define_role
    from .services.defining import sync_declared_roles as sync_declared_roles
    from .services.explaining import explain as explain
    from .services.granting import agrant as agrant
    from .services.granting import awithdraw as awithdraw
    from .services.granting import grant as grant
    from .services.granting import withdraw as withdraw
    from .services.remembering import rights_of as rights_of

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "acheck": ".services.checking",
        "agrant": ".services.granting",
        "awithdraw": ".services.granting",
        "change_role": ".services.defining",
        "check": ".services.checking",
        "define_role": ".services.defining",
        "explain": ".services.explaining",
        "grant": ".services.granting",
        "list_objects": ".services.checking",
        "rights_of": ".services.remembering",
        "sync_declared_roles": ".services.defining",
        "withdraw": ".services.granting",
    },
)
