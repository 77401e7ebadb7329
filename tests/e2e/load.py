"""The load client (bench/load.py, which says what it counts and how) as the tests use it."""

import json
import re
import select
import subprocess
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

_PROGRAM = str(Path(__file__).resolve().parents[2] / "bench" / "load.py")


@dataclass(frozen=True)
class Summary:
    """What became of the requests. At the end ``sent == ok + failed``."""

    sent: int = 0
    ok: int = 0
    refused: int = 0
    reset: int = 0
    """Reset, or any other error of the connection."""
    timed_out: int = 0
    cut: int = 0
    """The server closed the connection without an answer, or in the middle of it."""
    wrong: int = 0
    """Another status than 200, or no HTTP."""
    retried: int = 0
    """Sent once more after a kept connection was lost; each is one request of ``sent``."""
    reconnected: int = 0
    """Kept connections that were opened again."""
    idle_closed: int = 0
    """Kept connections that the server closed between two requests."""
    idle_reset: int = 0
    """The same with a reset."""
    unsent: int = 0
    """Requests that the client could not send: too many in flight, no port, no descriptor."""
    latency_ms: dict[str, float] = field(default_factory=dict)
    """p50, p99 and max of the answers, within 1 % and 1 ms, from when the request was due."""
    lag_ms: dict[str, float] = field(default_factory=dict)
    """p50, p99 and max of how late the client itself was: its own part of the latency."""
    answers: dict[str, int] = field(default_factory=dict)
    """How often each body came."""
    failures: tuple[dict[str, Any], ...] = ()
    """The first of them: "at" (monotonic seconds), "kind", "kept", "detail"."""
    duration_s: float = 0.0
    cpu_s: float = 0.0

    @property
    def failed(self) -> int:
        return self.refused + self.reset + self.timed_out + self.cut + self.wrong

    @property
    def pids(self) -> dict[int, int]:
        """Answers by the process that gave them: by the first number in the body."""
        found: dict[int, int] = {}
        for body, count in self.answers.items():
            if number := re.search(r"\d+", body):
                found[int(number[0])] = found.get(int(number[0]), 0) + count
        return found

    @classmethod
    def of(cls, line: bytes) -> "Summary":
        data = json.loads(line)
        data["failures"] = tuple(data["failures"])
        return cls(**{f.name: data[f.name] for f in fields(cls)})


class Load:
    """The client as a process of its own, from ``with`` until the end of the block.

    ``rate``: new connections per second. ``kept``: kept connections, each with a request every
    ``interval_s``. ``requests``: it ends by itself after so many (0: no bound). It ends by itself
    after ``limit_s`` in any case, and when this process dies.
    """

    def __init__(
        self,
        port: int,
        *,
        rate: float = 500.0,
        kept: int = 50,
        interval_s: float = 0.1,
        timeout_s: float = 5.0,
        limit_s: float = 900.0,
        requests: int = 0,
        max_in_flight: int = 2000,
        host: str = "127.0.0.1",
        path: str = "/",
    ) -> None:
        options = {
            "rate": rate,
            "kept": kept,
            "interval": interval_s,
            "timeout": timeout_s,
            "limit": limit_s,
            "requests": requests,
            "max-in-flight": max_in_flight,
            "host": host,
            "path": path,
        }
        self._argv = [sys.executable, "-I", "-S", _PROGRAM, str(port)]
        self._argv += [f"--{name}={value}" for name, value in options.items()]
        self._limit_s = limit_s
        self._drain_s = 2 * timeout_s + 20  # the last request, its second try, a busy machine
        self._running: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Load":
        self._running = subprocess.Popen(
            self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._line(self._drain_s)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        assert self._running is not None, "only inside of with"
        return self._running

    def look(self) -> Summary:
        """The counts until now."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"?")
        return Summary.of(self._line(self._drain_s))

    def stop(self) -> Summary:
        """Send nothing more, wait for the answers, and tell."""
        self.process.terminate()
        return Summary.of(self._line(self._drain_s))

    def finish(self) -> Summary:
        """Wait until the client ends by itself, after ``requests`` or ``limit_s``."""
        return Summary.of(self._line(self._limit_s + self._drain_s))

    def _line(self, timeout_s: float) -> bytes:
        """The next line that the client writes."""
        out = self.process.stdout
        assert out is not None
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([out], [], [], timeout_s)
            part = out.read(65536) if ready else b""
            if not part:
                raise RuntimeError("the load client has ended, or it is stuck")
            line += part
        return line
