"""The load client counts what a misbehaving server does to it, each thing as what it is."""

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from load import Load, Summary

DEADLINE_S = 20.0
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n4711 v1"
LAST = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n4711 v1"
KINDS = ("refused", "reset", "timed_out", "cut", "wrong")

IDLE = {"close": "idle_closed", "reset": "idle_reset"}

Handler = Callable[["Peer"], None]


class Peer:
    """A connection at the server's end."""

    def __init__(self, sock: socket.socket, number: int, over: threading.Event) -> None:
        self.sock = sock
        self.number = number
        self.over = over
        self.data = b""  # of the next request

    def request(self) -> bool:
        """Read one request; False if the client has gone."""
        while b"\r\n\r\n" not in self.data:
            part = self.sock.recv(4096)
            if not part:
                return False
            self.data += part
        _, _, self.data = self.data.partition(b"\r\n\r\n")
        return True

    def reset(self) -> None:
        """Close in a way that sends RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Server:
    """Accepts on 127.0.0.1 and leaves each connection to ``handler`` in a thread of its own."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.over = threading.Event()
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=1000)
        self.port = int(self.sock.getsockname()[1])
        self.peers: list[Peer] = []
        self.threads = [threading.Thread(target=self.accept)]
        self.threads[0].start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.sock.accept()
                peer = Peer(sock, len(self.peers), self.over)
                self.peers.append(peer)
                thread = threading.Thread(target=self.serve, args=(peer,))
                self.threads.append(thread)
                thread.start()

    def serve(self, peer: Peer) -> None:
        with contextlib.suppress(OSError), peer.sock:
            self.handler(peer)

    def close(self) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        self.threads[0].join(DEADLINE_S)
        for peer in self.peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join(DEADLINE_S)


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], Server]]:
    servers: list[Server] = []

    def start(handler: Handler) -> Server:
        servers.append(Server(handler))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def new(port: int, requests: int = 20, timeout_s: float = DEADLINE_S) -> Summary:
    """What becomes of so many requests on new connections."""
    with Load(
        port, rate=500, kept=0, requests=requests, timeout_s=timeout_s, limit_s=DEADLINE_S
    ) as load:
        return load.finish()


def kept(port: int, requests: int = 20, timeout_s: float = DEADLINE_S) -> Summary:
    """What becomes of so many requests on one kept connection."""
    with Load(
        port,
        rate=0,
        kept=1,
        interval_s=0.005,
        requests=requests,
        timeout_s=timeout_s,
        limit_s=DEADLINE_S,
    ) as load:
        return load.finish()


def look_until(load: Load, condition: Callable[[Summary], bool]) -> Summary:
    until = time.monotonic() + DEADLINE_S
    while not condition(seen := load.look()):
        assert time.monotonic() < until, seen
        time.sleep(0.01)
    return seen


def check(summary: Summary, **expected: int) -> None:
    """Everything that is not expected did not happen."""
    assert summary.sent == summary.ok + summary.failed, summary
    for name in ("ok", *KINDS, "retried", "reconnected", "idle_closed", "idle_reset", "unsent"):
        assert getattr(summary, name) == expected.get(name, 0), summary


def hang(peer: Peer) -> None:
    peer.over.wait()


def answer_all(peer: Peer) -> None:
    while peer.request():
        peer.sock.sendall(REPLY)


def test_good_answers_are_counted_with_the_process_that_gave_them(
    serve: Callable[[Handler], Server],
) -> None:
    with Load(
        serve(answer_all).port, rate=300, kept=5, interval_s=0.02, requests=200, limit_s=DEADLINE_S
    ) as load:
        summary = load.finish()
    check(summary, ok=200)
    assert summary.answers == {"4711 v1": 200}
    assert summary.pids == {4711: 200}
    assert 0 < summary.latency_ms["p50"] <= summary.latency_ms["p99"] <= summary.latency_ms["max"]


def test_an_answer_in_small_pieces_is_whole(serve: Callable[[Handler], Server]) -> None:
    def drip(peer: Peer) -> None:
        peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while peer.request():
            for byte in REPLY:
                peer.sock.sendall(bytes([byte]))

    server = serve(drip)
    check(new(server.port, 5), ok=5)
    check(kept(server.port, 5), ok=5)


