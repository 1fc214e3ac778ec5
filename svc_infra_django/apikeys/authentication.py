"""The `X-API-Key` header."""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from ..api import Authenticator
from ..principals import Principal
from .errors import CHALLENGE
from .services.verifying import verify_key

HEADER = "X-API-Key"


class ApiKeyHeader(Authenticator):
    """A key in the header acts for its owner, in the key's tenant and within its scopes."""

    name = "api_key"
    scheme: ClassVar[dict[str, Any]] = {
        "type": "apiKey",
        "in": "header",
        "name": HEADER,
        "description": "A key from `POST /api-keys` or from the admin.",
    }
    challenge = CHALLENGE

    @sensitive_variables("text")
    def authenticate(self, request: HttpRequest) -> Principal | None:
        """Raises InvalidKey for a key that is not accepted, whatever the reason."""
        text = request.headers.get(HEADER)
        if text is None:
            return None
        key = verify_key(text)
        return Principal(
            key.owner,
            method="api_key",
            credential_id=str(key.pk),
            tenant=key.tenant,
            scopes=key.granted_scopes,
        )
