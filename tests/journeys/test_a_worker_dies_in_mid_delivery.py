from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from .conftest import Demo, wait_until

pytestmark = [
    pytest.mark.sqlite,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for processes in /proc"),
]

ORDER = {"customer_email": "grace@example.com", "item": "Teapot", "quantity": 1, "unit_price": "19.50"}


class Stranger:
    """A receiver that keeps the first request waiting until the worker behind it is dead."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.is_first_waiting = threading.Event()
        self.may_answer = threading.Event()
        stranger = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                stranger.heard.append(self.headers["webhook-id"])
                if len(stranger.heard) == 1:
                    stranger.is_first_waiting.set()
                    stranger.may_answer.wait(20)
                    return
                self.send_response(204)
                self.end_headers()

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def stranger() -> Iterator[Stranger]:
    made = Stranger()
    yield made
    made.may_answer.set()
    made.server.shutdown()
    made.server.server_close()


def test_a_killed_worker_is_replaced_and_its_delivery_made_once_more(
    demo: Callable[..., Demo], stranger: Stranger
) -> None:
    show = demo()
    show.start()
    clerk = show.sign_in("clerk")
    made = show.browser.post(
        "/api/webhooks/endpoints", {"url": stranger.url, "event_types": ["order.*"]}, **clerk
    )
    assert made.status == 201, made.text

    show.browser.post("/api/orders", ORDER, **clerk)
    assert stranger.is_first_waiting.wait(60)
    worker = show.worker()
    os.kill(worker, signal.SIGKILL)
    show.browser.post("/api/orders", ORDER, **clerk)
    stranger.may_answer.set()

    assert wait_until(lambda: len(stranger.heard) >= 3), show.said
    assert show.worker() != worker
    first = stranger.heard[0]
    assert stranger.heard.count(first) == 2
    assert len(set(stranger.heard)) == 2
    assert show.stop(signal.SIGTERM) == 0
    assert show.processes() == {}
