"""Say what a token is worth, and take it back: for services that are handed our tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from django.views.decorators.debug import sensitive_variables

from ..errors import InvalidAccessToken
from ..hashing import token_digest
from ..models import AuthSession, RefreshToken
from .checking_tokens import read_claims, read_session
from .ending_sessions import end_session


@dataclass(frozen=True, slots=True)
class Standing:
    """A token that is good now; times in seconds since 1970."""

    session: AuthSession
    kind: Literal["access_token", "refresh_token"]
    issued_at: int
    expires_at: int
    token_id: str = ""


@sensitive_variables()
def introspect(token: str, *, now: datetime) -> Standing | None:
    """What an access or refresh token is worth now, or None (RFC 7662). Asks past what is remembered."""
    if "." not in token:
        row = _refresh_token(token)
        is_good = row is not None and row.used_at is None and row.expires_at > now
        if row is None or not is_good or not row.session.is_good(now=now):
            return None
        ends_at, begun_at = int(row.expires_at.timestamp()), int(row.created_at.timestamp())
        return Standing(row.session, "refresh_token", begun_at, ends_at)
    try:
        claims = read_claims(token, now=now)
        _, found, owner = read_session(claims, now=now)
    except InvalidAccessToken:
        return None
    session: AuthSession = found.made()
    session.owner = owner.made()
    return Standing(session, "access_token", claims.issued_at, claims.expires_at, claims.token_id)


@sensitive_variables()
def revoke_token(token: str, *, now: datetime) -> None:
    """End the session of an access or refresh token, if there is one (RFC 7009).

    Also by a refresh token that was exchanged already: whoever has it had the session.
    """
    session = None
    if "." not in token:
        row = _refresh_token(token)
        session = row.session if row is not None else None
    else:
        try:
            claims = read_claims(token, now=now)
        except InvalidAccessToken:
            return
        session = AuthSession.objects.select_related("owner").filter(pk=claims.session_id).first()
    if session is not None:
        end_session(session, reason=AuthSession.Reason.LOGOUT, now=now)


@sensitive_variables()
def _refresh_token(token: str) -> RefreshToken | None:
    rows = RefreshToken.objects.select_related("session__owner")
    return rows.filter(digest=token_digest(token)).first()
