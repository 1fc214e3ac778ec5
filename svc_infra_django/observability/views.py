"""Probes and metrics, for machines."""

from __future__ import annotations

from hmac import compare_digest
from typing import cast

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django_prometheus.exports import ExportToDjangoView

from .conf import settings
from .health import run_all


@require_safe
@never_cache
def healthz(request: HttpRequest) -> HttpResponse:
    """Liveness: this process answers. It asks nothing else, so a dead database does not get it killed."""
    return JsonResponse({"status": "ok"})


@require_safe
@never_cache
def readyz(request: HttpRequest) -> HttpResponse:
    """Readiness: every health check passes; 503 with the names of those that do not."""
    findings = run_all()
    is_ready = all(finding.is_ok for finding in findings)
    checks = {
        finding.name: {"status": "ok" if finding.is_ok else "failing", "duration_ms": finding.duration_ms}
        for finding in findings
    }
    return JsonResponse(
        {"status": "ok" if is_ready else "failing", "checks": checks}, status=200 if is_ready else 503
    )


@require_safe
@never_cache
def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus text, of all processes when PROMETHEUS_MULTIPROC_DIR is set."""
    if settings.metrics_token is not None:
        scheme, _, offered = request.headers.get("Authorization", "").partition(" ")
        expected = settings.metrics_token.reveal()
        if scheme.lower() != "bearer" or not compare_digest(offered.encode(), expected.encode()):
            # A problem by hand: this floor knows no API.
            problem = {
                "type": "about:blank",
                "title": "Unauthorized",
                "status": 401,
                "code": "not_authenticated",
            }
            return JsonResponse(
                problem,
                status=401,
                content_type="application/problem+json",
                headers={"WWW-Authenticate": "Bearer"},
            )
    return cast(HttpResponse, ExportToDjangoView(request))


PROBES = frozenset({healthz, readyz})
"""Views that answer before anything else of the project has a say."""
