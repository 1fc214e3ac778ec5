"""Celery: the suite's jobs run in its workers, and the request id goes along with its tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..._exports import lazy

if TYPE_CHECKING:
    from .engine import run_jobs as run_jobs
    from .propagation import propagate_context as propagate_context

__getattr__, __dir__, __all__ = lazy(__name__, {"propagate_context": ".propagation", "run_jobs": ".engine"})
