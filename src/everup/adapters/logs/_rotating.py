"""A file of records that rotates by size and survives what others do to its directory."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from everup.adapters import trusted
from everup.adapters.logs._ledger import Place


class Steps(Protocol):
    """Hears of every write to a file."""

    def before(self, place: Place, at: int, end: int) -> None:
        """data[at:end] goes to this place next."""

    def after(self) -> None:
        """It is there."""


class StoppedError(Exception):
    """Writing failed; ``stored`` bytes, whole records all, are in the file."""

    def __init__(self, stored: int, error: OSError) -> None:
        super().__init__(stored, error)
        self.stored = stored
        self.error = error


class RotatingFile:
    """``DIR/NAME`` and ``NAME.1`` (newest) to ``NAME.N``, mode 0640. Used by one thread."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = os.fspath(directory)
        self._name = name
        self._path = os.path.join(directory, name)
        self._fd: int | None = None
        self._id = (0, 0)
        self._size = 0
        self._torn = False
        self.max_size = 10 << 20
        """A file grows no larger, unless a single record does."""
        self.files = 5
        """Rotated files kept."""

    def open(self) -> int:
        """The descriptor; the file, and its directory, are created where they are missing."""
        if self._fd is not None:
            return self._fd
        # O_NONBLOCK: the path may by now be a FIFO that nobody reads. Never through a link.
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        try:
            fd = os.open(self._path, flags)
        except FileNotFoundError:
            trusted.make_directory(self._directory, 0o750)
            fd = os.open(self._path, flags | os.O_CREAT, 0o640)
            os.fchmod(fd, 0o640)
        self._fd = fd
        status = os.fstat(fd)
        self._id = (status.st_dev, status.st_ino)
        self._size = status.st_size
        self._torn = status.st_size > 0 and os.pread(fd, 1, status.st_size - 1) != b"\n"
        return fd

    def close(self) -> None:
        """Close the file; the next write opens it again."""
        if self._fd is not None:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = None

    def append(self, data: bytes, steps: Steps | None = None) -> None:
        """Write whole records, rotating only between records. Raises `StoppedError`."""
        at = deleted = 0
        while at < len(data):
            try:
                self._follow_path()
                fd = self.open()
                end = self._fit(data, at)
                if end == at:
                    self._rotate()
                    continue
                self._mend(fd)
                if steps is not None:
                    steps.before(Place(*self._id, self._size, self._size + end - at), at, end)
                self._put(fd, data, at, end)
                if not self._arrived(fd) and deleted < 3:
                    deleted += 1
                    continue
            except OSError as error:
                raise StoppedError(at, error) from error
            if steps is not None:
                steps.after()
            at = end

    def prune(self) -> None:
        """Delete rotated files beyond ``files``."""
        name = re.compile(re.escape(self._name) + r"\.(\d+)")
        with suppress(OSError):
            for entry in os.listdir(self._directory):
                match = name.fullmatch(entry)
                if match and int(match[1]) > self.files:
                    with suppress(OSError):
                        os.unlink(os.path.join(self._directory, entry))

    def end_of_file(self, size: int) -> bytes:
        """The last ``size`` bytes of the current file and of the one before it."""
        data = os.pread(self.open(), size, max(0, self._size - size))
        if len(data) < size:
            with suppress(OSError), open(f"{self._path}.1", "rb") as file:
                left = size - len(data)
                file.seek(max(0, os.fstat(file.fileno()).st_size - left))
                data = file.read(left) + data
        return data

    def after(self, place: Place, most_bytes: int) -> list[tuple[bytes, Place]]:
        """Give the whole records behind a place, oldest first, a file each, and at most so many
        bytes of a file; nothing where the file of that place is not there any more."""
        found: list[tuple[bytes, Place]] = []
        for index in range(self.files + 1):
            path = f"{self._path}.{index}" if index else self._path
            try:
                with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
                    status = os.fstat(file.fileno())
                    last = (status.st_dev, status.st_ino) == (place.device, place.inode)
                    begin = place.after if last else 0
                    file.seek(max(begin, status.st_size - most_bytes))
                    data = file.read(most_bytes)
            except OSError:
                return []
            data = data[: data.rfind(b"\n") + 1]
            end = Place(status.st_dev, status.st_ino, 0, status.st_size)
            found.insert(0, (data, end))
            if last:
                return [(data, end) for data, end in found if data]
        return []

    def free_bytes(self) -> int:
        """Room on the file's disk."""
        status = os.fstatvfs(self.open())
        blocks = status.f_bfree if os.geteuid() == 0 else status.f_bavail
        return blocks * status.f_frsize

    def _fit(self, data: bytes, at: int) -> int:
        """End of the records from ``at`` on that the file still takes; ``at``: rotate first."""
        room = self.max_size - self._size
        if len(data) - at <= room:
            return len(data)
        end = data.rfind(b"\n", at, at + room) + 1 if room > 0 else 0
        if end:
            return end
        # A record that no file of this size could hold gets a file of its own.
        return at if self._size else data.index(b"\n", at) + 1

    def _mend(self, fd: int) -> None:
        if self._torn:  # the machine, or the disk, died while we wrote: end that record
            self._size += os.write(fd, b"\n")
            self._torn = False

    def _put(self, fd: int, data: bytes, at: int, end: int) -> None:
        view = memoryview(data)
        done = at
        try:
            while done < end:
                done += os.write(fd, view[done:end])
        except OSError as error:
            whole = (data.rfind(b"\n", at, done) + 1) or at
            self._torn = whole < done
            with suppress(OSError):
                if self._torn and os.fstat(fd).st_size == self._size + done - at:
                    os.ftruncate(fd, self._size + whole - at)
                    self._torn = False
            self._size += (done if self._torn else whole) - at
            raise StoppedError(whole, error) from error
        self._size += end - at

    def _follow_path(self) -> None:
        """Let go of a file that somebody else has deleted or renamed."""
        if self._fd is None:
            return
        try:
            status = os.lstat(self._path)
        except (FileNotFoundError, NotADirectoryError):
            self.close()
        else:
            if (status.st_dev, status.st_ino) != self._id:
                self.close()
            else:
                self._size = status.st_size  # somebody may have truncated it

    def _arrived(self, fd: int) -> bool:
        """False: the file was deleted while we wrote, so that nobody will find what we wrote."""
        status = os.fstat(fd)
        if status.st_nlink == 0:
            self.close()
            return False
        self._size = status.st_size  # somebody may have truncated it
        return True

    def _rotate(self) -> None:
        """Shift the files by one; the oldest goes only when there is no free place."""
        self.close()
        free = 1
        while free < self.files and os.path.lexists(f"{self._path}.{free}"):
            free += 1
        for index in range(free, 1, -1):
            os.replace(f"{self._path}.{index - 1}", f"{self._path}.{index}")
        with suppress(FileNotFoundError):
            os.replace(self._path, f"{self._path}.1")
