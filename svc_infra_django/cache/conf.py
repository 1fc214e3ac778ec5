"""Settings of the cache app."""

from __future__ import annotations

from typing import ClassVar

from ..config.sections import Section, section_settings


class CacheSettings(Section):
    section: ClassVar[str] = "cache"

    alias: str = "default"
    """The alias in CACHES that `cache`, `@cached` and `invalidate` use."""

    flight_seconds: float = 10.0
    """How long a call waits for another that computes the same value, before it computes it itself."""

    pause_seconds: float = 1.0
    """How long a cache that failed is left alone before it is asked again."""


settings = section_settings(CacheSettings)
