"""Read files that a config names: regular ones only, and no more of them than is sensible.

A pipe that nobody writes would hold up its reader for ever, and so would a terminal; a file on a
mount that is gone does so all the same, so call this aside (see ``aside``), never on the loop.
"""

import errno
import os
import stat

from everup.adapters import trusted

MAX_BYTES = 1 << 20
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read(path: str, most_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file. ``OSError`` says what it is instead, or that it is larger."""
    # O_NONBLOCK: to open a pipe waits for its writer else.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        found = os.fstat(descriptor)
        kind = stat.S_IFMT(found.st_mode)
        if kind != stat.S_IFREG:
            raise OSError(errno.EINVAL, f"it is {_KINDS.get(kind, 'no file')}, not a regular file")
        if not trusted.may_be_read(path, found):
            raise OSError(errno.EPERM, "a link leads there of somebody who may not read it")
        with open(descriptor, "rb", closefd=False) as file:
            data = file.read(most_bytes + 1)
    finally:
        os.close(descriptor)
    if len(data) > most_bytes:
        raise OSError(errno.EFBIG, f"it is larger than {most_bytes >> 10} KiB")
    return data


def read_text(path: str, most_bytes: int = MAX_BYTES) -> str:
    """The same, as UTF-8. Also ``UnicodeDecodeError``."""
    return read(path, most_bytes).decode("utf-8")
