"""What the service says about itself: logs, metrics, traces and health."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._exports import lazy

if TYPE_CHECKING:
    from . import metrics as metrics
    from .health import HealthCheck as HealthCheck
    from .logging import logger as logger
    from .logging import logging_config as logging_config
    from .tracing import span as span

__getattr__, __dir__, __all__ = lazy(
    __name__,
    {
        "HealthCheck": ".health",
        "logger": ".logging",
        "logging_config": ".logging",
        "metrics": ".metrics",
        "span": ".tracing",
    },
)
