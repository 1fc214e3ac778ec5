"""A receiver that costs next to nothing: `python -m benchmarks.deliveries.receiver`, prints its port.

Reads requests, answers 204 after BENCH_DELAY seconds, keeps the connection. One thread around epoll and no
protocol beyond what a POST needs, so that little of what is measured is its own; compare.py says how much.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque

DELAY = float(os.environ.get("BENCH_DELAY", "0"))
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
CHUNK = 65_536


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    unread: dict[int, bytes] = {}
    thinking: deque[tuple[float, socket.socket]] = deque()
    print(listener.getsockname()[1], flush=True)

    while True:
        wait = max(thinking[0][0] - time.monotonic(), 0) if thinking else -1
        for fd, _ in poll.poll(wait):
            if fd == listener.fileno():
                client, _ = listener.accept()
                client.setblocking(False)
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()] = client
                poll.register(client, select.EPOLLIN)
                continue
            client = clients[fd]
            data = _read(client)
            if not data:
                poll.unregister(fd)
                unread.pop(fd, None)
                clients.pop(fd).close()
                continue
            rest = unread.pop(fd, b"") + data
            while whole := _length_of_first(rest):
                rest = rest[whole:]
                if DELAY:
                    thinking.append((time.monotonic() + DELAY, client))
                else:
                    _answer(client)
            if rest:
                unread[fd] = rest
        while thinking and thinking[0][0] <= time.monotonic():
            _answer(thinking.popleft()[1])


def _read(client: socket.socket) -> bytes:
    try:
        return client.recv(CHUNK)
    except ConnectionError:
        return b""


def _length_of_first(data: bytes) -> int:
    """How long the first request in `data` is; 0 if it is not all there yet."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return 0
    _, found, length = data[:end].lower().partition(b"\r\ncontent-length:")
    whole = end + 4 + (int(length.split(b"\r\n", 1)[0]) if found else 0)
    return whole if len(data) >= whole else 0


def _answer(client: socket.socket) -> None:
    try:
        client.send(ANSWER)
    except OSError:
        return  # it went away; the next poll says so


if __name__ == "__main__":
    main()
