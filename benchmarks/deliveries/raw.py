"""The bare client: signs and posts with pycurl's multi interface, and neither reads nor writes a database.

`python -m benchmarks.deliveries.raw COUNT` prints requests a second. Nothing that delivers from a database
with this client can be faster.
"""

from __future__ import annotations

import os
import selectors
import sys
import time
from base64 import b64encode
from hmac import digest
from typing import Any

import pycurl

from benchmarks.deliveries import drive

CONCURRENCY = 200
KEY = b"k" * 32


class Client:
    """Handles that are used again and again, watched by epoll."""

    def __init__(self, urls: list[str], bodies: list[bytes]) -> None:
        self.bodies = bodies
        self.started = self.finished = 0
        self.selector = selectors.DefaultSelector()
        self.deadline: float | None = None
        self.multi = pycurl.CurlMulti()
        self.multi.setopt(pycurl.M_MAXCONNECTS, CONCURRENCY * 2)
        self.multi.setopt(pycurl.M_SOCKETFUNCTION, self.watch)
        self.multi.setopt(pycurl.M_TIMERFUNCTION, self.set_timer)
        self.handles = [self.handle(urls[number % len(urls)]) for number in range(CONCURRENCY)]

    def handle(self, url: str) -> Any:
        curl = pycurl.Curl()
        for option, value in (
            (pycurl.URL, url), (pycurl.POST, 1), (pycurl.NOSIGNAL, 1), (pycurl.PROXY, ""),
            (pycurl.WRITEFUNCTION, lambda data: None), (pycurl.TIMEOUT_MS, 15_000),
        ):  # fmt: skip
            curl.setopt(option, value)
        return curl

    def run(self) -> None:
        for curl in self.handles[: len(self.bodies)]:
            self.start(curl)
        while self.finished < len(self.bodies):
            now = time.monotonic()
            if self.deadline is not None and now >= self.deadline:
                self.deadline = None
                self.multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
            else:
                for key, events in self.selector.select(
                    None if self.deadline is None else self.deadline - now
                ):
                    self.multi.socket_action(key.fd, events)
            self.collect()

    def start(self, curl: Any) -> None:
        body = self.bodies[self.started]
        message_id, timestamp = f"msg_{self.started:032x}", int(time.time())
        signature = b64encode(digest(KEY, b"%b.%d.%b" % (message_id.encode(), timestamp, body), "sha256"))
        curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(
            pycurl.HTTPHEADER,
            [
                "content-type: application/json",
                f"webhook-id: {message_id}",
                f"webhook-timestamp: {timestamp}",
                f"webhook-signature: v1,{signature.decode()}",
                "expect:",
            ],
        )
        self.started += 1
        self.multi.add_handle(curl)

    def collect(self) -> None:
        waiting = 1
        while waiting:
            waiting, done, failed = self.multi.info_read()
            if failed:
                raise SystemExit(f"a request failed: {failed[0][1:]}")
            for curl in done:
                assert curl.getinfo(pycurl.RESPONSE_CODE) == 204
                self.finished += 1
                self.multi.remove_handle(curl)
                if self.started < len(self.bodies):
                    self.start(curl)

    def watch(self, event: int, fd: int, multi: Any, data: Any) -> None:
        known = fd in self.selector.get_map()
        if event == pycurl.POLL_REMOVE:
            if known:
                self.selector.unregister(fd)
        elif known:
            self.selector.modify(fd, event)
        else:
            # curl's bits for reading and writing are those of `selectors`.
            self.selector.register(fd, event)

    def set_timer(self, milliseconds: int) -> None:
        self.deadline = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000


def main(count: int) -> None:
    with drive.receiver() as (port, _):
        urls = [f"http://127.0.0.1:{port}/hook/{number}" for number in range(drive.ENDPOINTS)]
        Client(urls, [os.urandom(1024)] * drive.WARM_UP).run()
        client = Client(urls, [os.urandom(1024)] * count)
        started = time.perf_counter()
        client.run()
        print(count / (time.perf_counter() - started))


if __name__ == "__main__":
    main(int(sys.argv[1]))
