"""An HTTP client that puts a steady load on a server and counts what became of every request.

``load.py PORT`` says on a line of JSON that it has started, runs until SIGTERM, waits for the
answers that are still due, and prints the counts on another. A byte on its standard input asks for
the counts until then, its end ends the client at once. bench/deploy.py and the tests use it.

There are two kinds of load. *New* connections: ``--rate`` per second, one request each, with
"Connection: close". *Kept* connections: ``--kept`` of them, each with a request every
``--interval``; a kept connection is opened again after the server said "Connection: close" or
closed it. The load is open-loop: every request has its instant, whatever became of the earlier
ones, and its latency counts from that instant.

A request that was sent on a kept connection and lost before any byte of an answer, because the
server closed the connection meanwhile, is sent once more on a new connection, as HTTP clients do
(RFC 9110, 9.2.2); these are counted as ``retried``. Every other request without a whole answer of
status 200 has failed.
"""

import argparse
import contextlib
import errno
import json
import math
import os
import re
import resource
import select
import signal
import socket
import sys
import time
from collections import deque
from typing import Any

COUNTS = (
    "sent",
    "ok",  # at the end, sent is the sum of ok and the next five
    "refused",
    "reset",  # reset, or any other error of the connection
    "timed_out",
    "cut",  # closed without an answer, or in the middle of it
    "wrong",  # another status than 200, or no HTTP
    "retried",  # sent once more after a kept connection was lost; each is one request of "sent"
    "reconnected",  # kept connections that were opened again
    "idle_closed",  # kept connections that the server closed between two requests
    "idle_reset",  # the same with a reset
    "unsent",  # could not be sent: too many in flight, no port, no descriptor
)
_TOLD = 50  # failures that are told one by one
_BODIES = 1000  # different answers that are counted one by one
_BURST = 64  # requests begun before the answers are looked at again
_OWED = 200  # a kept connection is at most so many requests behind; further ones are not sent
_ANSWER_BYTES = 65536
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection:[^\r]*close|^HTTP/1\.0", re.IGNORECASE)


class Histogram:
    """Counts in steps of 1 %: as small after an hour as after a second."""

    def __init__(self) -> None:
        self.steps: dict[int, int] = {}
        self.count = 0
        self.max_s = 0.0

    def add(self, value_s: float) -> None:
        step = int(math.log(max(value_s, 1e-5)) * 100)
        self.steps[step] = self.steps.get(step, 0) + 1
        self.count += 1
        if value_s > self.max_s:
            self.max_s = value_s

    def quantile_s(self, q: float) -> float:
        left = q * self.count
        for step in sorted(self.steps):
            left -= self.steps[step]
            if left <= 0:
                return min(self.max_s, math.exp(step / 100))
        return self.max_s

    def digest(self) -> dict[str, float]:
        found = {"p50": self.quantile_s(0.5), "p99": self.quantile_s(0.99), "max": self.max_s}
        return {name: round(1000 * value, 3) for name, value in found.items()}


class Connection:
    """A connection with at most one request under way."""

    __slots__ = (
        *("again", "answered", "begun", "busy", "data", "due", "index"),
        *("sent", "serial", "sock", "ticks", "used"),
    )

    def __init__(self, index: int = -1) -> None:
        self.index = index  # of a kept connection; -1 for a new one
        self.sock: socket.socket | None = None
        self.busy = False
        self.sent = False
        self.again = False  # the request is being sent for the second time
        self.used = False  # there was an earlier connection
        self.answered = False  # there was an answer on this connection
        self.data = b""
        self.due = 0.0
        self.serial = 0  # of the attempt, so that an old deadline is recognised
        self.ticks = 0  # requests that have become due
        self.begun = 0


