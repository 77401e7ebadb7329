"""Socket activation with nothing but Python's standard library: ``python plain.py``."""

import os
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FIRST_FD = 3


def activated_sockets() -> list[socket.socket]:
    """The sockets that were passed to this process; none when they were meant for another."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    return [socket.socket(fileno=FIRST_FD + i) for i in range(int(os.environ["LISTEN_FDS"]))]


class Handler(BaseHTTPRequestHandler):
    """Answers every GET with the name of the program and its pid."""

    timeout = 10  # a client that sends nothing must not hold a thread for ever

    def do_GET(self) -> None:
        """One request."""
        body = f"python {os.getpid()}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until SIGTERM; requests in hand are finished."""
    sockets = activated_sockets()
    if not sockets:
        raise SystemExit("no socket passed; start this with everup or activate.py")
    address = sockets[0].getsockname()
    server = ThreadingHTTPServer(address[:2], Handler, bind_and_activate=False)
    server.socket.close()  # the one that the constructor made
    server.socket = sockets[0]
    server.daemon_threads = False
    # shutdown() waits for the loop to end, so it cannot be called from within the loop's thread.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.1)
    server.server_close()


if __name__ == "__main__":
    main()
