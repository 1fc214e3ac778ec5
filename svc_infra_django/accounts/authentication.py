"""The bearer door: an access token in the Authorization header (RFC 6750, section 2.1)."""

from __future__ import annotations

from time import time
from typing import Any, ClassVar

from django.http import HttpRequest
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from ..api import Authenticator, SessionAuthenticator
from ..api.authentication import SecondFactorMissing
from ..principals import Principal
from .jwt import digest_of
from .models import lacks_factor
from .services.checking_tokens import look_up, remembered
from .services.noting_browsers import note_browser

IN_META = "HTTP_AUTHORIZATION"


class BrowserSession(SessionAuthenticator):
    """Django's session, and of staff only one that was begun with two factors."""

    def authenticate(self, request: HttpRequest) -> Principal | None:
        """Raises SecondFactorMissing, for staff without a device too, or SessionOver."""
        principal = super().authenticate(request)
        if principal is None:
            return None
        if lacks_factor(principal.user, principal.amr):
            raise SecondFactorMissing()
        note_browser(request, principal.user, amr=principal.amr, now=timezone.now())
        return principal


class BearerToken(Authenticator):
    """An access token of ours. The header is the only place it is taken from."""

    name: ClassVar[str] = "bearer"
    scheme: ClassVar[dict[str, Any]] = {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The `access_token` from `POST auth/login`.",
    }
    challenge: ClassVar[str] = "Bearer"

    def authenticate(self, request: HttpRequest) -> Principal | None:
        """Raises InvalidAccessToken for a bearer credential that is not a good token of ours."""
        if IN_META not in request.META:
            return None
        # The token itself is in no variable here: what has none, no traceback shows.
        name = digest_of(request.META[IN_META])
        return remembered(name, at=time()) or self._looked_up(request.META[IN_META], name)

    @sensitive_variables()
    def _looked_up(self, header: str, name: bytes) -> Principal | None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            return None
        return look_up(token.strip(" "), name, now=timezone.now())
