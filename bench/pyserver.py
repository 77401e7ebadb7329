"""The benchmarks' slow starter: an asyncio HTTP server on the standard library alone.

usage: pyserver.py [--port N | --fd N] [--pidfile F] [--accept-log F]

Takes descriptor 3 unless told otherwise and answers every request with its pid, like server.c;
"/slow?ms=N" after N ms.
"""

import asyncio
import os
import socket
import sys
import time

HEAD = "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{}"


class Answer(asyncio.Protocol):
    body = f"{os.getpid()}\n"
    reply = HEAD.format(len(body), body).encode()
    log_fd = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.seen = b""
        if self.log_fd >= 0:
            client_port = transport.get_extra_info("peername")[1]
            line = f"{os.getpid()} {time.monotonic_ns()} {client_port}\n"
            os.write(self.log_fd, line.encode())

    def data_received(self, data: bytes) -> None:
        self.seen = (self.seen + data)[-4096:]
        if b"\r\n\r\n" in self.seen:
            path = self.seen.split(b" ", 2)[1]
            if path.startswith(b"/slow?ms="):
                asyncio.get_running_loop().call_later(int(path[9:]) / 1000, self.answer)
            else:
                self.answer()

    def answer(self) -> None:
        self.transport.write(self.reply)
        self.transport.close()


def listener(options: dict[str, str]) -> socket.socket:
    if "--port" in options:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", int(options["--port"])))
        return sock
    return socket.socket(fileno=int(options.get("--fd", "3")))


async def main() -> None:
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    if "--accept-log" in options:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        Answer.log_fd = os.open(options["--accept-log"], flags, 0o644)
    sock = listener(options)
    server = await asyncio.get_running_loop().create_server(Answer, sock=sock, backlog=4096)
    if "--pidfile" in options:
        with open(options["--pidfile"], "w") as file:
            file.write(f"{os.getpid()}\n")
    await server.serve_forever()


asyncio.run(main())
