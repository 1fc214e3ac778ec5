"""People: how they sign in, what proves it afterwards, and how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._exports import lazy

if TYPE_CHECKING:
    from .services.checking_tokens import acheck_access_token as acheck_access_token
    from .services.checking_tokens import check_access_token as check_access_token
    from .services.issuing_tokens import Client as Client
    from .services.issuing_tokens import Tokens as Tokens
    from .services.issuing_tokens import aissue_tokens as aissue_tokens
    from .services.issuing_tokens import issue_tokens as issue_tokens

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Client": ".services.issuing_tokens",
        "Tokens": ".services.issuing_tokens",
        "acheck_access_token": ".services.checking_tokens",
        "aissue_tokens": ".services.issuing_tokens",
        "check_access_token": ".services.checking_tokens",
        "issue_tokens": ".services.issuing_tokens",
    },
)
