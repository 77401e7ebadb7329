"""The pump: one thread that moves the services' output from their pipes into files."""

import fcntl
import logging
import os
import select
import struct
import termios
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from everup.adapters.logs import _cri
from everup.adapters.logs._file import LogEvent, SlotFile, SlotStats
from everup.model.spec import Log

_LOG = logging.getLogger("everup.logs")

_TAKE_BYTES = 256 << 10
"""Read from one pipe per round, so that one flood does not starve the others."""
_HELD_S = 1.0
"""An unfinished line that is older is stored as it is, so that prompts can be seen."""
_TICK_S = 0.25
_NAP_S = 0.002
_NAP_BELOW_BYTES = 16 << 10
"""After a round that brought less, the thread naps: reading every line as it comes would cost a
turn of the loop (and of the interpreter lock) per line."""


class _Source:
    """One stream of one run."""

    __slots__ = ("close_s", "fd", "file", "framer", "held_s", "key")

    def __init__(
        self, key: tuple[str, int, str], fd: int, file: SlotFile, framer: _cri.Framer
    ) -> None:
        self.key = key
        self.fd = fd
        self.file = file
        self.framer = framer
        self.held_s = 0.0
        self.close_s: float | None = None
        """Set once the main process is dead: read no longer than this."""

    def take(self, limit: int) -> bytes | None:
        """Up to ``limit`` bytes of the pipe; empty at its end, None when there is nothing now.

        The only place that reads. What it returned lives in memory until it is written.
        """
        try:
            return os.read(self.fd, limit)
        except BlockingIOError:
            return None

    def waiting(self) -> int:
        """Bytes in the pipe."""
        return int(struct.unpack("i", fcntl.ioctl(self.fd, termios.FIONREAD, b"\0" * 4))[0])


