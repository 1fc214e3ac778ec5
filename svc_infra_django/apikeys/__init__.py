"""API keys: credentials for programs that act for a user, within scopes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._exports import lazy

if TYPE_CHECKING:
    from .services.issuing import achange_key as achange_key
    from .services.issuing import aissue_key as aissue_key
    from .services.issuing import arevoke_key as arevoke_key
    from .services.issuing import arotate_key as arotate_key
    from .services.issuing import change_key as change_key
    from .services.issuing import issue_key as issue_key
    from .services.issuing import revoke_key as revoke_key
    from .services.issuing import rotate_key as rotate_key
    from .services.verifying import averify_key as averify_key
    from .services.verifying import verify_key as verify_key

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "achange_key": ".services.issuing",
        "aissue_key": ".services.issuing",
        "arevoke_key": ".services.issuing",
        "arotate_key": ".services.issuing",
        "averify_key": ".services.verifying",
        "change_key": ".services.issuing",
        "issue_key": ".services.issuing",
        "revoke_key": ".services.issuing",
        "rotate_key": ".services.issuing",
        "verify_key": ".services.verifying",
    },
)
