"""Values kept for a while: decorated functions, tags that forget them, two layers of memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._exports import lazy

if TYPE_CHECKING:
    from .backends import cache as cache
    from .decorators import cached as cached
    from .tags import ainvalidate as ainvalidate
    from .tags import invalidate as invalidate

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "ainvalidate": ".tags",
        "cache": ".backends",
        "cached": ".decorators",
        "invalidate": ".tags",
    },
)
