"""One middleware round every request: its id, its clock, its line in the log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address, ip_address
from time import perf_counter
from types import TracebackType
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.utils.decorators import sync_and_async_middleware

from .conf import settings
from .context import accepted_request_id, bound, new_trace, parsed_traceparent
from .logging import get_logger
from .metrics import metrics

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

access_logger = get_logger("svc_infra_django.access")


@sync_and_async_middleware
def RequestContextMiddleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Give the request an id and a trace, answer with the id, count it and log one line.

    Put it first in MIDDLEWARE. The caller's X-Request-ID is kept if it is 8 to 128 harmless
    characters; its `traceparent` is continued if well formed.
    """
    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponse:
            with _Exchange(request) as exchange:
                exchange.response = await _awaitable(get_response(request))
                return exchange.response

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponse:
        with _Exchange(request) as exchange:
            exchange.response = get_response(request)
            return exchange.response

    return synchronous


class _Exchange:
    """One request and its response, the same for both kinds of handler."""

    response: HttpResponse

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        self.trace = parsed_traceparent(request.headers.get("traceparent")) or new_trace()
        self.request_id = accepted_request_id(request.headers.get("X-Request-ID")) or self.trace["trace_id"]
        request.request_id = self.request_id  # type: ignore[attr-defined]
        self.method = request.method if request.method in METHODS else "other"

    def __enter__(self) -> _Exchange:
        self.started = perf_counter()
        self.context = ExitStack()
        self.context.enter_context(bound(request_id=self.request_id, **self.trace))
        metrics.adjust("http.requests_in_flight", 1, method=self.method)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.context:
            seconds = perf_counter() - self.started
            metrics.adjust("http.requests_in_flight", -1, method=self.method)
            if error is None:
                self.response["X-Request-ID"] = self.request_id
            status = self.response.status_code if error is None else 499
            route = self._route()
            metrics.increment("http.requests", method=self.method, route=route, status=status)
            metrics.observe("http.request_duration", seconds, method=self.method, route=route)
            self._log(status, route, seconds)

    def _route(self) -> str:
        match = self.request.resolver_match
        return f"/{match.route.lstrip('^/')}" if match else "unmatched"

    def _log(self, status: int, route: str, seconds: float) -> None:
        if not settings.access_log or (status < 400 and self.request.path in settings.quiet_paths):
            return
        principal = getattr(self.request, "principal", None)
        access_logger.info(
            "request",
            method=self.method,
            path=self.request.path,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 1),
            client=client_address(self.request),
            **({"user_id": str(principal.user.pk), "credential": principal.method} if principal else {}),
        )


def client_address(request: HttpRequest) -> str:
    """The caller's IP address: the peer, or what trusted proxies say in X-Forwarded-For.

    The header is read from the right, skipping trusted proxies; the first stranger is the caller.
    """
    peer = _address(request.META.get("REMOTE_ADDR", ""))
    hops = [_address(hop.strip()) for hop in request.headers.get("X-Forwarded-For", "").split(",")]
    while peer is not None and hops and hops[-1] is not None and _is_trusted(peer):
        peer = hops.pop()
    return str(peer) if peer is not None else ""


def _is_trusted(address: IPv4Address | IPv6Address) -> bool:
    return any(address in network for network in settings.trusted_proxies)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _awaitable(response: Any) -> Awaitable[HttpResponse]:
    return response  # type: ignore[no-any-return]