def test_refused() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound, so that nobody else gets it, and not listening
        port = int(sock.getsockname()[1])
        summary = new(port)
        check(summary, refused=20)
        assert summary.failures[0]["kind"] == "refused"
        check(kept(port), refused=20)


def test_reset(serve: Callable[[Handler], Server]) -> None:
    def handler(peer: Peer) -> None:
        peer.request()
        peer.reset()

    server = serve(handler)
    check(new(server.port), reset=20)
    # Nothing was ever answered on these connections: no second try.
    check(kept(server.port), reset=20, reconnected=19)


def test_hang(serve: Callable[[Handler], Server]) -> None:
    server = serve(hang)
    check(new(server.port, timeout_s=0.3), timed_out=20)
    check(kept(server.port, 2, timeout_s=0.3), timed_out=2, reconnected=1)


def test_hang_in_the_middle_of_an_answer(serve: Callable[[Handler], Server]) -> None:
    def handler(peer: Peer) -> None:
        peer.request()
        peer.sock.sendall(REPLY[:-3])
        peer.over.wait()

    check(new(serve(handler).port, timeout_s=0.3), timed_out=20)


@pytest.mark.parametrize("length", [0, 10, len(REPLY) - 1])
def test_cut_short(serve: Callable[[Handler], Server], length: int) -> None:
    def handler(peer: Peer) -> None:
        peer.request()
        peer.sock.sendall(REPLY[:length])

    summary = new(serve(handler).port)
    check(summary, cut=20)
    assert f"{length} bytes" in summary.failures[0]["detail"]


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno",
        b"\x00\xff\xfe not http",
        REPLY + b"and more",
        b"HTTP/1.1 200 OK\r\n\r\nwithout a length, nobody knows whether it is whole",
    ],
)
def test_wrong(serve: Callable[[Handler], Server], reply: bytes) -> None:
    def handler(peer: Peer) -> None:
        peer.request()
        peer.sock.sendall(reply)

    check(new(serve(handler).port), wrong=20)


def test_a_wrong_answer_on_a_kept_connection_leaves_the_connection(
    serve: Callable[[Handler], Server],
) -> None:
    def handler(peer: Peer) -> None:
        while peer.request():
            peer.sock.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno")

    check(kept(serve(handler).port), wrong=20)


# --- kept connections ------------------------------------------------------------------------


def test_connection_close_costs_nothing(serve: Callable[[Handler], Server]) -> None:
    def handler(peer: Peer) -> None:
        peer.request()
        peer.sock.sendall(LAST)

    check(kept(serve(handler).port), ok=20, reconnected=19)


def test_http_1_0_means_close(serve: Callable[[Handler], Server]) -> None:
    def handler(peer: Peer) -> None:
        peer.request()
        peer.sock.sendall(REPLY.replace(b"HTTP/1.1", b"HTTP/1.0"))
        peer.over.wait()

    check(kept(serve(handler).port), ok=20, reconnected=19)


@pytest.mark.parametrize("end", ["close", "reset"])
def test_lost_between_two_requests(serve: Callable[[Handler], Server], end: str) -> None:
    """The client sees the end before its next request is due, and opens another connection."""
    read = threading.Event()

    def handler(peer: Peer) -> None:
        peer.request()
        peer.sock.sendall(REPLY)
        if peer.number == 0:
            read.wait()
            if end == "reset":
                peer.reset()
        else:
            answer_all(peer)

    with Load(serve(handler).port, rate=0, kept=1, interval_s=1.0, limit_s=DEADLINE_S) as load:
        look_until(load, lambda seen: seen.ok == 1)
        read.set()
        look_until(load, lambda seen: seen.ok == 2)
        summary = load.stop()
    check(summary, ok=summary.sent, reconnected=1, **{IDLE[end]: 1})


@pytest.mark.parametrize("end", ["close", "reset"])
def test_lost_after_a_request_is_sent_once_more(
    serve: Callable[[Handler], Server], end: str
) -> None:
    def handler(peer: Peer) -> None:
        if peer.number == 0:
            peer.request()
            peer.sock.sendall(REPLY)
            peer.request()
            if end == "reset":
                peer.reset()
        else:
            answer_all(peer)

    check(kept(serve(handler).port), ok=20, retried=1, reconnected=1)