class LogPump:
    """Reads every instance's stdout and stderr and writes ``DIRECTORY/SLOT.log`` in CRI format.

    Nothing is dropped while the disk takes it: a service that writes faster is slowed by its pipe.
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
    ) -> None:
        """``report`` is called from the pump's thread. ``linger_s``: how long the output of
        processes that outlive the main one is still read, at least 0, default 5 s."""
        self._directory = directory
        self._report = report
        self._clock = clock
        self._linger_s = linger_s
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._lock = threading.Lock()
        self._tasks: deque[Callable[[], None]] = deque()  # bounded by what the engine has open
        self._files: dict[str, SlotFile] = {}  # one per slot of the config
        self._sources: dict[int, _Source] = {}
        self._by_key: dict[tuple[str, int, str], _Source] = {}
        self._timed = False  # something waits for a tick
        self._closing = False
        self._close_s = 0.0
        self._thread = threading.Thread(target=self._run, name="everup-logs", daemon=True)

    def start(self) -> None:
        """Start the thread, once."""
        with suppress(OSError):
            self._directory.mkdir(mode=0o750, parents=True, exist_ok=True)
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
            framers = {name: _cri.Framer(name, log.max_line) for name in own}
            for fd in own.values():
                os.set_blocking(fd, False)
            with self._lock:
                if self._closing:
                    raise RuntimeError("the log pump is closed")
                self._tasks.append(lambda: self._attach(slot, run, log, own, framers, resumed))
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
        """Store what is in the pipes now, then stop; waits at most ``timeout_s`` for the disk."""
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
            if self._closing:
                return
            self._tasks.append(task)
            self._poke()

    def _poke(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    # From here on: in the thread.

    def _run(self) -> None:
        tick_s = 0.0
        while True:
            events = self._epoll.poll(_TICK_S if self._timed else None, 256)
            taken = self._round([fd for fd, _ in events])
            now_s = time.monotonic()
            if now_s >= tick_s:
                tick_s = now_s + _TICK_S
                self._tick(now_s)
            if self._closing:
                break
            if taken < _NAP_BELOW_BYTES:
                time.sleep(_NAP_S)
        self._finish()

    def _round(self, ready: list[int]) -> int:
        taken = 0
        for fd in ready:
            source = self._sources.get(fd)
            if source is not None:
                taken += self._move(source, _TAKE_BYTES)
        if self._wake in ready:
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

    def _move(self, source: _Source, limit: int) -> int:
        """Read once and store; returns the number of bytes, 0 also at the end of the pipe."""
        now_s = time.monotonic()
        when = _cri.stamp(self._clock())
        try:
            data = source.take(limit)
        except OSError as error:
            source.file.discard(0, 0, f"cannot read the pipe: {error.strerror}", now_s)
            data = b""
        if data is None:
            return 0
        if not data:
            self._end_line(source, when, now_s)
            self._detach(source)
            return 0
        framer = source.framer
        try:
            held = framer.held
            batch = framer.feed(data, when)
            if batch.data or not held:
                source.held_s = now_s
            source.file.write(batch, framer.stream, source, when, now_s)
        except Exception as error:  # out of memory, a defect: the other services must go on
            source.file.discard(len(data), data.count(b"\n"), repr(error), now_s)
        if framer.held or source.file.failing:
            self._timed = True
        return len(data)

    def _drain(self, source: _Source) -> None:
        """Store what is in the pipe now, and no more, lest a flood keeps us here."""
        left = 0
        with suppress(OSError):
            left = source.waiting()
        while left > 0 and source.fd in self._sources:
            taken = self._move(source, min(left, _TAKE_BYTES))
            if not taken:
                break
            left -= taken

    def _end_line(self, source: _Source, when: bytes, now_s: float) -> None:
        framer, file = source.framer, source.file
        if framer.held or file.is_open(framer.stream, source):
            file.write(framer.end(when), framer.stream, source, when, now_s)

    def _tick(self, now_s: float) -> None:
        when = _cri.stamp(self._clock())
        for source in list(self._sources.values()):
            if source.framer.held and now_s - source.held_s >= _HELD_S:
                source.file.write(
                    source.framer.flush(when), source.framer.stream, source, when, now_s
                )
            if source.close_s is not None and now_s >= source.close_s:
                self._drain(source)
                self._end_line(source, when, now_s)
                self._detach(source)
        for file in self._files.values():
            file.retry(when, now_s)
        self._timed = any(
            source.framer.held or source.close_s is not None for source in self._sources.values()
        ) or any(file.failing for file in self._files.values())

    def _file(self, slot: str, log: Log) -> SlotFile:
        file = self._files.get(slot)
        if file is None:
            file = SlotFile(self._directory, slot, log, self._report)
            with self._lock:
                self._files[slot] = file
        else:
            file.configure(log)
        return file

    def _attach(
        self,
        slot: str,
        run: int,
        log: Log,
        fds: Mapping[str, int],
        framers: Mapping[str, _cri.Framer],
        resumed: bool,
    ) -> None:
        file = self._file(slot, log)
        for stream, fd in fds.items():
            key = (slot, run, stream)
            source = self._by_key.get(key)
            if source is None:
                source = _Source(key, fd, file, framers[stream])
                if resumed:
                    file.adopt(stream, source)
            else:  # the same pipe once more: the line in memory goes on
                self._forget(source)
                source.fd = fd
            self._sources[fd] = self._by_key[key] = source
            try:
                self._epoll.register(fd, select.EPOLLIN)
            except OSError as error:
                file.discard(0, 0, f"cannot read {stream}: {error.strerror}", time.monotonic())
                self._detach(source)

    def _ended(self, slot: str, run: int) -> None:
        for stream in _cri.STREAMS:
            source = self._by_key.get((slot, run, stream))
            if source is not None and source.close_s is None:
                # All of it at once, so that the next run's output comes behind it.
                self._drain(source)
                now_s = time.monotonic()
                self._end_line(source, _cri.stamp(self._clock()), now_s)
                source.close_s = now_s + self._linger_s
                self._timed = True

    def _configure(self, slot: str, log: Log) -> None:
        file = self._files.get(slot)
        if file is not None:
            file.configure(log)
        for source in self._sources.values():
            if source.key[0] == slot:
                source.framer.max_line = log.max_line

    def _forget(self, source: _Source) -> None:
        del self._sources[source.fd]
        with suppress(OSError):
            self._epoll.unregister(source.fd)
        _close(source.fd)

    def _detach(self, source: _Source) -> None:
        self._forget(source)
        del self._by_key[source.key]
        if all(other.file is not source.file for other in self._sources.values()):
            source.file.close()

    def _finish(self) -> None:
        """Store what is left. Unfinished lines of living processes stay open for the next pump."""
        self._work()
        for source in list(self._sources.values()):
            if time.monotonic() >= self._close_s:
                break
            self._drain(source)
        now_s = time.monotonic()
        when = _cri.stamp(self._clock())
        for source in list(self._sources.values()):
            if source.close_s is not None:
                self._end_line(source, when, now_s)
            else:
                batch = source.framer.flush(when)
                source.file.write(batch, source.framer.stream, source, when, now_s)
        self._release()

    def _release(self) -> None:
        self._work()
        for source in list(self._sources.values()):
            self._detach(source)
        for file in self._files.values():
            file.close()
        with self._lock:
            self._epoll.close()
            _close(self._wake)
            self._wake = -1


def _close(fd: int) -> None:
    with suppress(OSError):
        os.close(fd)
