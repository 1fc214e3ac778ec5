"""One middleware round every request: its id, its clock, its line in the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import copy_context
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from logging import getLogger
from time import perf_counter
from types import TracebackType
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import resolve
from django.utils.decorators import sync_and_async_middleware
from prometheus_client import Counter, Gauge, Histogram

from .conf import settings
from .context import accepted_request_id, bound, isolated, new_trace, parsed_traceparent
from .logging import tell
from .metrics import metrics
from .redaction import REDACTED, is_secret_name
from .tracing import active_trace
from .views import PROBES

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

LONGEST_PATH = 1000

access_logger = getLogger("svc_infra_django.access")


@sync_and_async_middleware
def RequestContextMiddleware(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Give the request an id and a trace, answer with the id, count it and log one line.

    Put it first in MIDDLEWARE. The caller's X-Request-ID is kept if it is 8 to 128 harmless
    characters; its `traceparent` is continued if well formed. The line is written when the headers
    of the response are ready; a body that is streamed after that still logs with the request's id.
    A caller who leaves before that is logged with status 499.

    Probes at one of `quiet_paths` are answered here: whoever probes knows an address, not a name in
    ALLOWED_HOSTS, and a redirect to https would count as healthy.
    """
    if iscoroutinefunction(get_response):

        async def asynchronous(request: HttpRequest) -> HttpResponse:
            with _Exchange(request) as exchange:
                probe = _probe(request)
                response = await (sync_to_async(probe)(request) if probe else get_response(request))
                return exchange.ends_with(response)

        return asynchronous

    def synchronous(request: HttpRequest) -> HttpResponse:
        with _Exchange(request) as exchange:
            return exchange.ends_with((_probe(request) or get_response)(request))

    return synchronous


def _probe(request: HttpRequest) -> Callable[[HttpRequest], HttpResponse] | None:
    if request.path_info not in settings.quiet_paths:
        return None
    try:
        match = resolve(request.path_info)
    except Http404:
        return None
    if match.func not in PROBES:
        return None
    request.resolver_match = match
    return match.func


class _Exchange:
    """One request and its response, the same for both kinds of handler."""

    response: HttpResponse | None = None

    def __init__(self, request: HttpRequest) -> None:
        self.request = request
        trace = active_trace() or parsed_traceparent(request.META.get("HTTP_TRACEPARENT")) or new_trace()
        request_id = accepted_request_id(request.META.get("HTTP_X_REQUEST_ID")) or trace["trace_id"]
        self.context = {"request_id": request_id, **trace}
        request.request_id = request_id  # type: ignore[attr-defined]
        self.method = request.method if request.method in METHODS else "other"

    def __enter__(self) -> _Exchange:
        self.started = perf_counter()
        self.isolation = isolated(**self.context)
        self.isolation.__enter__()
        _in_flight(self.method).inc()
        return self

    def ends_with(self, response: HttpResponse) -> HttpResponse:
        response["X-Request-ID"] = self.context["request_id"]
        if response.streaming:
            _stream_in_context(cast(StreamingHttpResponse, response), self.context)
        self.response = response
        return response

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            seconds = perf_counter() - self.started
            _in_flight(self.method).dec()
            # Django makes a response of every Exception; what comes here cancels the request.
            status = self.response.status_code if self.response is not None else 499
            match = self.request.resolver_match
            route = f"/{match.route.lstrip('^/')}" if match else "unmatched"
            count, duration = _finished(self.method, route, status)
            count.inc()
            duration.observe(seconds)
            self._log(status, route, seconds)
        finally:
            self.isolation.__exit__(kind, error, trace)

    def _log(self, status: int, route: str, seconds: float) -> None:
        if not settings.access_log or (status < 400 and self.request.path_info in settings.quiet_paths):
            return
        line = {
            "method": self.method,
            "path": self._path(),
            "route": route,
            "status": status,
            "duration_ms": round(seconds * 1000, 1),
            "client": client_address(self.request),
        }
        principal = getattr(self.request, "principal", None)
        if principal is not None:
            line["user_id"], line["credential"] = str(principal.user.pk), principal.method
        tell(access_logger, "request", line)

    def _path(self) -> str:
        """The path without what its route calls a token or a key, as in a link to reset a password."""
        path = self.request.path
        match = self.request.resolver_match
        for name, value in (match.kwargs if match else {}).items():
            if value and (name == "key" or is_secret_name(name)):
                path = path.replace(str(value), REDACTED)
        return path[:LONGEST_PATH]


@lru_cache(maxsize=16)
def _in_flight(method: str) -> Gauge:
    return cast(Gauge, metrics.series("adjusted gauge", "http.requests_in_flight", method=method))


@lru_cache(maxsize=4096)
def _finished(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return (
        metrics.series("counter", "http.requests", method=method, route=route, status=status),
        metrics.series("timer", "http.request_duration", method=method, route=route),
    )


def _stream_in_context(response: StreamingHttpResponse, context: dict[str, str]) -> None:
    """Let the body, which is made when this middleware is done, log with the request's id."""
    if getattr(response, "file_to_stream", None) is not None:
        return  # a file logs nothing, and wrapping it would keep the server from sending it itself
    content = response.streaming_content
    if response.is_async:
        response.streaming_content = _asynchronous_steps(cast(AsyncIterator[bytes], content), context)
    else:
        response.streaming_content = _steps(cast(Iterator[bytes], content))


def _steps(content: Iterator[bytes]) -> Iterator[bytes]:
    context = copy_context()
    end = object()

    def steps() -> Iterator[bytes]:
        while (part := context.run(next, content, end)) is not end:
            yield cast(bytes, part)

    return steps()


async def _asynchronous_steps(content: AsyncIterator[bytes], context: dict[str, str]) -> AsyncIterator[bytes]:
    while True:
        # Not one block round the loop: between two parts the task is the server's.
        with bound(**context):
            try:
                part = await anext(content)
            except StopAsyncIteration:
                return
        yield part


def client_address(request: HttpRequest) -> str:
    """The caller's IP address: the peer, or what trusted proxies say in X-Forwarded-For.

    The header is read from the right, skipping trusted proxies; the first stranger is the caller.
    Empty if the server does not know its peer, as behind a Unix socket.
    """
    text = request.META.get("REMOTE_ADDR", "")
    peer = _address(text)
    if peer is None or not _is_trusted(peer):
        return _written(text)
    for hop in reversed(request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")):
        address = _address(hop.strip())
        if address is None:
            break
        peer = address
        if not _is_trusted(peer):
            break
    return str(peer)


def _is_trusted(address: IPv4Address | IPv6Address) -> bool:
    networks = settings.trusted_proxies
    return bool(networks) and any(address in network for network in networks)


@lru_cache(maxsize=4096)
def _written(text: str) -> str:
    return str(_address(text) or "")


@lru_cache(maxsize=4096)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address in `text`, which may name a port too: `192.0.2.1:80`, `[2001:db8::1]:80`."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    # What a socket for both families says of an IPv4 caller.
    return getattr(address, "ipv4_mapped", None) or address
