"""A small HTTP server for tests of clients: real sockets, in a thread."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any


class Server(socketserver.ThreadingTCPServer):
    """Answers each request with the next of ``answers`` (a status, or a status and headers), the
    last one over and over; ``requests`` has what came: method, path, headers, body."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, *answers: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = list(answers) or [200]
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        self.hold = threading.Event()
        """A status below 0 is that status, once this is set."""
        self.lock = threading.Lock()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.origin}/things?n=1"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        length = self.headers.get("Content-Length")
        chunked = self.headers.get("Transfer-Encoding") == "chunked"
        body = self.rfile.read(int(length or 0))
        while chunked:
            size = int(self.rfile.readline(), 16)
            body += self.rfile.read(size)
            self.rfile.readline()
            chunked = size > 0
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.server.lock:
            self.server.requests.append((self.command, self.path, headers, body))
            answers = self.server.answers
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        status, extra = answer if isinstance(answer, tuple) else (answer, {})
        if status < 0:
            self.server.hold.wait(60)
            status = -status
        text = f"{status} from {self.server.server_address[1]}".encode()
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            for name, value in extra.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)
        except OSError:
            self.close_connection = True

    do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_GET  # noqa: N815


@contextmanager
def serving(*answers: Any) -> Iterator[Server]:
    """While it runs."""
    with Server(*answers) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.hold.set()
            server.shutdown()
            thread.join()
