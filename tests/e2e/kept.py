"""A server for tests of deploys: it keeps connections open and ends gracefully.

``python -S -E kept.py CONTROL_DIR``, standard library only. It serves HTTP/1.1 on the descriptors
from 3 on and answers ``/`` with its pid and the variable VERSION, ``/slow`` after half a second,
``/readyz`` with 503 while CONTROL_DIR has a file ``unready`` (or ``unready.VERSION``). A file
``crash`` (``crash.VERSION``) ends it as soon as it starts, with status 7. At SIGTERM it takes
nothing new, answers what has come and, for a while, the first request of each connection that it
has accepted; it closes what is idle and ends with status 0.
"""

import asyncio
import os
import signal
import socket
import sys

CONTROL = sys.argv[1]
VERSION = os.environ.get("VERSION", "-")
ANSWER = f"{os.getpid()} {VERSION}\n".encode()
FIRST_REQUEST_S = 3.0
connections: "set[Connection]" = set()
leaving = False


def told(name: str) -> bool:
    return any(os.path.exists(f"{CONTROL}/{file}") for file in (name, f"{name}.{VERSION}"))


class Connection(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.seen = b""
        self.busy = False
        self.asked = False
        connections.add(self)

    def connection_lost(self, _error: Exception | None) -> None:
        connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self.seen += data
        self.serve()

    def serve(self) -> None:
        if self.busy or b"\r\n\r\n" not in self.seen:
            return
        head, _, self.seen = self.seen.partition(b"\r\n\r\n")
        path = head.split(b" ", 2)[1]
        self.busy = self.asked = True
        close = b"connection: close" in head.lower()
        if path == b"/slow":
            asyncio.get_running_loop().call_later(0.5, self.answer, path, close)
        else:
            self.answer(path, close)

    def answer(self, path: bytes, close: bool) -> None:
        close = close or leaving
        status = "503 No" if path == b"/readyz" and told("unready") else "200 OK"
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(ANSWER)}\r\n"
        head += "Connection: close\r\n\r\n" if close else "\r\n"
        self.transport.write(head.encode() + ANSWER)
        self.busy = False
        if close:
            self.transport.close()
        else:
            self.serve()


async def main() -> None:
    loop, end = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    servers = []
    for number in range(int(os.environ.get("LISTEN_FDS", "0"))):
        sock = socket.socket(fileno=3 + number)
        servers.append(await loop.create_server(Connection, sock=sock, backlog=4096))
    print(f"serving as {os.getpid()} {VERSION}", flush=True)
    await end.wait()
    global leaving
    leaving = True
    for server in servers:
        server.close()
    await asyncio.sleep(0.05)  # asyncio tells of what it has accepted in a later turn
    until = loop.time() + FIRST_REQUEST_S
    while connections:
        for connection in list(connections):
            if not connection.busy and (connection.asked or loop.time() > until):
                connection.transport.close()
        await asyncio.sleep(0.01)


if told("crash"):
    print("it cannot start", file=sys.stderr, flush=True)
    sys.exit(7)
asyncio.run(main())
