"""Settings of the apikeys app."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, StringConstraints

from ..config.secrets import Secret
from ..config.sections import Section, section_settings
from .limits import parsed_quota, parsed_rate


def _rate(text: str) -> str:
    parsed_rate(text)
    return text


def _quota(text: str) -> str:
    parsed_quota(text)
    return text


class ApikeysSettings(Section):
    section: ClassVar[str] = "apikeys"

    brand: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]{1,15}$")] = "svc"
    """What every new key begins with, so that its holder and secret scanners know whose it is."""

    environment: Literal["live", "test"] = "live"
    """Which keys this installation issues and accepts; a test key never opens a live one."""

    test_keys: bool = False
    """Whether a live installation issues and accepts test keys too. They act in a tenant of their own, and
    only on operations that declare them."""

    peppers: tuple[Secret, ...] = ()
    """Secrets under which keys are digested: the first for new keys, all for old ones, then those made
    from SECRET_KEY and its fallbacks. Empty: SECRET_KEY alone."""

    cache_seconds: Annotated[int, Field(ge=0, le=60)] = 1
    """How long a key that was read is believed in the shared cache, and again as long in each process: a
    change is seen everywhere within twice this time. 0 asks the database at every call."""

    max_lifetime: Annotated[timedelta, Field(gt=timedelta(0))] | None = None
    """No key may end later than this after its birth; None allows keys without an end."""

    rotation_grace: Annotated[timedelta, Field(ge=timedelta(0))] = timedelta(hours=24)
    """How long a rotated key goes on working, if the caller does not say."""

    max_rotation_grace: Annotated[timedelta, Field(ge=timedelta(0))] = timedelta(days=7)
    """The longest grace a caller may ask for; more is cut down to it."""

    default_rate: Annotated[str, AfterValidator(_rate)] = ""
    """The rate of keys that have none of their own, such as `600/minute`; empty for no limit."""

    default_quota: Annotated[str, AfterValidator(_quota)] = ""
    """The quota of keys that have none of their own, such as `10000/month`; empty for no limit."""

    max_keys_per_owner: Annotated[int, Field(ge=1)] = 100
    """How many usable keys somebody may make for one owner in a tenant, without the right to change all."""

    scopes_required: bool = False
    """Whether every new key must name what it may. Without scopes a key may all that its owner may, also what
    they are given later, such as when they become staff."""

    step_up_seconds: Annotated[int, Field(ge=1)] | None = None
    """How lately people must have proved who they are (`POST auth/step-up`) to make, rotate or change a key
    by the API, so that a stolen session makes no key that outlives it; None asks for nothing."""

    usage_flush_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """How often each process writes down when and how often keys were used and refused."""

    usage_days: Annotated[int, Field(ge=1)] = 90
    """How long the hourly numbers of each key are kept."""

    audit_days: Annotated[int, Field(ge=1)] = 400
    """How long the audit log of keys is kept."""


settings = section_settings(ApikeysSettings)


def environments() -> tuple[str, ...]:
    """Of which environments keys are issued and accepted, the usual one first."""
    is_both = settings.test_keys and settings.environment == "live"
    return ("live", "test") if is_both else (settings.environment,)
