"""What of the project's settings would leave the operator blind, or a stranger seeing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Tags, Warning, register

from .conf import settings

MIDDLEWARE = "svc_infra_django.observability.middleware.RequestContextMiddleware"


@register("svc_infra")
def check_middleware(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W001: the request context is not the outermost middleware."""
    if next(iter(django_settings.MIDDLEWARE), None) != MIDDLEWARE:
        yield Warning(
            "RequestContextMiddleware is not first in MIDDLEWARE: requests that others answer have no id and no log line.",
            hint=f'Make "{MIDDLEWARE}" the first entry.',
            id="svc_observability.W001",
        )


@register(Tags.security, deploy=True)
def check_metrics_token(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W002: anybody may read the metrics."""
    if settings.metrics_token is None:
        yield Warning(
            "/metrics is open to everybody.",
            hint='Set SVC_INFRA["observability"]["metrics_token"] to a Secret, or keep the path off the internet.',
            id="svc_observability.W002",
        )
