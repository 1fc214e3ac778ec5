from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.utils import timezone

from svc_infra_django.webhooks.models import Delivery, Endpoint
from svc_infra_django.webhooks.queue import NIL, Claimed, LaneClaim
from svc_infra_django.webhooks.services.subscribing import create_endpoint


def later(**amount: float) -> datetime:
    """A moment so far from now."""
    return timezone.now() + timedelta(**amount)


def claim_all(*, now: datetime, lane: int = 0) -> list[Claimed]:
    """Take what is due in one lane, as a deliverer would."""
    lanes = [LaneClaim(lane, 100, NIL)]
    return Delivery.objects.claim(lanes, share=100, full=[], now=now, lease_until=now + timedelta(seconds=90))


@dataclass
class Received:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A real HTTP server on loopback; `answers` says what it does, request by request."""

    port: int
    requests: list[Received] = field(default_factory=list)
    script: list[Any] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"thank you"
    delay: float = 0.0
    connections: int = 0
    most_at_once: int = 0

    def url(self, path: str = "/hook", *, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def answers(self, *script: Any, **headers: str) -> None:
        """Statuses, or functions of the handler, in order; the last one goes on for ever."""
        self.script[:] = script
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.requests]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    here: Receiver
    lock = threading.Lock()
    at_once = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            nonlocal at_once
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                at_once += 1
                here.most_at_once = max(here.most_at_once, at_once)
                headers = {name.lower(): value for name, value in self.headers.items()}
                here.requests.append(Received(self.path, headers, body))
                step = here.script.pop(0) if len(here.script) > 1 else (here.script or [200])[0]
            try:
                if here.delay:
                    time.sleep(here.delay)
                if callable(step):
                    step(self)
                else:
                    self.send_response(step)
                    for name, value in here.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(here.body)))
                    self.end_headers()
                    self.wfile.write(here.body)
            except OSError:
                self.close_connection = True
            finally:
                with lock:
                    at_once -= 1

        do_GET = do_POST

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256
        received: Receiver

        def process_request(self, request: Any, client_address: Any) -> None:
            here.connections += 1
            super().process_request(request, client_address)

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    here = server.received = Receiver(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield here
    server.shutdown()
    server.server_close()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(autouse=True)
def loopback_allowed(svc_settings: Callable[..., None]) -> None:
    svc_settings(webhooks={"allow_http": True, "allowed_networks": ("127.0.0.0/8",), "timeout_seconds": 20})


@pytest.fixture
def make_endpoint(db: None, receiver: Receiver) -> Callable[..., Endpoint]:
    """An endpoint at the receiver; its secret is `endpoint.shown_secret`."""

    def make(path: str = "/hook", **fields: Any) -> Endpoint:
        endpoint, secret = create_endpoint(**{"url": receiver.url(path), **fields})
        endpoint.shown_secret = secret  # type: ignore[attr-defined]
        return endpoint

    return make


@pytest.fixture
def endpoint(make_endpoint: Callable[..., Endpoint]) -> Endpoint:
    return make_endpoint()
