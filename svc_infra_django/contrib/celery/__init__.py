"""For projects whose jobs run in Celery: the request id goes along."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._exports import lazy

if TYPE_CHECKING:
    from .propagation import propagate_context as propagate_context

__getattr__, __dir__, __all__ = lazy(__name__, {"propagate_context": ".propagation"})
