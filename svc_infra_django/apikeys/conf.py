"""Settings of the apikeys app."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from ..config.sections import Section, section_settings


class ApikeysSettings(Section):
    section: ClassVar[str] = "apikeys"

    brand: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{1,15}$")] = "svc"
    """What every new key begins with, so that its holder and secret scanners know whose it is."""

    environment: Literal["live", "test"] = "live"
    """Which keys this installation issues and accepts; a test key never opens a live one."""

    max_lifetime: Annotated[timedelta, Field(gt=timedelta(0))] | None = None
    """No key may end later than this after its birth; None allows keys without an end."""

    rotation_grace: Annotated[timedelta, Field(ge=timedelta(0))] = timedelta(hours=24)
    """How long a rotated key goes on working, if the caller does not say."""

    max_rotation_grace: Annotated[timedelta, Field(ge=timedelta(0))] = timedelta(days=7)
    """The longest grace a caller may ask for; more is cut down to it."""

    last_used_interval: Annotated[timedelta, Field(gt=timedelta(0))] = timedelta(minutes=1)
    """`last_used_at` of a key is written no more often than this."""


settings = section_settings(ApikeysSettings)
