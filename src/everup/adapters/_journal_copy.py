"""A copy of the journal's state, and of events that wait for the disk, outside of the disk.

It is for the one case in which memory does not do: the engine is killed while the journal cannot
be written, or just after that was deleted or damaged. It lives in a file system that is memory
(``PLACES``), so no fault of a disk reaches it, and it ends with the machine's boot at the latest.
"""

import contextlib
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from everup.adapters._journal_file import Row, is_whole

PLACES = ("/dev/shm", "/run", f"/run/user/{os.geteuid()}")  # noqa: S108
_LEAST_BYTES = 1 << 20
_MAX_READ_BYTES = 64 << 20
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode


class Copy:
    """One life's copy of the journal at ``path``. ``everything`` gives the rows that it has to
    hold, for when it has grown too long. Nothing here raises, nothing waits for a disk."""

    def __init__(self, path: Path, everything: Callable[[], Iterable[Row]]) -> None:
        self._prefix = _prefix(path)
        self._everything = everything
        self._fd = -1
        self._name = ""
        self._bytes = self._limit = 0

    @property
    def there(self) -> bool:
        """Whether it is kept at the moment."""
        return self._fd >= 0

    def start(self) -> None:
        """Write it anew, and drop those before: one of an earlier life, one that has grown."""
        before, self._fd = self._fd, -1
        with contextlib.suppress(OSError, MemoryError):
            self._write_all()
        if self.there:
            for name in _names(self._prefix):
                if name != self._name:
                    with contextlib.suppress(OSError):
                        os.unlink(name)
        if before >= 0:
            os.close(before)

    def _write_all(self) -> None:
        data = _encode(list(self._everything()))
        for place in PLACES:
            name = f"{place}/{self._prefix}{secrets.token_hex(4)}"
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            try:
                fd = os.open(name, flags, 0o600)
            except OSError:
                continue
            try:
                _put(fd, data)
            except OSError:
                os.close(fd)
                with contextlib.suppress(OSError):
                    os.unlink(name)
                continue
            self._fd, self._name, self._bytes = fd, name, len(data)
            self._limit = max(_LEAST_BYTES, 3 * len(data))
            return

    def add(self, rows: Sequence[Row]) -> None:
        """Events that have just happened; ``everything`` has them already."""
        if self._fd < 0:
            return
        try:
            data = _encode(rows)
            _put(self._fd, data)
            self._bytes += len(data)
        except (OSError, MemoryError):  # half a line is no harm, but a gap would be
            self.drop()
            return
        if self._bytes > self._limit:
            self.start()

    def drop(self) -> None:
        """It is not needed, or it is wrong."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(OSError):
                os.unlink(self._name)

    def leave(self) -> None:
        """Let it be, for the next life."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def found(path: Path) -> list[Row]:
    """What an earlier life has left that was killed, in the order of the numbers."""
    rows: set[Row] = set()
    for name in _names(_prefix(path)):
        with contextlib.suppress(OSError, MemoryError):
            rows.update(_read(name))
    return sorted(rows)


def missing(rows: Sequence[Row], copied: Sequence[Row]) -> list[Row]:
    """Those of ``copied`` that happened after all of ``rows``, which the file has; with numbers
    that follow on theirs.

    It goes by the monotonic clock, for a life that could not read the file counts from where it
    thinks that the file ends. What is left of an unknown boot ("") is of this one: the copy does
    not outlive it.
    """
    if not rows:
        return list(copied)
    seq, _time, mono, boot = rows[-1][:4]

    def later(row: Row) -> bool:
        return row[2] > mono if row[3] == boot or "" in (row[3], boot) else row[0] > seq

    more = [row for row in copied if later(row)]
    by = max(0, seq + 1 - more[0][0]) if more else 0
    return [(row[0] + by, *row[1:]) for row in more]


def _prefix(path: Path) -> str:
    tag = hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:16]
    return f"everup-journal-{tag}-"


def _names(prefix: str) -> Iterator[str]:
    for place in PLACES:
        with contextlib.suppress(OSError):
            for name in os.listdir(place):
                if name.startswith(prefix):
                    yield f"{place}/{name}"


def _read(name: str) -> Iterator[Row]:
    # Others may put files there too.
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        facts = os.fstat(fd)
        ours = stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid()
        if not ours or facts.st_nlink != 1 or facts.st_mode & 0o077:
            return
        for line in file.read(_MAX_READ_BYTES).split(b"\n"):
            with contextlib.suppress(
                ValueError, TypeError, OverflowError, RecursionError
            ):  # the last one may be half a line
                seq, time, mono, boot, kind, subject, payload = json.loads(line)
                row = int(seq), float(time), float(mono), boot, kind, subject, payload
                if is_whole(row):
                    yield row


def _encode(rows: Sequence[Row]) -> bytes:
    return b"".join(_ENCODE(row).encode() + b"\n" for row in rows)


def _put(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
