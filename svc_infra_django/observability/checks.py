"""What of the project's settings would leave the operator blind, or a stranger seeing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Tags, Warning

from ..config.checks import register
from .conf import settings

MIDDLEWARE = "svc_infra_django.observability.middleware.RequestContextMiddleware"


@register("svc_infra")
def check_middleware(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W001: the request context is not the outermost middleware."""
    if next(iter(django_settings.MIDDLEWARE), None) != MIDDLEWARE:
        yield Warning(
            "RequestContextMiddleware is not first: what other middlewares answer has no id and no line.",
            hint=f'Make "{MIDDLEWARE}" the first entry.',
            id="svc_observability.W001",
        )


@register(Tags.security, deploy=True)
def check_metrics_token(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W002: anybody may read the metrics."""
    if settings.metrics_token is None:
        yield Warning(
            "/metrics is open to everybody.",
            hint='Set SVC_INFRA["observability"]["metrics_token"] to a Secret, or keep strangers away.',
            id="svc_observability.W002",
        )


@register(Tags.security, deploy=True)
def check_trusted_proxies(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """W003: everybody may say which address they come from."""
    if any(network.prefixlen == 0 for network in settings.trusted_proxies):
        yield Warning(
            "trusted_proxies holds a network of all addresses: any caller can forge theirs.",
            hint='List only your proxies in SVC_INFRA["observability"]["trusted_proxies"].',
            id="svc_observability.W003",
        )


@register("svc_infra")
def check_multiprocess_directory(app_configs: Any, **_: Any) -> Iterable[CheckMessage]:
    """E001: the processes have no place to share their metrics."""
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if directory and not Path(directory).is_dir():
        yield Error(
            "PROMETHEUS_MULTIPROC_DIR is not a directory.",
            hint=f"mkdir -p {directory}, and empty it before each start.",
            id="svc_observability.E001",
        )
