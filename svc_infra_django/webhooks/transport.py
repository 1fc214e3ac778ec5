"""The only HTTP client of the suite that dials addresses which strangers chose.

libcurl's multi interface over one pool of connections. The guard stands where a socket is opened, so
it judges the very address that is dialled; between check and dial there is nothing to rebind.
"""

from __future__ import annotations

import selectors
import socket
import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from time import monotonic
from typing import Any

import pycurl

from ..config.sections import load
from .addresses import checked_url, host_and_port, is_allowed, is_literal
from .conf import WebhooksSettings, settings
from .errors import BadEndpoint
from .names import CACHE_SECONDS, Names, addresses_of

HEAD_LIMIT = 65_536
KNOWN_TARGETS = 10_000
IDLE_CONNECTION_SECONDS = 60
CONNECTION_LIFETIME_SECONDS = 300
IDLE_CONNECTIONS = 256

ERROR_CLASSES = {
    pycurl.E_COULDNT_RESOLVE_HOST: "dns",
    pycurl.E_COULDNT_CONNECT: "refused",
    pycurl.E_OPERATION_TIMEDOUT: "timeout",
    pycurl.E_SSL_CONNECT_ERROR: "tls",
    pycurl.E_PEER_FAILED_VERIFICATION: "tls",
    pycurl.E_SSL_CACERT_BADFILE: "tls",
    pycurl.E_SSL_CERTPROBLEM: "tls",
    pycurl.E_SSL_CIPHER: "tls",
    pycurl.E_SSL_ISSUER_ERROR: "tls",
}


# Not frozen, nor is the outcome: that costs a microsecond each time one is made.
@dataclass(slots=True)
class Request:
    """One POST, ready to go. `tag` comes back in the outcome."""

    url: str
    body: bytes = field(repr=False)
    headers: Sequence[tuple[str, str]] = field(repr=False)
    timeout: float
    tag: Any = None


@dataclass(slots=True)
class Outcome:
    """What became of a request. `error` is empty when an HTTP answer came, whatever its status."""

    tag: Any
    status: int | None = None
    error: str = ""
    detail: str = ""
    """For the operator's log only; a tenant who reads it could scan ports with us."""

    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


