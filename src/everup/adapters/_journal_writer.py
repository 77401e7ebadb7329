"""The thread that writes the journal: a disk that does not answer holds up nobody else."""

import contextlib
import threading
from collections.abc import Callable
from enum import Enum, auto

from everup.adapters._journal_disk import Disk
from everup.adapters._journal_memory import Memory

WAIT_S = 0.2
"""So long at most an action waits for the record of it."""
_TELL_AFTER_S = 1.0
_CLOSE_S = 2.0
NO_ANSWER = "the disk does not answer"


class _State(Enum):
    BEGINS = auto()
    RUNS = auto()
    CLOSED = auto()


class Writer:
    """Owns ``disk`` while it runs. ``turn_over`` is called by the thread each time that it has
    written what it could. All other methods are for the loop, and wait for a bounded time."""

    def __init__(
        self,
        disk: Disk,
        memory: Memory,
        turn_over: Callable[[], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._disk, self._memory, self._turn_over = disk, memory, turn_over
        self._monotonic = monotonic
        self._go = threading.Lock()  # as a semaphore: released by whoever has work
        self._go.acquire()
        self._turn = threading.Condition()
        self._state = _State.BEGINS
        self._error: BaseException | None = None
        self._busy_since: float | None = None
        self._late = False
        self._retry = self._closing = False
        self._retention_s = 0.0
        self._thread: threading.Thread | None = None
        disk.answered = self._answered

    def start(
        self, *, hold: bool, patience_s: float, after: Callable[[], object] | None = None
    ) -> None:
        """Open the file, once ``after`` has returned. What that raises is raised here; if it takes
        longer, the copy must do."""
        disk = self._disk
        self._busy_since = self._monotonic()
        self._thread = threading.Thread(
            target=self._run, args=(hold, after), name="journal-writer", daemon=True
        )
        self._thread.start()
        with self._turn:
            self._turn.wait_for(lambda: self._state is not _State.BEGINS, patience_s)
            self._late = self._state is _State.BEGINS
        if self._error is not None:
            raise self._error
        if self._late:
            disk.begin_without()
            disk.degrade(NO_ANSWER, f"cannot open the journal {disk.path}: {NO_ANSWER}")

    # -- the thread

    def _run(self, hold: bool, after: Callable[[], object] | None) -> None:
        try:
            if after is not None:
                after()
            self._disk.begin(hold=hold)
        except BaseException as error:
            self._error, self._state = error, _State.CLOSED
            self._over()
            return
        with self._turn:
            self._state = _State.RUNS
            late = self._late
        if late:
            self._disk.retry()
        while not self._closing:
            self._over()
            self._go.acquire()
            self._busy_since = self._monotonic()
            self._work()
        self._disk.close()
        self._state = _State.CLOSED
        self._over()

    def _work(self) -> None:
        retry, self._retry = self._retry, False
        retention_s, self._retention_s = self._retention_s, 0.0
        with contextlib.suppress(MemoryError):
            if self._disk.due and self._disk.waits:
                self._disk.write()
            if retry:
                self._disk.retry()
            if retention_s:
                self._disk.prune(retention_s)

    def _answered(self) -> None:
        self._busy_since = self._monotonic()

    def _over(self) -> None:
        with self._turn:
            self._busy_since, self._late = None, False
            self._turn.notify_all()
        with contextlib.suppress(MemoryError):
            self._turn_over()

    # -- the loop

    def kick(self) -> None:
        """There is something to be written."""
        with contextlib.suppress(RuntimeError):  # it was told already
            if self._go.locked():
                self._go.release()
        self.look()

    def look(self) -> None:
        """Say it if the disk has not answered for a while."""
        since = self._busy_since
        if since is None or not self._memory.held or self._disk.degraded:
            return
        if self._monotonic() - since >= _TELL_AFTER_S:
            text = f"the journal {self._disk.path} cannot be written: {NO_ANSWER}"
            self._disk.degrade(NO_ANSWER, text, since)

    def wait(self) -> None:
        """For one action: not again before the disk has answered."""
        if self._late:
            self.kick()
        else:
            self._late = not self.flush(WAIT_S)

    def flush(self, timeout_s: float) -> bool:
        """Until all is written that there is, or it is known that it can't be now."""
        seq = self._memory.last_seq
        self.kick()
        with self._turn:
            self._turn.wait_for(lambda: self._disk.degraded or self._written(seq), timeout_s)
        return self._written(seq)

    def _written(self, seq: int) -> bool:
        with self._memory.lock:
            held = self._memory.held
            return not held or held[0][0] > seq

    def retry(self) -> None:
        self._retry = True
        self.kick()

    def prune(self, retention_s: float) -> None:
        self._retention_s = retention_s
        self.kick()

    def close(self) -> bool:
        """Whether it has ended; one that waits for its disk is left."""
        self._closing = True
        self.kick()
        if self._thread is not None:
            self._thread.join(0.0 if self._late else _CLOSE_S)
        return self._state is _State.CLOSED
