"""End sessions: one, or all of a user. Their tokens are dead with the commit."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import transaction

from ..events import SESSION_ENDED, SESSIONS_ENDED, SessionEnded, SessionsEnded
from ..models import AuthSession


@transaction.atomic
def end_session(session: AuthSession, *, reason: AuthSession.Reason, now: datetime) -> None:
    """End the session; one that is over already stays as it was."""
    if AuthSession.objects.filter(pk=session.pk).revoke(now=now, reason=reason):
        payload = SessionEnded(user_id=str(session.owner_id), session_id=session.pk)
        SESSION_ENDED.emit(payload, owner=session.owner, tenant=session.tenant)


@transaction.atomic
def end_all_sessions(user: Any, *, reason: AuthSession.Reason, now: datetime) -> int:
    """End every session of the user in every tenant; how many there were."""
    count = AuthSession.objects.of_user(user).revoke(now=now, reason=reason)
    SESSIONS_ENDED.emit(SessionsEnded(user_id=str(user.pk), count=count), owner=user)
    return count
