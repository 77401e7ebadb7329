"""What the pump is about to do, written down where a kill -9 can't reach it.

A batch of records is written to a log and then the bytes it was made of are taken out of their
pipe. A pump that is killed in between leaves both half done; the next one must know how far it
got. So each batch is entered here first: which log, its size before and after, which pipe, and how
many bytes. The entry is a file, which is page cache: it outlives the process at no cost.

How much of a batch was taken is the hard part: the kernel tells it to nobody but the caller, who
is dead. So the bytes are not read, they are spliced into this file, over a filler byte that does
not occur among them. Copying and taking are one step for the kernel (nothing of ours can fault or
be interrupted in between), so the first filler byte that is left is exactly how far it got.

There are two places for entries, used in turn. A new one becomes valid with its last bytes (a
checksum tells) and its filler is in place before that, so the one before it stays good until then.
"""

import errno
import fcntl
import json
import logging
import os
import struct
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

_LOG = logging.getLogger("everup.logs")

AREA_BYTES: Final = 256 << 10
"""Bytes that one entry covers; what is longer is taken with several."""
_HEAD_BYTES = 4096
_PLACE_BYTES = AREA_BYTES + _HEAD_BYTES
_OWNERS_BYTES = 64 << 10
_SIZE_BYTES = 2 * (_PLACE_BYTES + _OWNERS_BYTES)
_SEAL = struct.Struct("<II")
# Boot, number, device, inode, size before and after, bytes to take, covered, filler, key's length.
_ENTRY = struct.Struct("<16sQQQQQQIBH")
_OWNERS = struct.Struct("<16sQ")
_FILLER = memoryview(b"\xff" * AREA_BYTES)  # no text in UTF-8 has this byte
_MAX_DUE_BYTES = 2048
_FORMAT = 1
"""Part of every checksum, so that no version reads what another one meant otherwise."""


class Place(NamedTuple):
    """One write to one log file."""

    device: int
    inode: int
    before: int
    """Size of the file before, and after."""
    after: int


_NOWHERE = Place(0, 0, 0, 0)


class Move:
    """Bytes that were seen in a pipe and how many of them have been taken out of it."""

    __slots__ = ("at", "data", "end", "fd", "key", "pipe")

    def __init__(self, key: bytes, fd: int, data: bytes, pipe: int = 0) -> None:
        """``key`` names the pipe (`Ledger.due`), ``pipe`` is its inode. ``fd`` -1: nothing has to
        be taken any more."""
        self.key = key
        self.pipe = pipe
        self.fd = fd
        self.data = data
        self.at = 0
        self.end = 0
        """Where the entry ends that was made last."""


