"""A receiver that costs next to nothing: `python -m benchmarks.deliveries.receiver`, prints its port.

Reads requests, answers 204 after BENCH_DELAY seconds, keeps the connection. `GET /count` answers how many
came.
"""

from __future__ import annotations

import asyncio
import os

DELAY = float(os.environ.get("BENCH_DELAY", "0"))
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"

received = 0


class Receiver(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.unread = b""

    def data_received(self, data: bytes) -> None:
        global received
        self.unread += data
        while (end := self.unread.find(b"\r\n\r\n")) >= 0:
            head = self.unread[:end].lower()
            _, found, length = head.partition(b"\r\ncontent-length:")
            whole = end + 4 + (int(length.split(b"\r\n", 1)[0]) if found else 0)
            if len(self.unread) < whole:
                return
            self.unread = self.unread[whole:]
            if head.startswith(b"get /count"):
                body = str(received).encode()
                self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                continue
            received += 1
            if DELAY:
                asyncio.get_running_loop().call_later(DELAY, self.transport.write, ANSWER)
            else:
                self.transport.write(ANSWER)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", 0, backlog=1000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
