"""What ``everup up`` says in the foreground: one line for each thing that matters."""

import contextlib
import queue
import threading
import time
from typing import TextIO

from everup.model.action import Record
from everup.model.display import shown_line
from everup.model.entry import EntryKind
from everup.model.journal import Kind

_WORDS: dict[str, str] = {
    Kind.READY: "ready",
    Kind.RUNNING: "running",
    Kind.UNHEALTHY: "failed",
    Kind.EXITED: "ended",
    Kind.LINGERING: "its main process ended, others are still to end",
    Kind.ESCAPED: "processes that had left its session were killed",
    Kind.BACKOFF: "starts again later",
    Kind.PARKED: "parked: crashed too often, retried slowly",
    Kind.FAILED: "failed; not started again",
    Kind.STOPPED: "stopped",
    Kind.WAITING: "held back",
    Kind.ADOPTED: "taken over as it runs",
    Kind.LEFTOVER: "processes of an earlier everup were killed",
    Kind.POSTPONED: "verdict postponed",
    Kind.SUSPECTED: "suspected",
    Kind.SOCKETS_FAILED: "no socket",
    Kind.SOCKETS_LOST: "its listening sockets are put back",
    Kind.SOCKETS_STRANGERS: "others listen on its port",
    Kind.FACILITY: "note",
    Kind.GROUP: "group restarts",
    Kind.LOG_LOST: "output lost",
    Kind.LOG_RECOVERED: "output is stored again",
    Kind.CONFIG: "config invalid; the old one stays in force",
    Kind.REFUSED: "notify message refused",
    Kind.DEPENDENCY_STATE: "breaker",
    Kind.ENGINE_DEFECT: "everup itself failed; another engine takes over, services go on",
    Kind.ENGINE_STOPPING: "stopping all services",
    Kind.ENGINE_STOPPED: "all services are down",
    Kind.OUTGOING: "is about to be replaced",
    Kind.LOST: "ended while nobody looked",
    Kind.SPARED: "not killed",
    Kind.STORM: "storm brake: too many restarts, further ones wait",
    Kind.STORM_OVER: "storm brake: restarts pass again",
    Kind.ROLLOUT_STOPPED: "restart stopped",
    Kind.RELOADING: "applying the changed config",
    Kind.RELOADED: "the changed config is in force",
    Kind.ROLLING_BACK: "reload failed, going back",
    Kind.ROLLED_BACK: "the config before the reload is in force again",
    Kind.SLO_BURNING: "spends its error budget too fast",
    Kind.SLO_CALM: "spends its error budget at an allowed rate again",
    Kind.UPGRADING: "everup replaces itself",
}
_QUEUE = 1000
_DETAILS = ("reason", "cause", "detail", "verdict", "sign", "by", "version")


class Voice:
    """Writes to one stream, in a thread: a terminal that is held up (Ctrl-S) or a pipe that
    nobody reads must not stop the engine. What does not fit the queue is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str] = queue.Queue(_QUEUE)
        threading.Thread(target=self._write, name="voice", daemon=True).start()

    def _write(self) -> None:
        while True:
            line = self._lines.get()
            with contextlib.suppress(OSError, ValueError, MemoryError):
                self._stream.write(line)
                if self._lines.empty():
                    self._stream.flush()
            self._lines.task_done()

    def close(self, timeout_s: float = 1.0) -> None:
        """Wait for what is written, but not for ever."""
        until = time.monotonic() + timeout_s
        while self._lines.unfinished_tasks and time.monotonic() < until:
            time.sleep(0.005)

    def tell(self, record: Record) -> None:
        own = record.kind.words if isinstance(record.kind, EntryKind) else ""
        words = own or _WORDS.get(record.kind.value)
        if words is None:
            return
        payload = record.payload
        details = [str(payload[key]) for key in _DETAILS if payload.get(key)]
        if record.kind is Kind.SOCKETS_LOST:
            details = list(payload["lost"])
        if record.kind is Kind.SOCKETS_STRANGERS:
            details = list(payload["strangers"]) or ["no more"]
        if record.kind is Kind.CONFIG:
            details = list(payload["problems"])
        if record.kind is Kind.READY and "took_s" in payload:
            details.append(f"after {payload['took_s']:.3g} s")
        if record.kind is Kind.SLO_BURNING:
            over_h = payload["window_s"] / 3600
            details.append(f"{payload['burn_rate']:.3g} times over {over_h:g} h")
        if record.kind is Kind.DEPENDENCY_STATE:
            details = [f"{payload['dependency']} is {payload['state']}"]
        if record.kind in (Kind.BACKOFF, Kind.PARKED):
            details.append(f"in {payload['delay_s']:.3g} s")
        self.say(f"{record.subject}: {words}" + (f": {'; '.join(details)}" if details else ""))

    def say(self, text: str) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(f"{time.strftime('%H:%M:%S')} {shown_line(text)}\n")
