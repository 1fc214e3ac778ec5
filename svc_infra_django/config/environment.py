"""Which environment this process runs in: a closed set, where a typo is an error."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum

from ..errors import ConfigurationError


class UnknownEnvironment(ConfigurationError):
    """SVC_ENVIRONMENT must be one of local, test, staging or production."""

    code = "config.unknown_environment"


class Environment(StrEnum):
    """Where we are. Unset means production: whoever wants less safety has to ask for it."""

    LOCAL = "local"
    TEST = "test"
    STAGING = "staging"
    PRODUCTION = "production"

    @classmethod
    def detect(cls, environ: Mapping[str, str] = os.environ) -> Environment:
        """Read SVC_ENVIRONMENT. Raises UnknownEnvironment for a name outside the set."""
        name = environ.get("SVC_ENVIRONMENT", cls.PRODUCTION).strip().lower()
        try:
            return cls(name)
        except ValueError:
            raise UnknownEnvironment(
                f"SVC_ENVIRONMENT is {name!r}; it must be one of {', '.join(cls)}."
            ) from None

    @property
    def is_production(self) -> bool:
        return self is Environment.PRODUCTION

    @property
    def is_test(self) -> bool:
        return self is Environment.TEST

    @property
    def is_local(self) -> bool:
        return self is Environment.LOCAL
