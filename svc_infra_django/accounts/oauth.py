"""The door that browsers are sent through: to a provider, and back."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.utils import timezone
from ninja import Query, Router, Status

from ..api import ApiRequest, not_delegated
from ..api.authentication import demand_csrf
from .conf import settings
from .providers import configured_providers
from .schemas import (
    BrowserLoginOut,
    ConnectedAccountsOut,
    ConnectedOut,
    ConnectIn,
    DepartureOut,
    ExchangeIn,
    Name,
    ProviderOut,
    Returned,
    SecondStepOut,
    Target,
    TokensOut,
    client_of,
    shown,
)
from .services.beginning_browsers import begin
from .services.connecting_providers import connected, disconnect
from .services.enrolling_mfa import require_fresh_factor
from .services.logging_in_elsewhere import Departure, arrive, depart, exchange

router = Router(tags=["oauth"])


@router.get("providers", auth=None, response=list[ProviderOut])
def list_providers(request: HttpRequest) -> Any:
    """Whom one can log in by, besides the password."""
    return [ProviderOut(id=key, name=name) for key, name in configured_providers()]


@router.get("authorize", auth=None, response=DepartureOut)
def authorize(
    request: HttpRequest, response: HttpResponse, provider: Query[Name], next: Query[Target] = ""
) -> Any:
    """Begin a login by a provider: where to send this browser, which gets a cookie to come back with."""
    departure = depart(
        provider, target=next, browser=_browser(request), client=client_of(request), now=timezone.now()
    )
    return _departing(request, response, departure)


@router.get("callback", auth=None, response={200: TokensOut | SecondStepOut, 204: None, 302: None})
def callback(
    request: HttpRequest,
    response: HttpResponse,
    state: Query[Returned],
    code: Query[Returned] = "",
    iss: Query[Returned] = "",
) -> Any:
    """Where providers send the browser back to.

    It goes on to `next` with a `code` for `POST oauth/exchange`, or an `error`; without a `next` the
    tokens are the answer.
    """
    response["Cache-Control"] = "no-store"
    response["Referrer-Policy"] = "no-referrer"
    arrival = arrive(
        state=state,
        code=code,
        issuer=iss or None,
        browser=_browser(request),
        client=client_of(request),
        now=timezone.now(),
    )
    if arrival.target:
        response["Location"] = _with(arrival.target, code=arrival.code, error=arrival.error)
        return Status(302, None)
    if arrival.outcome is None:
        return Status(204, None)
    return shown(arrival.outcome)


@router.post("exchange", auth=None, response=TokensOut | BrowserLoginOut | SecondStepOut)
def exchange_code(request: HttpRequest, response: HttpResponse, body: ExchangeIn) -> Any:
    """Turn the code that the browser came back with into tokens or a session, or into the second step."""
    response["Cache-Control"] = "no-store"
    if body.session:
        demand_csrf(request)
    now = timezone.now()
    outcome = exchange(body.code, state=body.state, now=now)
    return shown(begin(request, outcome, in_browser=body.session, client=client_of(request), now=now))


@router.post("connect", response=DepartureOut)
@not_delegated
def connect_provider(request: ApiRequest, response: HttpResponse, body: ConnectIn) -> Any:
    """Begin to connect a provider to your account, so that you can log in by it."""
    now = timezone.now()
    require_fresh_factor(request.principal, password=body.password, code=body.code, now=now)
    departure = depart(
        body.provider,
        target=body.next,
        browser=_browser(request),
        client=client_of(request),
        now=now,
        owner=request.principal.user,
    )
    return _departing(request, response, departure)


@router.get("accounts", response=ConnectedAccountsOut)
@not_delegated
def list_connected(request: ApiRequest) -> Any:
    """Your accounts at providers that you can log in by."""
    user = request.principal.user
    rows = [ConnectedOut.of(row) for row in connected(user)]
    return ConnectedAccountsOut(accounts=rows, has_password=user.has_usable_password())


@router.delete("accounts/{account}", response={204: None})
@not_delegated
def disconnect_provider(request: ApiRequest, account: int) -> Any:
    """Disconnect one of them. It wants a fresh login; `POST auth/step-up` makes this one so."""
    now = timezone.now()
    require_fresh_factor(request.principal, password=None, code=None, now=now)
    row = get_object_or_404(connected(request.principal.user), pk=account)
    disconnect(request.principal, row, now=now)
    return Status(204, None)


def _departing(request: HttpRequest, response: HttpResponse, departure: Departure) -> DepartureOut:
    response["Cache-Control"] = "no-store"
    response.set_cookie(
        _cookie(request),
        departure.browser,
        max_age=settings.oauth_flow_seconds,
        secure=request.is_secure(),
        httponly=True,
        samesite="Lax",  # it must come along when the provider sends the browser back
    )
    return DepartureOut(
        authorization_url=departure.url, state=departure.state, expires_in=departure.expires_in
    )


def _browser(request: HttpRequest) -> str:
    return request.COOKIES.get(_cookie(request), "")


def _cookie(request: HttpRequest) -> str:
    # The prefix keeps other hosts from setting it (RFC 6265bis); browsers take it over TLS only.
    return "__Host-svc-oauth" if request.is_secure() else "svc-oauth"


def _with(target: str, **parameters: str) -> str:
    parts = urlsplit(target)
    added = urlencode({name: text for name, text in parameters.items() if text})
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, added)))))
