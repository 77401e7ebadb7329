"""The config text in force, kept twice: as it is, for people, and sealed with its checksum.

A text that lost a line, or a digit in it, may well be a valid config: of other services. So an
engine goes by the sealed one, which cannot be damaged unnoticed; by the plain one only where the
sealed one is gone. The sealed one is written first: where both are whole and differ, it is newer.

While everup runs there is a third one, outside of the disk: for the case that the directory is
moved away with all that is in it.
"""

import contextlib
import errno
import hashlib
import os
import stat
from pathlib import Path

from everup.adapters import named, trusted
from everup.adapters.place import Place
from everup.config import MAX_BYTES

_HEAD = "# everup config, sha256 "
_MORE = 200


def read(place: Place) -> str:
    """The text. ``OSError``, ``UnicodeDecodeError`` where there is none that can be read."""
    sealed = read_sealed(place)
    return read_plain(place) if sealed is None else sealed


def read_plain(place: Place) -> str:
    """What is kept for people. ``OSError``, ``UnicodeDecodeError``."""
    return named.read_text(place.accepted, MAX_BYTES)


def read_sealed(place: Place) -> str | None:
    """The other one, if it is whole."""
    with contextlib.suppress(OSError):
        return _whole(named.read(place.sealed, MAX_BYTES + _MORE))
    return None


def read_memory(place: Place) -> str:
    """The one outside of the disk. ``OSError`` where there is none that is whole and ours."""
    descriptor = os.open(_memory(place), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        text = _whole(file.read(MAX_BYTES + _MORE)) if ours else None
    if text is None:
        raise OSError(errno.EINVAL, "it is damaged")
    return text


def forget(place: Place) -> None:
    """Nobody needs the one outside of the disk any more."""
    with contextlib.suppress(OSError):
        os.unlink(_memory(place))


def write(place: Place, text: str) -> None:
    """Keep another text. ``OSError``: the one before is kept on."""
    _seal(place, text)
    try:
        trusted.write_file(place.accepted, text)
    except OSError:
        _unseal(place)
        raise


def commit(place: Place) -> None:
    """The text that waited is the accepted one from now on. ``OSError``."""
    try:
        _seal(place, named.read_text(place.next, MAX_BYTES))
    except UnicodeDecodeError:
        _unseal(place)
    os.replace(place.next, place.accepted)


def mend(place: Place, text: str) -> bool:
    """Put the text where one of the two is damaged or gone, and outside of the disk; whether that
    was so. ``OSError``."""
    _remember(place, text)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        if read_plain(place) == read_sealed(place) == text:
            return False
    write(place, text)
    return True


def _seal(place: Place, text: str) -> None:
    """Without room there is none, rather than one of another text."""
    _remember(place, text)
    try:
        trusted.write_file(place.sealed, _sealed(text))
    except OSError:
        _unseal(place)


def _unseal(place: Place) -> None:
    with contextlib.suppress(OSError):
        Path(place.sealed).unlink(missing_ok=True)


def _remember(place: Place, text: str) -> None:
    """Without that, an engine needs the disk."""
    fresh = f"{_memory(place)}-{os.getpid()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        with open(os.open(fresh, flags, 0o600), "w", encoding="utf-8", newline="") as file:
            file.write(_sealed(text))
        os.replace(fresh, _memory(place))


def _memory(place: Place) -> str:
    tag = hashlib.sha256(os.fsencode(place.state_dir)).hexdigest()[:16]
    return f"/dev/shm/everup-config-{os.geteuid()}-{tag}"  # noqa: S108 - whose it is is looked at


def _sealed(text: str) -> str:
    return f"{_HEAD}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def _whole(data: bytes) -> str | None:
    """The text that was sealed; None where that is not what it was."""
    try:
        text = data.decode("utf-8").partition("\n")[2]
        return text if _sealed(text).encode() == data else None
    except UnicodeDecodeError:
        return None
