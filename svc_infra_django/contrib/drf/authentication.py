"""The suite's authenticators, as one authentication class of REST framework."""

from __future__ import annotations

from typing import Any

from rest_framework.authentication import BaseAuthentication
from rest_framework.request import Request

from ...api.authentication import challenges, identified
from ...principals import Principal


class PrincipalAuthentication(BaseAuthentication):
    """`request.user` is the caller and `request.auth` the `Principal`, whatever credential was sent.

    Tries the same authenticators in the same order as the suite's API, with the same CSRF rule for
    sessions. Raises AuthenticationError for a credential that is there and bad; without any the
    request goes on as anonymous and the permission classes decide.
    """

    accepts_test_keys = False
    """Set it in a subclass for views whose rows are all of `request.auth.tenant`."""

    def authenticate(self, request: Request) -> tuple[Any, Principal] | None:
        principal = identified(request._request, accepts_test_keys=self.accepts_test_keys)
        return None if principal is None else (principal.bounded_user, principal)

    def authenticate_header(self, request: Request) -> str:
        return challenges()
