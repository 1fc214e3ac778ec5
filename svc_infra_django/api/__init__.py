"""The HTTP toolkit: one API object, who is calling, what goes wrong, and pages of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._exports import lazy

if TYPE_CHECKING:
    from .authentication import ApiRequest as ApiRequest
    from .authentication import Authenticator as Authenticator
    from .authentication import SessionAuthenticator as SessionAuthenticator
    from .authentication import WithTestKeys as WithTestKeys
    from .authentication import aget_current_user as aget_current_user
    from .authentication import get_current_user as get_current_user
    from .factory import create_api as create_api
    from .factory import mount_installed_apps as mount_installed_apps
    from .guards import not_delegated as not_delegated
    from .guards import requires as requires
    from .guards import requires_step_up as requires_step_up
    from .pagination import PageQuery as PageQuery
    from .pagination import apaginated as apaginated
    from .pagination import paginated as paginated
    from .schemas import Moment as Moment
    from .schemas import Page as Page
    from .schemas import Problem as Problem
    from .schemas import Schema as Schema
    from .schemas import Text as Text

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "ApiRequest": ".authentication",
        "Authenticator": ".authentication",
        "Moment": ".schemas",
        "Page": ".schemas",
        "PageQuery": ".pagination",
        "Problem": ".schemas",
        "Schema": ".schemas",
        "SessionAuthenticator": ".authentication",
        "Text": ".schemas",
        "WithTestKeys": ".authentication",
        "aget_current_user": ".authentication",
        "apaginated": ".pagination",
        "create_api": ".factory",
        "get_current_user": ".authentication",
        "mount_installed_apps": ".factory",
        "not_delegated": ".guards",
        "paginated": ".pagination",
        "requires": ".guards",
        "requires_step_up": ".guards",
    },
)
