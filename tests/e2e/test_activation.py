"""The programs of examples/activation take a socket that is passed to them, and leave it whole."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ACTIVATION = Path(__file__).parents[2] / "examples" / "activation"
DEADLINE_S = 20.0

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A listening socket that outlives the programs, as everup's keeper holds it."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as sock:
        yield sock


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a command with sockets as descriptors 3 and up; ends what is left by its pid."""
    started: list[subprocess.Popen[bytes]] = []

    def start_one(
        argv: list[str], *sockets: socket.socket, env: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        fds = [sock.fileno() for sock in sockets]
        activate = [sys.executable, str(ACTIVATION / "activate.py")]
        process = subprocess.Popen(
            activate + [f"--fd={fd}" for fd in fds] + ["--", *argv],
            pass_fds=fds,
            cwd=ACTIVATION,
            env=os.environ | {"HOME": str(tmp_path)} | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start_one
    for process in started:
        # A killed master leaves workers; they are in the session that was opened for it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        out, _ = process.communicate(timeout=DEADLINE_S)
        print(out.decode(errors="replace"))


def connect(listener: socket.socket) -> socket.socket:
    """A client's connection with its request sent; it waits in the queue if nobody accepts."""
    client = socket.create_connection(listener.getsockname(), timeout=DEADLINE_S)
    client.sendall(b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
    return client


def answer(client: socket.socket) -> tuple[bytes, bytes]:
    """Status line and body; reads to the end of the connection."""
    with client:
        data = b""
        while chunk := client.recv(65536):
            data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0], body.strip()


def wait_gone(group: int) -> None:
    """Until no process of the session is left."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError("processes are left")


def program(name: str, listener: socket.socket, tmp_path: Path) -> list[str]:
    """The command line, as in docs/how-to/socket-activation.md."""
    python = sys.executable
    match name:
        case "python":
            return [python, "plain.py"]
        case "uvicorn":
            return [python, "-m", "uvicorn", "asgi_app:app", "--fd", "3"]
        case "gunicorn":
            argv = [python, "-m", "gunicorn", "wsgi_app:app", "--workers", "2"]
            return [*argv, "--no-control-socket"]
        case "node":
            return [_installed("node"), "server.mjs"]
        case "nginx":
            host, port = listener.getsockname()
            text = (ACTIVATION / "nginx.conf").read_text()
            assert "listen 127.0.0.1:8080;" in text
            text = text.replace("127.0.0.1:8080", f"{host}:{port}")
            (tmp_path / "nginx.conf").write_text(text)
            prefix = ["-p", str(tmp_path), "-c", "nginx.conf"]
            return [_installed("nginx"), *prefix, "-e", "stderr"]
        case _:
            raise AssertionError(name)


def _installed(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


NGINX = {"NGINX": "3;"}
PROGRAMS = ["python", "uvicorn", "gunicorn", "node", "nginx"]


@pytest.mark.parametrize("name", PROGRAMS)
def test_serves_and_hands_over(
    name: str, listener: socket.socket, start: Start, tmp_path: Path
) -> None:
    """A request is answered; one that comes between two processes is answered by the next."""
    argv = program(name, listener, tmp_path)
    stop = signal.SIGQUIT if name == "nginx" else signal.SIGTERM

    first = start(argv, listener, env=NGINX)
    status, body = answer(connect(listener))
    assert status == b"HTTP/1.1 200 OK" or status == b"HTTP/1.0 200 OK"
    kind, pid = body.split()
    assert kind == name.encode()

    first.send_signal(stop)
    # uvicorn ends by the signal that it has handled.
    assert first.wait(DEADLINE_S) in (0, -stop)
    wait_gone(first.pid)

    between = connect(listener)
    start(argv, listener, env=NGINX)
    status, body = answer(between)
    assert status.endswith(b"200 OK")
    assert body.split()[0] == name.encode()
    assert body.split()[1] != pid


@pytest.mark.parametrize("name", PROGRAMS)
def test_socket_survives_kill(
    name: str, listener: socket.socket, start: Start, tmp_path: Path
) -> None:
    """kill -9 of the whole replica: the client in the queue gets the successor's answer."""
    argv = program(name, listener, tmp_path)
    first = start(argv, listener, env=NGINX)
    assert answer(connect(listener))[0].endswith(b"200 OK")

    os.killpg(first.pid, signal.SIGKILL)
    assert first.wait(DEADLINE_S) == -signal.SIGKILL
    wait_gone(first.pid)

    waiting = connect(listener)
    start(argv, listener, env=NGINX)
    assert answer(waiting)[0].endswith(b"200 OK")


def test_several_sockets_keep_their_order(start: Start) -> None:
    """Descriptors 3, 4, 5 are the sockets in order, wherever they were before."""
    code = (
        "import os, socket\n"
        "assert os.environ['LISTEN_PID'] == str(os.getpid())\n"
        "print(os.environ['LISTEN_FDS'], os.environ['LISTEN_FDNAMES'])\n"
        "for fd in (3, 4, 5): print(socket.socket(fileno=fd).getsockname()[1])\n"
        "print([int(f) for f in os.listdir('/proc/self/fd') if int(f) > 5])\n"
    )
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        sockets.reverse()  # the highest descriptor first: each one sits where another has to go
        ports = [sock.getsockname()[1] for sock in sockets]
        process = start([sys.executable, "-c", code], *sockets)
        assert process.stdout is not None
        lines = process.stdout.read().decode().split("\n")
        assert process.wait(DEADLINE_S) == 0
    assert lines[0] == "3 listen0:listen1:listen2"
    assert [int(line) for line in lines[1:4]] == ports
    assert len(lines[4].split(",")) == 1, "a socket was passed twice"  # the one is listdir's own


@pytest.mark.parametrize("wrapped", [True, False])
def test_wrapper_that_forks_hides_the_socket(
    wrapped: bool, listener: socket.socket, start: Start
) -> None:
    """gunicorn and plain.py look at LISTEN_PID: behind a wrapper they see no socket."""
    code = "from gunicorn.systemd import listen_fds; raise SystemExit(listen_fds())"
    argv = [sys.executable, "-c", code]
    if wrapped:
        call = f"import subprocess, sys; sys.exit(subprocess.call({argv!r}, close_fds=False))"
        argv = [sys.executable, "-c", call]
    assert start(argv, listener).wait(DEADLINE_S) == (0 if wrapped else 1)
