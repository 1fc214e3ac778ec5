"""End sessions: one, or all of a user. Their tokens are dead with the commit."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import Any

from django.db import transaction
from django.http import HttpRequest

from ..events import SESSION_ENDED, SESSIONS_ENDED, SessionEnded, SessionsEnded
from ..models import AuthSession, OAuthFlow
from ..querysets import AuthSessionQuerySet
from .noting_browsers import forget_browsers
from .sharing_sessions import forget_sessions


@transaction.atomic
def end_session(session: AuthSession, *, reason: AuthSession.Reason, now: datetime) -> None:
    """End the session; one that is over already stays as it was."""
    mine = AuthSession.objects.filter(pk=session.pk)
    if revoke_sessions(mine, user_id=session.owner_id, reason=reason, now=now):
        payload = SessionEnded(user_id=str(session.owner_id), session_id=session.pk)
        SESSION_ENDED.emit(payload, owner=session.owner, tenant=session.tenant)


@transaction.atomic
def end_all_sessions(user: Any, *, reason: AuthSession.Reason, now: datetime) -> int:
    """End every session of the user in every tenant; how many there were."""
    count = revoke_sessions(AuthSession.objects.of_user(user), user_id=user.pk, reason=reason, now=now)
    SESSIONS_ENDED.emit(SessionsEnded(user_id=str(user.pk), count=count), owner=user)
    return count


def end_noted_browser(request: HttpRequest, user: Any, *, now: datetime) -> None:
    """The request's session of Django's is being ended; its row ends with it."""
    key = request.session.session_key
    digest = sha256(key.encode()).hexdigest() if key else ""
    mine = AuthSession.objects.of_user(user).filter(browser_digest=digest)
    for session in mine.alive(now=now).select_related("owner"):
        end_session(session, reason=AuthSession.Reason.LOGOUT, now=now)


def revoke_sessions(sessions: AuthSessionQuerySet, *, user_id: Any, reason: str, now: datetime) -> int:
    """End those of the user's sessions that are not ended yet, in every process; how many that were.

    Sessions of Django's are deleted from their store, so they are over for every view of the project. What
    was begun in one of them at a provider is over too: nobody connects a way in who was thrown out meanwhile.
    """
    browsers = sessions.filter(revoked_at=None, browser_digest__isnull=False)
    keys = [(row.browser_digest or "", row.browser_key) for row in browsers]
    count = sessions.revoke(now=now, reason=reason)
    OAuthFlow.objects.filter(owner_id=user_id).delete()
    forget_sessions(user_id)
    if keys:
        transaction.on_commit(partial(forget_browsers, keys))
    return count
