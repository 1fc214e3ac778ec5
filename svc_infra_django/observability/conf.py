"""Settings of the observability app."""

from __future__ import annotations

from typing import ClassVar

from pydantic import IPvAnyNetwork, NonNegativeFloat, PositiveFloat, PositiveInt

from ..config.secrets import Secret
from ..config.sections import Section, section_settings


class ObservabilitySettings(Section):
    section: ClassVar[str] = "observability"

    access_log: bool = True
    """Write one line for each finished request."""

    quiet_paths: tuple[str, ...] = ("/healthz", "/readyz", "/startupz", "/metrics")
    """Paths whose successful requests are not logged. Probes at these paths answer under any Host header."""

    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Networks whose X-Forwarded-For is believed; from anybody else the header is ignored."""

    metrics_token: Secret | None = None
    """If set, `/metrics` wants it as a bearer token."""

    metrics_label_limit: PositiveInt = 1000
    """Label sets a metric may have; whatever comes after is counted under the label `other`."""

    health_timeout_seconds: PositiveFloat = 2.0
    """How long the health checks, which run side by side, may take before they count as failed."""

    health_cache_seconds: NonNegativeFloat = 1.0
    """How long a readiness answer is reused, so that a storm of probes is no storm on the database."""


settings = section_settings(ObservabilitySettings)
