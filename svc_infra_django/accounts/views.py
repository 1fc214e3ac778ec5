"""Pages that are no part of the API."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe

from .services.keeping_keys import PUBLISHED_SECONDS, key_ring


@require_safe
def jwks(request: HttpRequest) -> HttpResponse:
    """The public keys that verify our access tokens (RFC 7517), for services that do it themselves."""
    response = JsonResponse(key_ring().jwks, content_type="application/jwk-set+json")
    response["Cache-Control"] = f"public, max-age={PUBLISHED_SECONDS}"
    return response
