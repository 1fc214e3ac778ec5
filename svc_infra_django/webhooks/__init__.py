"""Telling the world what happened: published in your transaction, delivered signed, retried, replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._exports import lazy

if TYPE_CHECKING:
    from .services.publishing import Publication as Publication
    from .services.publishing import apublish as apublish
    from .services.publishing import apublish_many as apublish_many
    from .services.publishing import publish as publish
    from .services.publishing import publish_many as publish_many
    from .services.replaying import replay as replay
    from .services.subscribing import create_endpoint as create_endpoint
    from .signing import new_private_key as new_private_key
    from .signing import new_secret as new_secret
    from .signing import public_key as public_key
    from .signing import sign as sign
    from .signing import verify as verify
    from .signing import verify_webhook_signature as verify_webhook_signature

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "Publication": ".services.publishing",
        "apublish": ".services.publishing",
        "apublish_many": ".services.publishing",
        "create_endpoint": ".services.subscribing",
        "new_private_key": ".signing",
        "new_secret": ".signing",
        "public_key": ".signing",
        "publish": ".services.publishing",
        "publish_many": ".services.publishing",
        "replay": ".services.replaying",
        "sign": ".signing",
        "verify": ".signing",
        "verify_webhook_signature": ".signing",
    },
)