class Transport:
    """Sends many requests at once, in the thread that calls it.

    `lookup` gives the addresses of a name and raises OSError if it has none; by default the system's
    resolver. The guard judges its answers like any other address.
    """

    def __init__(self, *, lookup: Callable[[str], list[str]] | None = None) -> None:
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, IDLE_CONNECTIONS)
        self._multi.setopt(pycurl.M_PIPELINING, 0)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._selector = selectors.DefaultSelector()
        self._names = Names(lookup or addresses_of)
        self._selector.register(self._names.wakes, selectors.EVENT_READ)
        self._watched: set[int] = set()
        self._targets: dict[str, _Target] = {}
        self._checked_by: WebhooksSettings | None = None
        self._deadline: float | None = None
        self._looking_up: dict[str, list[tuple[float, _Target, Request]]] = {}
        self._under_way: dict[pycurl.Curl, _Exchange] = {}
        self._idle: list[pycurl.Curl] = []
        self._finished: deque[Outcome] = deque()
        self._is_woken = False

    @property
    def under_way(self) -> int:
        """How many requests have no outcome yet."""
        return len(self._under_way) + sum(map(len, self._looking_up.values()))

    def start(self, request: Request) -> None:
        """Begin a request; `turn` brings its outcome. A URL that is refused has its outcome at once."""
        try:
            target = self._checked_target(request.url)
        except BadEndpoint as error:
            self._finished.append(Outcome(request.tag, error="blocked", detail=error.message))
            return
        started = monotonic()
        if not target.name:
            self._dial(request, started)
        elif (addresses := self._names.known(target.name)) is not None:
            self._dial(request, started, target, addresses)
        elif (waiting := self._looking_up.get(target.name)) is not None:
            waiting.append((started, target, request))
        else:
            self._looking_up[target.name] = [(started, target, request)]
            self._names.ask(target.name)

    def turn(self, *, wait: float) -> list[Outcome]:
        """Let the requests go on, for at most `wait` seconds or until some are done; those are returned.

        `wake` ends it early.
        """
        limit = monotonic() + wait
        while not (self._finished or self._is_woken) and (self._under_way or self._looking_up):
            now = monotonic()
            if self._deadline is not None and now >= self._deadline:
                self._deadline = None
                self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            else:
                until = limit if self._deadline is None else min(limit, self._deadline)
                for key, events in self._selector.select(max(until - now, 0)):
                    if key.fileobj is self._names.wakes:
                        self._take_answers()
                    else:
                        self._multi.socket_action(key.fd, _curl_events(events))
            self._collect()
            if now >= limit:
                break
        self._is_woken = False
        self._give_up_lookups()
        outcomes = list(self._finished)
        self._finished.clear()
        return outcomes

    def wake(self) -> None:
        """Let `turn` come back; may be called from another thread."""
        self._is_woken = True
        self._names.wake()

    def close(self) -> None:
        """Drop every connection and whatever is still under way."""
        for curl, exchange in self._under_way.items():
            self._multi.remove_handle(curl)
            curl.close()
            exchange.close()
        self._under_way.clear()
        self._looking_up.clear()
        for curl in self._idle:
            curl.close()
        self._idle.clear()
        self._multi.close()
        self._selector.close()
        self._names.close()

    def _checked_target(self, url: str) -> _Target:
        if self._checked_by is not (section := load(WebhooksSettings)) or len(self._targets) >= KNOWN_TARGETS:
            self._checked_by = section
            self._targets.clear()
        if url not in self._targets:
            self._targets[url] = _target(checked_url(url))
        return self._targets[url]

    def _dial(
        self,
        request: Request,
        started: float,
        target: _Target | None = None,
        addresses: Sequence[str] = (),
    ) -> None:
        left = int((request.timeout - (monotonic() - started)) * 1000)
        if left < 1:
            self._finished.append(_timed_out(request, started))
            return
        curl = self._idle.pop() if self._idle else self._new_handle()
        exchange = _Exchange(request, started)
        curl.setopt(pycurl.URL, request.url)
        curl.setopt(pycurl.POSTFIELDS, request.body)
        curl.setopt(pycurl.HTTPHEADER, _header_lines(request.headers))
        curl.setopt(pycurl.TIMEOUT_MS, left)
        curl.setopt(pycurl.CONNECTTIMEOUT_MS, min(left, int(settings.connect_timeout_seconds * 1000)))
        curl.setopt(pycurl.OPENSOCKETFUNCTION, exchange.open_socket)
        curl.setopt(pycurl.HEADERFUNCTION, exchange.take_header)
        curl.setopt(pycurl.WRITEFUNCTION, exchange.take_body)
        curl.setopt(pycurl.RESOLVE, [target.answer(addresses)] if target else [])
        self._under_way[curl] = exchange
        self._multi.add_handle(curl)

    def _take_answers(self) -> None:
        for name, addresses, detail in self._names.answers():
            for started, target, request in self._looking_up.pop(name, ()):
                if addresses:
                    self._dial(request, started, target, addresses)
                else:
                    seconds = monotonic() - started
                    self._finished.append(Outcome(request.tag, error="dns", detail=detail, seconds=seconds))

    def _give_up_lookups(self) -> None:
        now = monotonic()
        for name, waiting in list(self._looking_up.items()):
            late = [one for one in waiting if now - one[0] >= one[2].timeout]
            if late:
                self._finished += [_timed_out(request, started) for started, _, request in late]
                waiting[:] = [one for one in waiting if now - one[0] < one[2].timeout]
            if not waiting:
                del self._looking_up[name]

    def _new_handle(self) -> pycurl.Curl:
        curl = pycurl.Curl()
        for option, value in _OPTIONS.items():
            curl.setopt(option, value)
        curl.setopt(pycurl.USERAGENT, settings.user_agent)
        curl.setopt(pycurl.CAINFO, str(settings.ca_bundle or _system_authorities()))
        return curl

    def _collect(self) -> None:
        while True:
            waiting, done, failed = self._multi.info_read()
            for curl in done:
                self._finish(curl, 0, "")
            for curl, code, detail in failed:
                self._finish(curl, code, detail)
            if not waiting:
                return

    def _finish(self, curl: pycurl.Curl, code: int, detail: str) -> None:
        exchange = self._under_way.pop(curl)
        self._finished.append(exchange.outcome(curl, code, detail))
        exchange.close()
        self._multi.remove_handle(curl)
        self._idle.append(curl)

    def _watch(self, event: int, fd: int, multi: Any, data: Any) -> None:
        if event == pycurl.POLL_REMOVE:
            if fd in self._watched:
                self._watched.remove(fd)
                self._selector.unregister(fd)
            return
        mask = (selectors.EVENT_READ if event & pycurl.POLL_IN else 0) | (
            selectors.EVENT_WRITE if event & pycurl.POLL_OUT else 0
        )
        if fd in self._watched:
            self._selector.modify(fd, mask)
        else:
            self._watched.add(fd)
            self._selector.register(fd, mask)

    def _set_timer(self, milliseconds: int) -> None:
        self._deadline = None if milliseconds < 0 else monotonic() + milliseconds / 1000


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a URL leads: `name` is empty if it says an address."""

    name: str
    key: str
    """The host and the port as libcurl's table of names has them."""

    def answer(self, addresses: Sequence[str]) -> str:
        # The plus lets the entry grow old like one that libcurl found itself.
        dialled = (f"[{address}]" if ":" in address else address for address in addresses)
        return f"+{self.key}:{','.join(dialled)}"


