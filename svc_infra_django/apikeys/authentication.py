"""The `X-API-Key` header."""

from __future__ import annotations

from functools import partial
from time import time
from typing import Any, ClassVar

from django.http import HttpRequest

from ..api import Authenticator
from ..observability.middleware import client_address
from ..principals import LazyUser, Principal
from .errors import CHALLENGE
from .services.remembering import name_of, nearby
from .services.verifying import admit, look_up

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

    def authenticate(self, request: HttpRequest) -> Principal | None:
        """Raises InvalidKey, AddressNotAllowed, RateExceeded and QuotaExceeded."""
        if IN_META not in request.META:
            return None
        # The key itself is in no variable here: what has none, no traceback shows.
        name, address = name_of(request.META[IN_META]), partial(client_address, request)
        known = nearby.recall(name) or look_up(request.META[IN_META], name, address=address)
        admit(known, address=address, at=time())
        return Principal(LazyUser(known.user_id, known.owner), *known.told)
