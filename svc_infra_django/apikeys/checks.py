"""What of the project's settings would make keys weaker than they look."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Tags, Warning

from ..config.checks import register
from ..config.environment import Environment
from ..config.secrets import SecretUnreadable
from ..config.sections import BadSettings
from .conf import settings

LEAST_PEPPER = 50
LEAST_OWN_PEPPER = 32


@register("svc_infra")
def check_grace(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W001: the usual grace is longer than the longest."""
    try:
        usual, longest = settings.rotation_grace, settings.max_rotation_grace
    except BadSettings:
        return  # svc_config.E002 says what is wrong
    if usual > longest:
        yield Warning(
            f'SVC_INFRA["apikeys"]: max_rotation_grace cuts rotation_grace {usual} down to {longest}.',
            hint="Raise the one or lower the other. See docs/reference/apikeys.md.",
            id="svc_apikeys.W001",
        )


@register(Tags.security, deploy=True)
def check_pepper(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W002: the pepper of the keys' digests comes from a SECRET_KEY that can be guessed."""
    secret = str(django_settings.SECRET_KEY)
    if len(secret) < LEAST_PEPPER or secret.startswith("django-insecure-"):
        yield Warning(
            "The digests of API keys are peppered with a key made from SECRET_KEY, and that is weak.",
            hint=f"Use a random SECRET_KEY of {LEAST_PEPPER} characters or more, and move the old one to "
            "SECRET_KEY_FALLBACKS: the keys that are out stay good. See docs/reference/apikeys.md.",
            id="svc_apikeys.W002",
        )


@register(Tags.security, deploy=True)
def check_own_peppers(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W004: a pepper of the settings can be guessed, or not be read."""
    try:
        peppers = settings.peppers
    except BadSettings:
        return
    for pepper in peppers:
        try:
            is_weak = len(pepper.reveal()) < LEAST_OWN_PEPPER
        except SecretUnreadable:
            is_weak = True
        if is_weak:
            yield Warning(
                f"{pepper.reference}, a pepper of API keys, is missing or shorter than "
                f"{LEAST_OWN_PEPPER} characters.",
                hint="Put a random one before it in SVC_INFRA['apikeys']['peppers']: the keys that are out "
                "stay good. See docs/reference/apikeys.md.",
                id="svc_apikeys.W004",
            )


@register(Tags.security, deploy=True)
def check_environment(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W003: a production installation that issues test keys."""
    try:
        environment = settings.environment
    except BadSettings:
        return
    if environment == "test" and Environment.detect().is_production:
        yield Warning(
            "This is production, and it issues and accepts test keys.",
            hint='Set SVC_INFRA["apikeys"]["environment"] to "live".',
            id="svc_apikeys.W003",
        )
