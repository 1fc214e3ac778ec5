"""Who is calling: each installed kind of credential is asked in turn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from datetime import UTC, datetime
from functools import cache, lru_cache, partial
from hashlib import sha256
from typing import Any, ClassVar

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.module_loading import import_string
from django_otp import DEVICE_ID_SESSION_KEY, user_has_device
from django_otp.models import Device
from structlog.contextvars import bind_contextvars

from ..app_config import declared
from ..errors import AuthenticationError, PermissionDeniedError
from ..principals import LazyUser, Principal, loaded
from .conf import settings
from .errors import AmbiguousCredentials, CsrfFailed

PROVED_SESSION_KEY = "svc_infra_django.proved_factor"
"""Where a session notes the user and the device that it was begun with."""


LOGIN_SESSION_KEY = "svc_infra_django.login"
"""Where a login notes how (`amr`, RFC 8176) and when (`auth_time`, seconds) the session was begun."""


class ApiRequest(HttpRequest):
    """For annotations: what an operation behind authentication gets as its request."""

    principal: Principal
    auth: Principal
    request_id: str


class Authenticator(ABC):
    """One kind of credential. Name the class in `authenticators` of an app config."""

    name: ClassVar[str]
    """Its key among the OpenAPI security schemes."""

    scheme: ClassVar[dict[str, Any]]
    """Its OpenAPI security scheme object."""

    @abstractmethod
    def authenticate(self, request: HttpRequest) -> Principal | None:
        """The caller, or None if the request has no credential of this kind.

        Raises AuthenticationError for a credential that is there and bad. Runs in a thread, also for
        asynchronous operations, so it may ask the database.
        """


class LiveKeysOnly(PermissionDeniedError):
    """A test key may not call this: it works on live data. Use a live key."""

    code = "test_key_refused"


class SecondFactorMissing(AuthenticationError):
    """This session was begun without your second factor; log in with it."""

    code = "second_factor_missing"


class SessionAuthenticator(Authenticator):
    """Django's session, with its CSRF token on every method that may change something."""

    name = "session"
    scheme = {
        "type": "apiKey",
        "in": "cookie",
        "name": "sessionid",
        "description": "Django's session cookie. Methods that may change something also need the CSRF token, "
        "in X-CSRFToken.",
    }

    def authenticate(self, request: HttpRequest) -> Principal | None:
        """Raises CsrfFailed for an unsafe method without the token, SecondFactorMissing for half a login."""
        user = getattr(request, "user", None)
        if user is None or not user.is_authenticated:
            return None
        demand_csrf(request)
        return session_principal(request, user)


def session_principal(request: HttpRequest, user: Any) -> Principal:
    """Who is behind the browser's session, and how they proved it. Raises SecondFactorMissing."""
    if not _has_proved_every_factor(request, user):
        raise SecondFactorMissing(headers={"WWW-Authenticate": challenges()})
    key = request.session.session_key or ""
    login = request.session.get(LOGIN_SESSION_KEY) or {}
    amr = login.get("amr") or (["otp", "mfa"] if DEVICE_ID_SESSION_KEY in request.session else [])
    at = login.get("auth_time")
    return Principal(
        user,
        method="session",
        credential_id=sha256(key.encode()).hexdigest()[:16],
        amr=tuple(amr),
        auth_time=datetime.fromtimestamp(at, UTC) if at else None,
    )


class Authentication:
    """What `create_api` gives Ninja as `auth`: the first authenticator that knows the caller wins."""

    # Ninja's documentation page sends the CSRF token if some `auth` says that it needs one.
    csrf = True

    accepts_test_keys = False
    """Whether credentials of the test environment beside the live one may call the operation."""

    def __call__(self, request: HttpRequest) -> Principal:
        """Sets `request.principal` and `request.user`. Raises AuthenticationError if there is nobody."""
        principal = identified(request, accepts_test_keys=self.accepts_test_keys)
        if principal is None:
            raise nobody()
        view = getattr(request.resolver_match, "func", None)
        if view is not None and _is_asynchronous(view):
            loaded(principal.user)
        return principal


class WithTestKeys(Authentication):
    """`auth=WithTestKeys()` on an operation: test keys may call it too.

    Declare it where every row that the operation reads or writes is of `request.principal.tenant`.
    """

    accepts_test_keys = True


