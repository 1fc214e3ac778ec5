"""What an access token is worth now: one signature, one query."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from django.views.decorators.debug import sensitive_variables

from ...principals import Principal
from ..errors import InvalidAccessToken
from ..jwt import AccessToken, InvalidJWT
from ..models import AuthSession


@sensitive_variables()
def check_access_token(token: str, *, now: datetime) -> Principal:
    """The principal behind `token`. Raises InvalidAccessToken, whatever is wrong.

    Session, user and password are read on every call, so logging out, disabling the user or changing
    the password stops the very next request.
    """
    try:
        claims = AccessToken.opened(token)
        session_id = UUID(claims["sid"])
    except (InvalidJWT, ValueError, AttributeError):
        raise InvalidAccessToken() from None
    session = AuthSession.objects.select_related("owner").filter(pk=session_id).first()
    if session is None or str(session.owner_id) != claims["sub"] or not session.is_good(now=now):
        raise InvalidAccessToken()
    return Principal(
        user=session.owner,
        method="jwt",
        credential_id=str(session.pk),
        tenant=session.tenant,
        amr=session.methods,
        auth_time=session.auth_time,
    )
