"""What the cache refuses."""

from __future__ import annotations

from ..errors import ConfigurationError, UnavailableError


class CacheUnavailable(UnavailableError):
    """The cache does not answer, and this cannot be done without it; try again."""

    code = "cache.unavailable"


class UncacheableArgument(ConfigurationError):
    """An argument has no canonical text, so it cannot be part of a cache key; give `key=`."""

    code = "cache.uncacheable_argument"


class UncacheableResult(ConfigurationError):
    """A result cannot be written as JSON and read again; annotate the function's return type."""

    code = "cache.uncacheable_result"
