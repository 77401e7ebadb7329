"""The pump: one thread that moves the services' output from their pipes into files."""

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from everup.adapters.logs import _cri
from everup.adapters.logs._cri import Rest
from everup.adapters.logs._file import LogEvent, SlotFile, SlotStats
from everup.adapters.logs._ledger import Ledger, Move
from everup.adapters.logs._source import WIDEST_BYTES, Scratch, Source
from everup.adapters.logs._turns import LAST_DELAY_S, Turns
from everup.model.spec import Log

_LOG = logging.getLogger("everup.logs")

_HELD_S = 1.0
"""An unfinished line that is older is stored as it is, so that prompts can be seen."""
_TICK_S = LAST_DELAY_S
_NAP_S = 0.002
_NAP_BELOW_BYTES = 16 << 10
"""After a round that brought less, the thread naps: reading every line as it comes would cost a
turn of the loop (and of the interpreter lock) per line."""


class LogPump:
    """Reads every instance's stdout and stderr and writes ``DIRECTORY/SLOT.log`` in CRI format.

    Nothing is dropped while the disk takes it: a service that writes faster is slowed by its pipe.
    Output stays in its pipe until it is in the file, and a ledger tells the next pump how far this
    one got: where somebody else holds the pipes too, a kill -9 neither loses nor doubles a line.
    When the disk fails, output is dropped, counted and told, because the services come first.
    A slow disk stalls this thread and nobody else. All methods may be called from any thread and
    none of them waits for the disk, except ``close``.
    """

    def __init__(
        self,
        directory: Path,
        report: Callable[[LogEvent], None],
        *,
        clock: Callable[[], int] = time.time_ns,
        linger_s: float = 5.0,
        ledger: Path | None = None,
        after: Callable[[Callable[[], bool]], bool] = lambda _: True,
    ) -> None:
        """``report`` is called from the pump's thread. ``linger_s``: how long the output of
        processes that outlive the main one is still read, at least 0, default 5 s. ``ledger``: a
        file of about 650 KiB, default ``DIRECTORY/.ledger``; one pump uses it at a time. ``after``:
        true once the thread may begin; it is given what tells whether ``close`` was called."""
        self._directory, self._report, self._clock = directory, report, clock
        self._linger_s = linger_s
        self._ledger = Ledger(ledger or directory / ".ledger", directory)
        self._scratch = Scratch()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._lock = threading.Lock()
        self._tasks: deque[Callable[[], None]] = deque()  # bounded by what the engine has open
        self._files: dict[str, SlotFile] = {}  # one per slot of the config
        self._sources: dict[int, Source] = {}
        self._by_key: dict[tuple[str, int, str], Source] = {}
        self._turns = Turns()
        self._timed = False  # something waits for a tick
        self._closing, self._close_s = False, 0.0
        self._after = after
        self._thread = threading.Thread(target=self._run, name="everup-logs", daemon=True)

    def start(self) -> None:
        """Start the thread, once."""
        self._thread.start()

    def attach(
        self, slot: str, run: int, log: Log, fds: Mapping[str, int], *, resumed: bool = False
    ) -> None:
        """Read the pipes of a run from now on: ``{"stdout": fd, "stderr": fd}``.

        Takes ownership of the descriptors, whatever happens, and makes them non-blocking.
        ``resumed``: the process was already running under an earlier engine, so its output goes on
        with the line that was left open; otherwise such a line is ended first.
        Raises ValueError for another stream or a slot that is no file name, OSError for a
        descriptor that is not open, RuntimeError after ``close``.
        """
        own = dict(fds)
        try:
            if not slot or "/" in slot or slot.startswith("."):
                raise ValueError(f"slot {slot!r} is no file name")
            for name in own:
                _cri.Framer(name, log.max_line)  # knows which streams there are
            for fd in own.values():
                os.set_blocking(fd, False)
            with self._lock:
                if self._closing:
                    raise RuntimeError("the log pump is closed")
                self._tasks.append(lambda: self._attach(slot, run, log, own, resumed))
                self._poke()
        except BaseException:
            for fd in own.values():
                _close(fd)
            raise

    def ended(self, slot: str, run: int) -> None:
        """The main process of the run is dead: store what it left, end its unfinished lines, and
        read on for its children until they close the pipe, at most ``linger_s``."""
        self._post(lambda: self._ended(slot, run))

    def configure(self, slot: str, log: Log) -> None:
        """New settings for a slot."""
        self._post(lambda: self._configure(slot, log))

    def stats(self) -> dict[str, SlotStats]:
        """Counts by slot since the start."""
        with self._lock:
            files = dict(self._files)
        return {slot: file.stats() for slot, file in files.items()}

    def close(self, timeout_s: float = 5) -> None:
        """Store what is in the pipes now, then stop; waits at most ``timeout_s`` for the disk.

        Unfinished lines of living processes stay in the pipes, for the next pump."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            self._close_s = time.monotonic() + timeout_s
            self._poke()
        if self._thread.ident is None:
            self._release()
            return
        self._thread.join(timeout_s + 0.5)

    def _post(self, task: Callable[[], None]) -> None:
        with self._lock:
            if not self._closing:
                self._tasks.append(task)
                self._poke()

    def _poke(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    # From here on: in the thread.

    def _run(self) -> None:
        if not self._after(lambda: self._closing):
            return
        with suppress(OSError):
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._ledger.open()
        tick_s = 0.0
        while True:
            wait_s = self._turns.wait_s(_TICK_S if self._timed else None)
            taken = self._round(self._epoll.poll(wait_s, 256))
            now_s = time.monotonic()
            if now_s >= tick_s:
                tick_s = now_s + _TICK_S
                self._tick(now_s)
            if self._closing:
                break
            if taken < _NAP_BELOW_BYTES and not self._turns.any_later:
                time.sleep(_NAP_S)
        self._finish()

    def _round(self, events: list[tuple[int, int]]) -> int:
        taken = 0
        woken = False
        turns = self._turns.due()
        for fd, mask in events:
            source = self._sources.get(fd)
            if source is not None:
                source.hung_up |= bool(mask & (select.EPOLLHUP | select.EPOLLERR))
                turns[fd] = None
            woken |= fd == self._wake
        for fd in turns:
            source = self._sources.get(fd)
            if source is not None:
                taken += self._turn(source)
        if woken:
            with suppress(BlockingIOError):
                os.eventfd_read(self._wake)
            self._work()
        return taken

    def _work(self) -> None:
        while self._tasks:
            try:
                self._tasks.popleft()()
            except Exception:
                _LOG.exception("the log pump could not do what it was asked")

    def _turn(self, source: Source, rest: Rest = Rest.KEEP) -> int:
        taken = self._move(source, rest)
        if source.hung_up and not source.more:
            self._end_line(source)
            self._detach(source)
        return taken

    def _move(self, source: Source, rest: Rest) -> int:
        """Store what is complete, and what ``rest`` says; returns the number of bytes stored."""
        taken = self._take(source, rest)
        self._turns.had(source, taken)
        return taken

    def _take(self, source: Source, rest: Rest) -> int:
        now_s = time.monotonic()
        when = _cri.stamp(self._clock())
        again, source.more = source.more, False
        try:
            move = source.look(self._scratch)
            if move is None or not move.data:
                source.rest = 0
                source.hung_up |= move is not None
                return 0
            try:
                self._store(source, move, rest, again, when, now_s)
            except Exception as error:  # out of memory, a defect: the other services must go on
                left = len(move.data) - move.at
                source.file.discard(left, move.data.count(b"\n", move.at), repr(error), now_s)
                self._ledger.skip(move, len(move.data))
            kept = len(move.data) - move.at
            # After taking: writers that waited for room may have gone on without an edge.
            source.more = source.waiting() > kept
        except OSError as error:
            source.file.discard(0, 0, f"cannot read the pipe: {error.strerror}", now_s)
            source.hung_up = True
            return 0
        except MemoryError:
            source.more = True
            return 0
        source.full = source.may_be_full(len(move.data))
        if move.at or not source.rest:
            source.since_s = now_s
        source.rest = kept
        if kept or source.file.failing:
            self._timed = True
        return move.at

    def _store(
        self, source: Source, move: Move, rest: Rest, again: bool, when: bytes, now_s: float
    ) -> None:
        data, stream, max_line = move.data, source.stream, source.max_line
        if move.fd < 0 and rest is Rest.KEEP:
            rest = Rest.PART  # it is not in the pipe any more
        elif rest is Rest.PART and b"\n" in data:
            rest = Rest.KEEP  # it has only just begun
        batch = _cri.frame(data, stream, max_line, when, rest)
        if not batch.data and self._stuck(source, len(data), again):
            batch = _cri.frame(data, stream, max_line, when, Rest.PART)
        source.file.write(batch, stream, source, when, now_s, move)

    def _stuck(self, source: Source, size: int, again: bool) -> bool:
        """Whether we may wait forever for the end of a line of which we see ``size`` bytes."""
        if source.waiting() > size:
            return again and size == source.rest  # we can't see more than this
        return source.may_be_full(size) and not source.widen(WIDEST_BYTES)

    def _drain(self, source: Source) -> None:
        """Store what is in the pipe now, and no more, lest a flood keeps us here."""
        left = 0
        with suppress(OSError):
            left = source.waiting()
        while left > 0 and source.fd in self._sources:
            taken = self._move(source, Rest.KEEP)
            if not taken and not source.more:
                break
            left -= taken

    def _end_line(self, source: Source) -> None:
        """End the unfinished line; the pipe was drained before."""
        self._move(source, Rest.END)
        if source.file.is_open(source.stream, source):
            when = _cri.stamp(self._clock())
            batch = _cri.Framer(source.stream, source.max_line).end(when)
            source.file.write(batch, source.stream, source, when, time.monotonic())

    def _tick(self, now_s: float) -> None:
        self._ledger.check()
        for source in list(self._sources.values()):
            if source.close_s is not None and now_s >= source.close_s:
                self._drain(source)
                self._end_line(source)
                self._detach(source)
            elif source.rest:  # kernels before 5.14 may tell of no edge while a pipe is not empty
                old = now_s - source.since_s >= _HELD_S
                self._turn(source, Rest.PART if old else Rest.KEEP)
        when = _cri.stamp(self._clock())
        for file in self._files.values():
            file.retry(when, now_s)
        self._timed = any(
            source.rest or source.close_s is not None for source in self._sources.values()
        ) or any(file.failing for file in self._files.values())

    def _file(self, slot: str, log: Log) -> SlotFile:
        file = self._files.get(slot)
        if file is None:
            file = SlotFile(self._directory, slot, log, self._report, self._ledger)
            with self._lock:
                self._files[slot] = file
        else:
            file.configure(log)
        return file

    def _attach(self, slot: str, run: int, log: Log, fds: Mapping[str, int], resumed: bool) -> None:
        file = self._file(slot, log)
        for stream, fd in fds.items():
            key = (slot, run, stream)
            source = self._by_key.get(key)
            try:
                if source is None:
                    source = Source(key, fd, file, log.max_line)
                    if resumed:
                        file.adopt(stream, source, source.pipe)
                else:  # the same pipe once more
                    self._forget(source)
                    source.take_over(fd)
                self._sources[fd] = self._by_key[key] = source
                self._settle(source)
                # Edge-triggered, because an unfinished line stays in the pipe.
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLET)
            except OSError as error:
                file.discard(0, 0, f"cannot read {stream}: {error.strerror}", time.monotonic())
                if source is None:
                    _close(fd)
                else:
                    self._detach(source)

    def _settle(self, source: Source) -> None:
        """Take what an earlier pump stored, but was killed before it could take it."""
        name = source.name
        while self._ledger.due(name):
            move = source.look(self._scratch) or Move(name, -1, b"")
            self._ledger.settle(move)

    def _ended(self, slot: str, run: int) -> None:
        for stream in _cri.STREAMS:
            source = self._by_key.get((slot, run, stream))
            if source is not None and source.close_s is None:
                # All of it at once, so that the next run's output comes behind it.
                self._drain(source)
                self._end_line(source)
                source.close_s = time.monotonic() + self._linger_s
                self._timed = True

    def _configure(self, slot: str, log: Log) -> None:
        file = self._files.get(slot)
        if file is not None:
            file.configure(log)
        for source in self._sources.values():
            if source.key[0] == slot:
                source.max_line = log.max_line

    def _forget(self, source: Source) -> None:
        self._sources.pop(source.fd, None)
        self._turns.forget(source.fd)
        with suppress(OSError):
            self._epoll.unregister(source.fd)
        _close(source.fd)

    def _detach(self, source: Source) -> None:
        self._forget(source)
        self._by_key.pop(source.key, None)
        if all(other.file is not source.file for other in self._sources.values()):
            source.file.close()

    def _finish(self) -> None:
        """Store what is left, but for unfinished lines that somebody may go on with."""
        self._work()
        self._round(self._epoll.poll(0, len(self._sources) + 1))  # who has hung up meanwhile
        for source in list(self._sources.values()):
            if time.monotonic() >= self._close_s:
                break
            self._drain(source)
        for source in list(self._sources.values()):
            if source.close_s is not None:
                self._end_line(source)
        self._release()

    def _release(self) -> None:
        self._work()
        for source in list(self._sources.values()):
            self._detach(source)
        for file in self._files.values():
            file.close()
        self._ledger.close()
        self._scratch.close()
        with self._lock:
            self._epoll.close()
            _close(self._wake)
            self._wake = -1


def _close(fd: int) -> None:
    with suppress(OSError):
        os.close(fd)
