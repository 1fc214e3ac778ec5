"""What of the project's settings would refuse every webhook, or let anybody send them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.checks import CheckMessage, Error, Tags

from ...config.checks import register
from ...config.secrets import SecretUnreadable
from ...config.sections import BadSettings
from .conf import settings
from .errors import UnknownSource
from .handlers import preset_named

HINT = "See docs/reference/inbound.md."


@register("svc_infra")
def check_presets(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E001: a source signs in a way that nobody knows."""
    for name, source in _sources().items():
        try:
            preset_named(source.preset)
        except UnknownSource as error:
            yield Error(
                f'SVC_INFRA["inbound"]["sources"][{name!r}]: {error.message}',
                hint=f"Name one of the presets, or the dotted path of a subclass of Preset. {HINT}",
                id="svc_inbound.E001",
            )


@register(Tags.security, deploy=True)
def check_secrets(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E002: a source has a secret that cannot be read."""
    for name, source in _sources().items():
        for secret in source.secrets:
            try:
                secret.reveal()
            except SecretUnreadable as error:
                yield Error(
                    f'SVC_INFRA["inbound"]["sources"][{name!r}]: {error.message}',
                    hint="Put the secret that the sender gave you there.",
                    id="svc_inbound.E002",
                )


def _sources() -> dict[str, Any]:
    try:
        return dict(settings.sources)
    except BadSettings:
        return {}  # svc_config.E002 says what is wrong
