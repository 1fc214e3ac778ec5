"""Receiving webhooks: verified, kept once, and handled in one transaction with what your handler writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._exports import lazy

if TYPE_CHECKING:
    from .decorators import signed_by as signed_by
    from .decorators import webhook_receiver as webhook_receiver
    from .presets import Preset as Preset
    from .presets import Received as Received
    from .services.replaying import replay as replay

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Preset": ".presets",
        "Received": ".presets",
        "replay": ".services.replaying",
        "signed_by": ".decorators",
        "webhook_receiver": ".decorators",
    },
)