class _Exchange:
    """One request under way: its guard, and what came back so far."""

    __slots__ = ("body", "head", "head_size", "is_cut", "opened", "refused", "request", "started")

    def __init__(self, request: Request, started: float) -> None:
        self.request = request
        self.head: dict[str, str] = {}
        self.head_size = 0
        self.body = bytearray()
        self.is_cut = False
        self.opened: list[socket.socket] = []
        self.refused = ""
        self.started = started

    def open_socket(self, purpose: int, address: Any) -> Any:
        family, kind, protocol, target = address
        host = target[0] if isinstance(target, tuple) else ""
        try:
            peer = ip_address(host)
        except ValueError:
            peer = None
        if family not in (socket.AF_INET, socket.AF_INET6) or peer is None:
            self.refused = "no IP address"
            return pycurl.SOCKET_BAD
        if not is_allowed(peer, allowed=settings.allowed_networks):
            self.refused = f"address {peer}"
            return pycurl.SOCKET_BAD
        # pycurl duplicates the descriptor; this object is ours to close.
        opened = socket.socket(family, kind, protocol)
        self.opened.append(opened)
        return opened

    def close(self) -> None:
        for opened in self.opened:
            opened.close()

    def take_header(self, line: bytes) -> int | None:
        self.head_size += len(line)
        if self.head_size > HEAD_LIMIT:
            return -1
        if line.startswith(b"HTTP/"):
            self.head.clear()
        else:
            name, colon, value = line.decode("latin-1").partition(":")
            if colon:
                self.head[name.strip().lower()] = value.strip()
        return None

    def take_body(self, chunk: bytes) -> int | None:
        room = settings.max_response_bytes - len(self.body)
        self.body += chunk[:room]
        if len(chunk) > room:
            self.is_cut = True
            return -1
        return None

    def outcome(self, curl: pycurl.Curl, code: int, detail: str) -> Outcome:
        seconds = monotonic() - self.started
        # A body that we stopped reading ends the transfer with an error of our own making.
        if code == 0 or (code == pycurl.E_WRITE_ERROR and self.is_cut):
            status = curl.getinfo(pycurl.RESPONSE_CODE)
            return Outcome(
                self.request.tag, status=status, seconds=seconds, headers=self.head, body=bytes(self.body)
            )
        error = ERROR_CLASSES.get(code, "protocol")
        if self.refused and not self.opened:
            error, detail = "blocked", self.refused
        return Outcome(self.request.tag, error=error, detail=detail, seconds=seconds)


def _header_lines(headers: Sequence[tuple[str, str]]) -> list[str]:
    # "Expect:" with nothing after keeps libcurl from sending its own.
    return [*(f"{name}: {value}" if value.strip() else f"{name};" for name, value in headers), "Expect:"]


def _target(url: str) -> _Target:
    host, port = host_and_port(url)
    return _Target("" if is_literal(host) else host, f"{host}:{port}")


def _timed_out(request: Request, started: float) -> Outcome:
    detail = "The time was over before the name was looked up."
    return Outcome(request.tag, error="timeout", detail=detail, seconds=monotonic() - started)


def _curl_events(events: int) -> int:
    return (pycurl.CSELECT_IN if events & selectors.EVENT_READ else 0) | (
        pycurl.CSELECT_OUT if events & selectors.EVENT_WRITE else 0
    )


def _system_authorities() -> str:
    # The libcurl in pycurl's wheel was built elsewhere and may look for its authorities there.
    paths = ssl.get_default_verify_paths()
    return paths.cafile or paths.openssl_cafile


_OPTIONS: dict[int, Any] = {
    pycurl.POST: 1,
    pycurl.NOSIGNAL: 1,
    pycurl.FOLLOWLOCATION: 0,
    pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
    pycurl.REDIR_PROTOCOLS: 0,
    # An empty proxy is none at all, whatever http_proxy and its relatives in the environment say.
    pycurl.PROXY: "",
    pycurl.NOPROXY: "*",
    pycurl.NETRC: pycurl.NETRC_IGNORED,
    pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,
    pycurl.HTTP09_ALLOWED: 0,
    pycurl.HTTP_CONTENT_DECODING: 0,
    pycurl.PATH_AS_IS: 1,
    pycurl.SSL_VERIFYPEER: 1,
    pycurl.SSL_VERIFYHOST: 2,
    pycurl.SSLVERSION: pycurl.SSLVERSION_TLSv1_2,
    pycurl.DNS_CACHE_TIMEOUT: CACHE_SECONDS,
    pycurl.MAXAGE_CONN: IDLE_CONNECTION_SECONDS,
    pycurl.MAXLIFETIME_CONN: CONNECTION_LIFETIME_SECONDS,
}
