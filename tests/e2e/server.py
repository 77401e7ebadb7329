"""A server for tests: standard library only, told what to do by files in a directory.

``python -S -E server.py CONTROL_DIR``. It serves HTTP on the descriptors from 3 on (LISTEN_FDS),
or on PORT, and answers ``/`` with a line of JSON that says who it is. Every file name may end in
``.REPLICA`` to mean one replica only:

- ``unready``, ``unhealthy``: ``/readyz``, ``/healthz`` answer 503
- ``hang``: no request is answered; ``garbage``: bytes that are no HTTP
- ``crash``: exit with the status in the file
- ``say``: print the text in the file, then remove it; ``notify``: the same over NOTIFY_SOCKET
- ``watchdog``: send WATCHDOG=1 every 50 ms
- ``stubborn``: SIGTERM is ignored; each is a line of the file ``refused``
"""

import os
import signal
import socket
import sys
import time
from _thread import start_new_thread

CONTROL = sys.argv[1]
REPLICA = os.environ.get("EVERUP_REPLICA", "")
POLL_S = 0.02


def told(name: str) -> str:
    """Path of the control file that is there, or nothing."""
    for path in (f"{CONTROL}/{name}.{REPLICA}", f"{CONTROL}/{name}"):
        if os.path.exists(path):
            return path
    return ""


def take(name: str) -> str:
    """Text of a control file, which is gone afterwards."""
    path = told(name)
    if not path:
        return ""
    with open(path) as file:
        text = file.read()
    os.unlink(path)
    return text


def answer(path: str, listener: str) -> tuple[str, str]:
    if path == "/readyz":
        return ("503 No", "not ready") if told("unready") else ("200 OK", "ready")
    if path == "/healthz":
        return ("503 No", "not well") if told("unhealthy") else ("200 OK", "well")
    who = f'{{"pid": {os.getpid()}, "replica": "{REPLICA}", "listener": "{listener}"}}'
    return "200 OK", who


def serve_one(connection: socket.socket, listener: str) -> None:
    try:
        head = b""
        while b"\r\n\r\n" not in head:
            data = connection.recv(4096)
            if not data:
                return
            head += data
        path = head.split(b" ", 2)[1].decode()
        if path == "/slow":
            time.sleep(1.0)
        while told("hang"):
            time.sleep(POLL_S)
        if told("garbage"):
            connection.sendall(b"\x00\xff\xfenot http at all\r\n\r\n" * 100)
            return
        status, body = answer(path, listener)
        reply = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        connection.sendall((reply + body).encode())
    except OSError:
        pass
    finally:
        connection.close()


def serve(sock: socket.socket, listener: str) -> None:
    while True:
        connection, _ = sock.accept()
        start_new_thread(serve_one, (connection, listener))


def notify(text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])


def listeners() -> list[tuple[socket.socket, str]]:
    if "LISTEN_FDS" in os.environ:
        assert os.environ["LISTEN_PID"] == str(os.getpid())
        names = os.environ["LISTEN_FDNAMES"].split(":")
        return [(socket.socket(fileno=3 + n), name) for n, name in enumerate(names)]
    if "PORT" in os.environ:
        return [(socket.create_server(("127.0.0.1", int(os.environ["PORT"]))), "port")]
    return []


def terminated(*_: object) -> None:
    if not told("stubborn"):
        os._exit(0)
    with open(f"{CONTROL}/refused", "a") as file:  # so that a test knows that it has been asked
        file.write("TERM\n")


def main() -> None:
    signal.signal(signal.SIGTERM, terminated)
    signal.signal(signal.SIGUSR1, lambda *_: print("got USR1", flush=True))
    for sock, name in listeners():
        start_new_thread(serve, (sock, name))
    print(f"serving as {os.getpid()}", flush=True)
    watchdog_at = 0.0
    while True:
        if crash := told("crash"):
            with open(crash) as file:
                os._exit(int(file.read() or "1"))
        if text := take("say"):
            print(text, flush=True)
        if text := take("notify"):
            notify(text)
        if told("watchdog") and time.monotonic() >= watchdog_at:
            watchdog_at = time.monotonic() + 0.05
            notify("WATCHDOG=1")
        time.sleep(POLL_S)


if __name__ == "__main__":
    main()
