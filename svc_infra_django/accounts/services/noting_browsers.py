"""Know the browsers that have a session of Django's, so that their users can see and end them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from hashlib import sha256
from importlib import import_module
from typing import Any

from django.conf import settings as django_settings
from django.http import HttpRequest

from ...observability.middleware import client_address
from ...sealing import seal, unseal
from ..errors import SessionOver
from ..models import AuthSession
from ..signing import password_state

NOTE_SESSION_KEY = "svc_infra_django.session"
"""Where a session of Django's notes which row of ours it is."""

IN_COOKIES = "django.contrib.sessions.backends.signed_cookies"


def note_browser(request: HttpRequest, user: Any, *, amr: Iterable[str] = (), now: datetime) -> None:
    """Have a row for the request's session of Django's; writes only if it has none, or was given a new key.

    A session that is in its cookie alone has none, and nobody can end it. Raises SessionOver if the row
    was ended.
    """
    key = request.session.session_key
    if not key or django_settings.SESSION_ENGINE == IN_COOKIES:
        return
    digest = sha256(key.encode()).hexdigest()
    noted: dict[str, Any] = request.session.get(NOTE_SESSION_KEY) or {}
    methods = " ".join(amr)
    mark = [digest[:16], methods]
    if noted.get("mark") == mark:
        return
    known = None
    if "id" in noted:
        known = AuthSession.objects.filter(pk=noted["id"], owner_id=user.pk).first()
    if known is not None and known.revoked_at is not None:
        request.session.flush()
        raise SessionOver()
    ends_at = now + timedelta(seconds=django_settings.SESSION_COOKIE_AGE)
    present = {
        "owner": user,
        "amr": methods,
        "password_state": password_state(user),
        "refreshed_at": now,
        "browser_digest": digest,
        "browser_key": seal(key, context=_context(digest)),
        "idle_expires_at": ends_at,
        "expires_at": ends_at,
    }
    row, _ = AuthSession.objects.update_or_create(
        **({"pk": known.pk} if known is not None else {"browser_digest": digest}),
        defaults=present,
        create_defaults={
            **present,
            "auth_time": now,
            "created_at": now,
            "user_agent": user_agent(request)[:255],
            "client_address": client_address(request) or None,
        },
    )
    request.session[NOTE_SESSION_KEY] = {"id": str(row.pk), "mark": mark}


def user_agent(request: HttpRequest) -> str:
    """What the browser calls itself, without what no page should show."""
    return "".join(letter for letter in request.headers.get("User-Agent", "") if letter.isprintable())


def forget_browsers(sealed: Iterable[tuple[str, str]]) -> None:
    """Delete sessions of Django's from their store, by the digests and sealed keys of their rows."""
    store = import_module(django_settings.SESSION_ENGINE).SessionStore
    for digest, key in sealed:
        store(session_key=unseal(key, context=_context(digest))).delete()


def _context(digest: str) -> str:
    return f"accounts.browser:{digest}"