class Ledger:
    """The entries of one pump; used by one thread. Never raises because of its own file: without
    it all goes on, only that a kill may then lose or double lines, which is logged once."""

    def __init__(self, path: Path | None, directory: Path) -> None:
        """``path`` None: no file. ``directory``: where the logs are."""
        self._path = path
        self._directory = directory
        self._fd = -1
        self._id = (0, 0)
        self._told = False
        self._boot = _boot()
        self._number = 0
        self._offset = self._span = 0  # what of the newest entry is still to be spliced to where
        self._due: dict[bytes, int] = {}
        self._due_text = b""
        self._owners: dict[str, int] = {}
        self._owners_number = 0

    def open(self) -> None:
        """Open or make the file, and finish or undo what an earlier pump had begun."""
        if self._path is None or not self._open():
            return
        try:
            self._recover(os.pread(self._fd, _SIZE_BYTES, 0))
        except (OSError, ValueError, struct.error) as error:
            _LOG.warning("what an earlier log pump left half done is unknown: %s", error)

    def check(self) -> None:
        """Make the file again if it is gone. Between two moves."""
        if self._path is None:
            return
        try:
            status = os.stat(self._path)
            if self._fd >= 0 and (status.st_dev, status.st_ino) == self._id:
                return
        except OSError:
            pass
        old, self._fd = self._fd, -1
        if self._open():
            if old >= 0:
                os.close(old)
            self._blank()
            self._write_owners()
            self.begin(_nothing(), 0)
        else:
            self._fd = old  # it may lead nowhere, but it takes what is spliced

    def close(self) -> None:
        if self._fd >= 0:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1

    # -- moving

    def begin(self, move: Move, size: int, place: Place = _NOWHERE) -> None:
        """Enter that the next ``size`` bytes are being written to ``place`` (without one: that they
        need not be written any more) and will then be taken."""
        move.end = move.at + size
        self._offset = self._span = 0
        if self._fd < 0 or move.fd < 0 < size:
            return
        end = min(move.end, move.at + AREA_BYTES, len(move.data))
        filler, span = _filler(move.data, move.at, end)
        number = self._number = self._number + 1
        start = number % 2 * _PLACE_BYTES + AREA_BYTES - span
        fields = (self._boot, number, *place, size, span, filler, len(move.key))
        entry = _seal(_ENTRY.pack(*fields) + move.key + self._due_text)
        fill = _FILLER[:span] if filler == _FILLER[0] else bytes((filler,)) * span
        try:
            if os.pwritev(self._fd, (fill, entry), start) != span + len(entry):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._lose(error)
        else:
            self._offset, self._span = start, span

    def consume(self, move: Move) -> None:
        """Take what was entered out of the pipe."""
        if move.fd < 0:
            move.at = move.end
        while move.at < move.end:
            if not self._span and self._fd >= 0:
                self.begin(move, move.end - move.at)
            taken = self._take(move)
            if not taken:  # somebody else reads this pipe: what is gone from it is not due
                move.at = move.end
                self.begin(_nothing(), 0)
            move.at += taken

    def skip(self, move: Move, end: int) -> None:
        """Take data[:end] out of the pipe, as far as that has not been done."""
        if move.at < end:
            self.begin(move, end - move.at)
            self.consume(move)

    def _take(self, move: Move) -> int:
        if self._span:
            flags = os.SPLICE_F_NONBLOCK
            try:
                taken = os.splice(
                    move.fd, self._fd, self._span, offset_dst=self._offset, flags=flags
                )
            except BlockingIOError:
                return 0
            except OSError as error:  # the file system can't, or the disk fails
                self._lose(error)
            else:
                self._offset += taken
                self._span -= taken
                self._told = False
                return taken
        try:
            return len(os.read(move.fd, min(move.end - move.at, AREA_BYTES)))
        except OSError:
            return 0

    # -- what an earlier pump left

    def due(self, key: bytes) -> int:
        """Bytes at the beginning of this pipe that are stored already. They must be taken, with
        `settle`, before anything else is done with the pipe."""
        return self._due.get(key, 0)

    def settle(self, move: Move) -> None:
        """Take what of ``move.data``, the beginning of the pipe, is due; without data, nothing of
        it is there any more."""
        size = self._due.get(move.key, 0)
        self._set_due(move.key, 0)
        if move.data:
            self.begin(move, size)  # all that is due, lest a kill forget the rest
            move.end = min(size, len(move.data), AREA_BYTES)
            self.consume(move)
            self._set_due(move.key, size - move.end)

    def owner(self, slot: str, stream: str) -> int | None:
        """The pipe (its inode) whose line the log of ``slot`` has open, if a line is open; None
        when that is not known."""
        return self._owners.get(f"{slot} {stream}")

    def own(self, slot: str, stream: str, pipe: int) -> None:
        """Before the beginning of a line is written: whose it is."""
        name = f"{slot} {stream}"
        if self._owners.get(name) != pipe:
            self._owners.pop(name, None)
            self._owners[name] = pipe
            self._write_owners()

    def _write_owners(self) -> None:
        text = json.dumps(self._owners).encode()
        while len(text) > _OWNERS_BYTES - _SEAL.size - _OWNERS.size:
            for name in list(self._owners)[: len(self._owners) // 8 + 1]:
                del self._owners[name]
            text = json.dumps(self._owners).encode()
        self._owners_number += 1
        start = 2 * _PLACE_BYTES + self._owners_number % 2 * _OWNERS_BYTES
        if self._fd >= 0:
            try:
                os.pwrite(
                    self._fd, _seal(_OWNERS.pack(self._boot, self._owners_number) + text), start
                )
            except OSError as error:
                self._lose(error)

    def _set_due(self, key: bytes, size: int) -> None:
        self._due.pop(key, None)
        if size:
            self._due[key] = size
        while True:
            # Each is what one kill left and nobody has taken up since: they are very few.
            text = b"".join(b"%d %b\n" % (left, name) for name, left in self._due.items())
            if len(text) <= _MAX_DUE_BYTES:
                break
            del self._due[next(iter(self._due))]
        self._due_text = text

    def _recover(self, content: bytes) -> None:
        if not any(self._boot):
            return  # an unknown boot: what is written there may be of another one
        newest = None
        for number in (0, 1):
            start = number * _PLACE_BYTES + AREA_BYTES
            body = _unseal(content[start : start + _HEAD_BYTES])
            if body is None or len(body) < _ENTRY.size:
                continue
            fields = _ENTRY.unpack_from(body)
            if fields[0] == self._boot and fields[1] > self._number:
                self._number = fields[1]
                newest = (start, fields, body)
        owners = [
            (_OWNERS.unpack_from(body)[1], body[_OWNERS.size :])
            for start in (2 * _PLACE_BYTES, 2 * _PLACE_BYTES + _OWNERS_BYTES)
            if (body := _unseal(content[start : start + _OWNERS_BYTES])) is not None
            and body[: len(self._boot)] == self._boot
        ]
        if owners:
            self._owners_number, text = max(owners)
            self._owners = json.loads(text)
        if newest is not None:
            self._recover_entry(content, *newest)

    def _recover_entry(
        self, content: bytes, start: int, fields: tuple[Any, ...], body: bytes
    ) -> None:
        *place, size, span, filler, length = fields[2:]
        key = body[_ENTRY.size : _ENTRY.size + length]
        for line in body[_ENTRY.size + length :].splitlines():
            left, name = line.split(b" ", 1)
            self._set_due(name, int(left))
        area = content[start - span : start]
        taken = area.find(filler)
        taken = span if taken < 0 else taken
        if taken == 0 and place[1] and not self._stored(Place(*place)):
            return
        if size > taken:
            self._set_due(key, size - taken)

    def _stored(self, place: Place) -> bool:
        """Whether that write was done; if it was begun, it is undone."""
        path = self._find(place)
        if path is None:
            return False  # whatever was written is gone with the file
        size = os.stat(path).st_size
        if place.before < size < place.after:
            os.truncate(path, place.before)
        return size >= place.after

    def _find(self, place: Place) -> str | None:
        """The path of a log; somebody may have renamed it."""
        names: list[str] = []
        with suppress(OSError):
            names = os.listdir(self._directory)
        for name in names:
            path = os.path.join(self._directory, name)
            with suppress(OSError):
                status = os.stat(path)
                if (status.st_dev, status.st_ino) == place[:2]:
                    return path
        return None

    # -- the file

    def _open(self) -> bool:
        assert self._path is not None
        fd = -1
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            fd = os.open(self._path, flags, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_size < _SIZE_BYTES:
                # All of it now, so that a full disk does not stop it later.
                os.posix_fallocate(fd, 0, _SIZE_BYTES)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            self._tell(error)
            return False
        status = os.fstat(fd)
        self._fd, self._id = fd, (status.st_dev, status.st_ino)
        return True

    def _blank(self) -> None:
        """Nothing that is entered holds any more."""
        with suppress(OSError):
            for number in (0, 1):
                os.pwrite(self._fd, bytes(_SEAL.size), number * _PLACE_BYTES + AREA_BYTES)

    def _lose(self, error: OSError) -> None:
        self._blank()
        self.close()
        self._offset = self._span = 0
        self._tell(error)

    def _tell(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            _LOG.warning(
                "a kill of everup may lose or double lines of output: cannot use %s: %s",
                self._path,
                error.strerror or error,
            )


def _nothing() -> Move:
    return Move(b"", -1, b"")


def _boot() -> bytes:
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return bytes.fromhex(text.replace("-", ""))
    except (OSError, ValueError):
        return b""


def _filler(data: bytes, start: int, end: int) -> tuple[int, int]:
    """A byte that is not in the first bytes of data[start:end], and how many these are: all of
    them, unless every one of the 256 occurs."""
    best, span = 0, 0
    for value in range(255, -1, -1):
        found = data.find(value, start, end)
        if found < 0:
            return value, end - start
        if found - start > span:
            best, span = value, found - start
    return best, span


def _seal(body: bytes) -> bytes:
    return _SEAL.pack(zlib.crc32(body, _FORMAT), len(body)) + body


def _unseal(raw: bytes) -> bytes | None:
    checksum, length = _SEAL.unpack_from(raw)
    body = raw[_SEAL.size : _SEAL.size + length]
    return body if len(body) == length > 0 and zlib.crc32(body, _FORMAT) == checksum else None
