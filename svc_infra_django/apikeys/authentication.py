"""The `X-API-Key` header."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from django.http import HttpRequest
from django.views.decorators.debug import sensitive_variables

from ..api import Authenticator
from ..observability.middleware import client_address
from ..principals import LazyUser, Principal
from .errors import CHALLENGE
from .services.verifying import recognise

HEADER = "X-API-Key"
IN_META = "HTTP_X_API_KEY"


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

    @sensitive_variables()
    def authenticate(self, request: HttpRequest) -> Principal | None:
        """Raises InvalidKey, AddressNotAllowed, RateExceeded and QuotaExceeded."""
        text = request.META.get(IN_META)
        if text is None:
            return None
        known = recognise(text, address=partial(client_address, request))
        owner = LazyUser(known.user_id, known.owner)
        return Principal(owner, "api_key", known.id_text, known.tenant, known.scopes)
