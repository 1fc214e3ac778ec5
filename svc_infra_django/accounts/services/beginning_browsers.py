"""Begin a session of Django's in a browser, for whoever has proved enough."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import django_otp
from django.conf import settings as django_settings
from django.contrib.auth import load_backend
from django.contrib.auth import login as begin_session_of_django
from django.http import HttpRequest
from django.middleware.csrf import get_token

from ...api.authentication import LOGIN_SESSION_KEY
from ...observability.middleware import client_address
from ..errors import InvalidCredentials, NoSessionStore
from ..events import USER_LOGGED_IN, UserLoggedIn
from ..models import AuthSession, without_device
from .issuing_tokens import Client, Tokens
from .logging_in import SecondStep, begun
from .noting_browsers import IN_COOKIES, NOTE_SESSION_KEY, note_browser
from .verifying_mfa import Proven


@dataclass(frozen=True, slots=True)
class BrowserLogin:
    """What a browser needs beside the cookie that it is sent; times in seconds."""

    csrf_token: str = field(repr=False)
    expires_in: int


def begin(
    request: HttpRequest, outcome: Proven | SecondStep, *, in_browser: bool, client: Client, now: datetime
) -> Tokens | BrowserLogin | SecondStep:
    """Tokens, or with `in_browser` a session with a cookie; or the second step that is still wanted.

    The caller has checked the CSRF token of a browser. Raises NoSessionStore.
    """
    if in_browser and isinstance(outcome, Proven):
        return log_browser_in(request, outcome, now=now)
    return begun(outcome, client=client, now=now)


def log_browser_in(request: HttpRequest, proven: Proven, *, now: datetime) -> BrowserLogin:
    """A session with a cookie for the API. Raises NoSessionStore where nobody could end it."""
    if django_settings.SESSION_ENGINE == IN_COOKIES:
        raise NoSessionStore()
    begin_browser(request, proven, now=now)
    user = proven.user
    payload = UserLoggedIn(
        user_id=str(user.pk),
        session_id=request.session[NOTE_SESSION_KEY]["id"],
        amr=list(proven.amr),
        client_address=client_address(request),
    )
    USER_LOGGED_IN.emit(payload, owner=user)
    return BrowserLogin(csrf_token=get_token(request), expires_in=request.session.get_expiry_age())


def begin_browser(request: HttpRequest, proven: Proven, *, now: datetime) -> AuthSession | None:
    """Begin a session of Django's; its row, or None if it is in its cookie alone.

    It gets a new key: one that somebody put into the browser before is worth nothing.
    """
    user = proven.user
    begin_session_of_django(request, user, backend=_backend_of(user))
    if proven.device is not None:
        django_otp.login(request, proven.device)
    request.session[LOGIN_SESSION_KEY] = {"amr": list(proven.amr), "auth_time": int(now.timestamp())}
    if request.session.session_key is None:
        # Django has thrown another user's session away, and would give this one its key with the answer.
        request.session.save()
    note_browser(request, user, amr=proven.amr, now=now)
    noted = request.session.get(NOTE_SESSION_KEY)
    return AuthSession.objects.get(pk=noted["id"]) if noted else None


def forget_device(request: HttpRequest, user: Any, *, now: datetime) -> None:
    """The user has no second factor any more: the request's session of Django's was begun with none."""
    request.session.pop(django_otp.DEVICE_ID_SESSION_KEY, None)
    login = request.session.get(LOGIN_SESSION_KEY) or {}
    amr = without_device(login.get("amr", ()))
    request.session[LOGIN_SESSION_KEY] = {**login, "amr": list(amr)}
    # A request that has read the session before must not write it back as it was.
    request.session.cycle_key()
    note_browser(request, user, amr=amr, now=now)


def _backend_of(user: Any) -> str:
    """The authentication backend that knows the user, for the session to load them by."""
    for path in django_settings.AUTHENTICATION_BACKENDS:
        # A backend that only answers for permissions knows nobody.
        find = getattr(load_backend(path), "get_user", None)
        if find is not None and find(user.pk) is not None:
            return path
    raise InvalidCredentials()