class Client:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.address = (options.host, options.port)
        head = f"GET {options.path} HTTP/1.1\r\nHost: {options.host}\r\n"
        self.requests = {
            True: f"{head}\r\n".encode(),
            False: f"{head}Connection: close\r\n\r\n".encode(),
        }
        self.epoll = select.epoll()
        self.by_fd: dict[int, Connection] = {}
        self.kept = [Connection(index) for index in range(options.kept)]
        self.deadlines: deque[tuple[float, Connection, int]] = deque()
        self.again: list[Connection] = []  # their request is to be sent for the second time
        self.owing: list[Connection] = []  # free again, and a request is overdue
        self.in_flight = 0
        self.counts = dict.fromkeys(COUNTS, 0)
        self.latency, self.lag = Histogram(), Histogram()
        self.answers: dict[str, int] = {}
        self.failures: list[dict[str, Any]] = []
        self.ending = False
        self.start = self.now = time.monotonic()
        self.new_ticks = self.kept_ticks = 0

    # -- the schedule

    def next_new(self) -> float:
        rate = self.options.rate
        return self.start + self.new_ticks / float(rate) if rate else math.inf

    def kept_due(self, tick: int) -> float:
        return self.start + tick * float(self.options.interval) / len(self.kept)

    def next_kept(self) -> float:
        return self.kept_due(self.kept_ticks) if self.kept else math.inf

    def begin_due(self) -> None:
        """Begin what has become due; a few at a time, so that a late client makes no stampede."""
        for _ in range(_BURST):
            due = min(self.next_new(), self.next_kept())
            if due > self.now or self.enough():
                return
            self.lag.add(self.now - due)
            if due < self.next_kept():
                self.new_ticks += 1
                if self.in_flight < self.options.max_in_flight:
                    self.begin(Connection(), due)
                else:
                    self.counts["unsent"] += 1
            else:
                conn = self.kept[self.kept_ticks % len(self.kept)]
                self.kept_ticks += 1
                conn.ticks += 1
                if conn.ticks - conn.begun > _OWED:
                    conn.begun += 1
                    self.counts["unsent"] += 1
                if not conn.busy:
                    self.begin_owed(conn)

    def enough(self) -> bool:
        if self.now >= self.start + self.options.limit:
            self.ending = True
        if self.options.requests and self.counts["sent"] >= self.options.requests:
            self.ending = True
        return self.ending

    def begin_owed(self, conn: Connection) -> None:
        due = self.kept_due(conn.begun * len(self.kept) + conn.index)
        conn.begun += 1
        self.begin(conn, due)

    # -- one request

    def begin(self, conn: Connection, due: float) -> None:
        conn.due, conn.again, conn.busy = due, False, True
        self.counts["sent"] += 1
        self.in_flight += 1
        self.attempt(conn)

    def attempt(self, conn: Connection) -> None:
        conn.data, conn.sent = b"", False
        conn.serial += 1
        self.deadlines.append((self.now + self.options.timeout, conn, conn.serial))
        if conn.sock is None and not self.connect(conn):
            return
        self.send(conn)

    def connect(self, conn: Connection) -> bool:
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        except OSError as error:
            return self.not_sent(conn, error)
        sock.setblocking(False)
        code = sock.connect_ex(self.address)
        if code not in (0, errno.EINPROGRESS):
            sock.close()
            failure = OSError(code, os.strerror(code))
            if code in (errno.EADDRNOTAVAIL, errno.EAGAIN, errno.ENOBUFS):
                return self.not_sent(conn, failure)
            self.lost(conn, failure)
            return False
        conn.sock = sock
        self.by_fd[sock.fileno()] = conn
        self.epoll.register(sock, select.EPOLLIN)
        return True

    def send(self, conn: Connection) -> None:
        assert conn.sock is not None
        try:
            # On loopback the connection is there by now, mostly: one round of epoll saved.
            conn.sock.send(self.requests[conn.index >= 0])
        except BlockingIOError:
            self.epoll.modify(conn.sock, select.EPOLLOUT)
        except OSError as error:
            self.lost(conn, error)
        else:
            conn.sent = True
            if not conn.answered:  # the first request on this connection
                self.counts["reconnected"] += conn.used
                conn.used = True

    def event(self, fd: int) -> None:
        conn = self.by_fd[fd]
        assert conn.sock is not None
        if conn.busy and not conn.sent:
            if code := conn.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.lost(conn, OSError(code, os.strerror(code)))
            else:
                self.epoll.modify(fd, select.EPOLLIN)
                self.send(conn)
            return
        try:
            data = conn.sock.recv(_ANSWER_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.lost(conn, error)
            return
        if not data or not conn.busy:  # what comes unasked is a server's farewell
            self.lost(conn, None)
            return
        conn.data += data
        self.read(conn)

    def read(self, conn: Connection) -> None:
        if not conn.data.startswith(b"HTTP/1."[: len(conn.data)]):
            self.fail(conn, "wrong", f"no HTTP: {conn.data[:40]!r}")
            return
        head, mark, body = conn.data.partition(b"\r\n\r\n")
        if not mark:
            return
        status, length = _STATUS.match(head), _LENGTH.search(head)
        if status is None or length is None or len(body) > int(length[1]):
            self.fail(conn, "wrong", f"answer not understood: {conn.data[:200]!r}")
        elif len(body) == int(length[1]):
            conn.answered = True
            if conn.index < 0 or _CLOSE.search(head):
                self.close(conn)
            if status[1] != b"200":
                self.fail(conn, "wrong", f"status {status[1].decode()}", close=False)
                return
            self.counts["ok"] += 1
            self.latency.add(time.monotonic() - conn.due)
            text = body[:200].decode("utf-8", "replace").strip()
            if text not in self.answers and len(self.answers) >= _BODIES:
                text = "other"
            self.answers[text] = self.answers.get(text, 0) + 1
            self.done(conn)

    # -- its end

    def lost(self, conn: Connection, error: OSError | None) -> None:
        """The connection has ended; ``error`` is None for an orderly close."""
        reused = conn.answered
        self.close(conn)
        if not conn.busy:
            self.counts["idle_closed" if error is None else "idle_reset"] += 1
            return
        if reused and not conn.data and not conn.again:
            conn.again = True
            self.counts["retried"] += 1
            self.again.append(conn)
            return
        code = None if error is None else error.errno
        kinds = {None: "cut", errno.ECONNREFUSED: "refused", errno.ETIMEDOUT: "timed_out"}
        name = "closed" if code is None else errno.errorcode.get(code, str(code))
        self.fail(conn, kinds.get(code, "reset"), name)

    def fail(self, conn: Connection, kind: str, detail: str, *, close: bool = True) -> None:
        self.counts[kind] += 1
        if len(self.failures) < _TOLD:
            told = f"{detail}, {len(conn.data)} bytes of an answer"
            told += ", sent for the second time" if conn.again else ""
            told += "" if conn.sent else ", not yet sent"
            what = {"at": self.now, "kind": kind, "kept": conn.index >= 0, "detail": told}
            self.failures.append(what)
        if close:
            self.close(conn)
        self.done(conn)

    def not_sent(self, conn: Connection, error: OSError) -> bool:
        self.counts["sent"] -= 1
        self.counts["unsent"] += 1
        if len(self.failures) < _TOLD:
            what = {"at": self.now, "kind": "unsent", "kept": conn.index >= 0, "detail": str(error)}
            self.failures.append(what)
        self.done(conn)
        return False

    def done(self, conn: Connection) -> None:
        conn.busy = False
        conn.serial += 1
        conn.data = b""
        self.in_flight -= 1
        if conn.begun < conn.ticks:
            self.owing.append(conn)

    def close(self, conn: Connection) -> None:
        if conn.sock is not None:
            del self.by_fd[conn.sock.fileno()]
            conn.sock.close()
            conn.sock, conn.answered = None, False

    def expire(self) -> None:
        while self.deadlines and self.deadlines[0][0] <= self.now:
            _, conn, serial = self.deadlines.popleft()
            if conn.serial == serial:
                self.fail(conn, "timed_out", f"no answer in {self.options.timeout:g} s")

    # -- the loop

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self.end)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started us
        with contextlib.suppress(OSError):  # a file, which is always at its end
            self.epoll.register(0, select.EPOLLIN)
        print(json.dumps({"started": self.start}), flush=True)
        while self.in_flight or not self.enough():
            self.now = time.monotonic()
            self.begin_due()
            again, self.again = self.again, []
            for conn in again:
                self.attempt(conn)
            owing, self.owing = self.owing, []
            for conn in owing:
                # A tick may have been faster: one request at a time on a connection.
                if conn.begun < conn.ticks and not conn.busy and not self.enough():
                    self.begin_owed(conn)
            self.expire()
            wait = min(self.next_new(), self.next_kept()) - self.now
            if self.ending or wait > 0.05:
                wait = 0.05  # deadlines are as exact as that
            events = self.epoll.poll(0 if self.again or self.owing else max(wait, 0.0))
            self.now = time.monotonic()
            for fd, _ in events:
                if fd:
                    self.event(fd)
                elif not os.read(0, 4096):
                    sys.exit(1)
                else:
                    self.tell()

    def end(self, *_: object) -> None:
        self.ending = True

    def tell(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        found = {
            **self.counts,
            "latency_ms": self.latency.digest(),
            "lag_ms": self.lag.digest(),
            "answers": self.answers,
            "failures": self.failures,
            "duration_s": round(time.monotonic() - self.start, 3),
            "cpu_s": round(used.ru_utime + used.ru_stime, 3),
        }
        print(json.dumps(found), flush=True)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("port", type=int)
    p.add_argument("--host", default="127.0.0.1", help="IPv4 address")
    p.add_argument("--path", default="/")
    p.add_argument("--rate", type=float, default=500.0, help="new connections per second")
    p.add_argument("--kept", type=int, default=50, help="kept connections")
    p.add_argument("--interval", type=float, default=0.1, help="s between requests of each")
    p.add_argument("--timeout", type=float, default=5.0, help="s for each request")
    p.add_argument("--limit", type=float, default=900.0, help="s, then it ends")
    p.add_argument("--requests", type=int, default=0, help="then it ends; 0: no bound")
    p.add_argument("--max-in-flight", type=int, default=2000)
    options = p.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    client = Client(options)
    client.run()
    client.tell()


if __name__ == "__main__":
    main()
