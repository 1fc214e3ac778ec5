"""The bearer door: an access token in the Authorization header (RFC 6750, section 2.1)."""

from __future__ import annotations

from typing import Any, ClassVar

from django.http import HttpRequest
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables

from ..api import Authenticator, SessionAuthenticator
from ..api.authentication import SecondFactorMissing
from ..principals import Principal
from .models import lacks_factor
from .services.checking_tokens import check_access_token
from .services.noting_browsers import note_browser


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

    @sensitive_variables()
    def authenticate(self, request: HttpRequest) -> Principal | None:
        """Raises InvalidAccessToken for a bearer credential that is not a good token of ours."""
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        return check_access_token(token.strip(" "))