def identified(request: Any, *, accepts_test_keys: bool = False) -> Principal | None:
    """The caller, or None if the request has no credential. Sets `request.principal` and `request.user`.

    Raises AuthenticationError for a credential that is there and bad, LiveKeysOnly.
    """
    if "," in request.META.get("HTTP_AUTHORIZATION", ""):
        raise AmbiguousCredentials()
    for authenticator in active_authenticators():
        principal = authenticator.authenticate(request)
        if principal is not None:
            if principal.tenant and principal.is_test and not accepts_test_keys:
                raise LiveKeysOnly()
            break
    else:
        return None
    user = principal.user
    # Who is not read yet was found active a moment ago.
    if type(user) is not LazyUser and not user.is_active:
        raise AuthenticationError("This account is not active.")
    if principal.scopes is not None:
        user = principal.bounded_user
    request.principal, request.user, request.auser = principal, user, partial(_itself, user)
    if request.method not in ("GET", "HEAD", "OPTIONS"):
        # Who did it, for what is written and logged below.
        bind_contextvars(user_id=str(principal.user.pk))
    return principal


def get_current_user(request: HttpRequest) -> Any:
    """The user behind the request, in an operation, a view of Django's or one of REST framework's.

    Raises AuthenticationError if the request has no credential, or a bad one.
    """
    principal = getattr(request, "principal", None) or identified(request)
    if principal is None:
        raise nobody()
    loaded(principal.user)
    return principal.bounded_user


# Asked of the same few views on every request.
_is_asynchronous = lru_cache(maxsize=2048)(iscoroutinefunction)


aget_current_user = sync_to_async(get_current_user)


@cache
def active_authenticators() -> list[Authenticator]:
    """One of each class in the settings, or of each that an installed app brings and the session."""
    if settings.authenticators is not None:
        return [import_string(path)() for path in settings.authenticators]
    found: list[Authenticator] = [cls() for _, cls in declared("authenticators")]
    if not any(isinstance(each, SessionAuthenticator) for each in found):
        found.append(SessionAuthenticator())
    # A browser sends its session with every request, so any other credential was meant.
    return sorted(found, key=lambda each: isinstance(each, SessionAuthenticator))


def _forget_authenticators(*, setting: str, **_: Any) -> None:
    if setting in ("SVC_INFRA", "INSTALLED_APPS"):
        active_authenticators.cache_clear()


setting_changed.connect(_forget_authenticators, dispatch_uid="svc_infra_django.api.authentication")


def session_scheme() -> dict[str, Any]:
    """The session's security scheme, with the project's own cookie name."""
    return {**SessionAuthenticator.scheme, "name": django_settings.SESSION_COOKIE_NAME}


def nobody() -> AuthenticationError:
    """What is raised where somebody must be calling and nobody is."""
    return AuthenticationError(headers={"WWW-Authenticate": challenges()})


def challenges() -> str:
    """What may be sent, for a 401 (RFC 9110, section 11.6.1)."""
    schemes = [each.scheme for each in active_authenticators()]
    named = [str(scheme["scheme"]).title() if scheme["type"] == "http" else "ApiKey" for scheme in schemes]
    return ", ".join(dict.fromkeys(named))


async def _itself(user: Any) -> Any:
    return user


def demand_csrf(request: Any) -> None:
    """Raise CsrfFailed for an unsafe method without the CSRF token, or from a site that is not trusted."""
    # Ninja exempts its views from the middleware, so the check is made here.
    check = _CsrfCheck(_never_called)
    request.csrf_processing_done = False
    check.process_request(request)
    if check.process_view(request, _never_called, (), {}) is not None:
        raise CsrfFailed()


class _CsrfCheck(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> Any:
        return reason


def _never_called(request: HttpRequest) -> HttpResponse:
    raise NotImplementedError


def _has_proved_every_factor(request: HttpRequest, user: Any) -> bool:
    """Whether the session was begun with a device of the user, or the user has none.

    Django's own login asks for the password alone; who has a device must not get in by it. A device
    that was found to be the user's is noted in the session, so that it is looked up once.
    """
    named = request.session.get(DEVICE_ID_SESSION_KEY)
    if not named:
        return not user_has_device(user)
    proof = [str(user.pk), named]
    if request.session.get(PROVED_SESSION_KEY) == proof:
        return True
    device = Device.from_persistent_id(named)
    if device is None or not device.confirmed or device.user_id != user.pk:
        return not user_has_device(user)
    request.session[PROVED_SESSION_KEY] = proof
    return True
