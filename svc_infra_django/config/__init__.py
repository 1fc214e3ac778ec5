"""Settings as typed sections, environments and secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._exports import lazy

if TYPE_CHECKING:
    from .environment import Environment as Environment
    from .secrets import Secret as Secret
    from .sections import Section as Section
    from .sections import section_settings as section_settings

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Environment": ".environment",
        "Secret": ".secrets",
        "Section": ".sections",
        "section_settings": ".sections",
    },
)