def test_a_second_try_that_fails_has_failed(serve: Callable[[Handler], Server]) -> None:
    def handler(peer: Peer) -> None:
        peer.request()
        if peer.number == 0:
            peer.sock.sendall(REPLY)
            peer.request()

    summary = kept(serve(handler).port, 2)
    check(summary, ok=1, cut=1, retried=1, reconnected=1)
    assert "second time" in summary.failures[0]["detail"]


def test_a_second_try_that_is_refused_has_failed(serve: Callable[[Handler], Server]) -> None:
    servers: list[Server] = []

    def handler(peer: Peer) -> None:
        peer.request()
        peer.sock.sendall(REPLY)
        peer.request()
        servers[0].sock.shutdown(socket.SHUT_RDWR)

    servers.append(serve(handler))
    check(kept(servers[0].port, 2), ok=1, refused=1, retried=1)


def test_half_an_answer_is_not_asked_for_again(serve: Callable[[Handler], Server]) -> None:
    def handler(peer: Peer) -> None:
        peer.request()
        peer.sock.sendall(REPLY)
        peer.request()
        peer.sock.sendall(REPLY[:10])

    check(kept(serve(handler).port, 2), ok=1, cut=1)


# --- the rate --------------------------------------------------------------------------------


def test_a_slow_server_does_not_slow_the_load(serve: Callable[[Handler], Server]) -> None:
    """Nobody is answered before all have asked: a client that waited would never end."""
    asked = threading.Semaphore(0)
    gate = threading.Event()

    def handler(peer: Peer) -> None:
        peer.request()
        asked.release()
        gate.wait(DEADLINE_S)
        peer.sock.sendall(LAST)

    with Load(serve(handler).port, rate=300, kept=0, requests=60, limit_s=DEADLINE_S) as load:
        for _ in range(60):
            assert asked.acquire(timeout=DEADLINE_S)
        gate.set()
        summary = load.finish()
    check(summary, ok=60)
    assert summary.latency_ms["max"] > 50  # counted from the instant, not from the turn


def test_a_kept_connection_makes_up_for_what_it_owes(serve: Callable[[Handler], Server]) -> None:
    def handler(peer: Peer) -> None:
        peer.request()
        threading.Event().wait(0.3)
        peer.sock.sendall(REPLY)
        answer_all(peer)

    summary = kept(serve(handler).port, 30)
    check(summary, ok=30)
    # The second was due 5 ms after the first, and waited with it.
    assert summary.latency_ms["p50"] > 5


def test_one_request_at_a_time_on_a_connection(serve: Callable[[Handler], Server]) -> None:
    """Also while it is always behind and more is always due."""
    early: list[bytes] = []

    def handler(peer: Peer) -> None:
        while peer.request():
            readable, _, _ = select.select([peer.sock], [], [], 0.003)
            if readable and (data := peer.data or peer.sock.recv(4096, socket.MSG_PEEK)):
                early.append(data)
            peer.sock.sendall(REPLY)

    with Load(
        serve(handler).port, rate=0, kept=4, interval_s=0.001, requests=600, limit_s=DEADLINE_S
    ) as load:
        summary = load.finish()
    assert early == []
    check(summary, ok=600, unsent=summary.unsent)


def test_the_requests_in_flight_are_bounded(serve: Callable[[Handler], Server]) -> None:
    server = serve(hang)
    with Load(server.port, rate=1000, kept=0, requests=11, timeout_s=0.5, max_in_flight=10) as load:
        summary = load.finish()
    assert summary.timed_out == summary.sent == 11
    assert summary.unsent > 0


# --- start and end ---------------------------------------------------------------------------


def test_it_looks_and_stops_when_told(serve: Callable[[Handler], Server]) -> None:
    with Load(serve(answer_all).port, rate=100, kept=2) as load:
        seen = look_until(load, lambda seen: seen.ok >= 20)
        summary = load.stop()
        assert load.process.wait(DEADLINE_S) == 0
    assert summary.ok >= seen.ok
    check(summary, ok=summary.sent)


def test_it_ends_with_the_process_that_started_it(serve: Callable[[Handler], Server]) -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from load import Load
with Load({serve(answer_all).port}, rate=10, kept=0) as load:
    print(load.process.pid, flush=True)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=DEADLINE_S)
    client = int(done.stdout)
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(client)
        try:
            assert select.select([pidfd], [], [], DEADLINE_S)[0]
        finally:
            os.close(pidfd)
