"""Children of everup that are not this keeper's own: their parent was an earlier keeper.

Their end is seen by pidfd; how they ended by the kernel's note on the pidfd (Linux 6.15 and
later), or in /proc as long as nobody has reaped them; else it stays unknown.
"""

import contextlib
import errno
import fcntl
import os
import select
import struct
from collections.abc import Callable

from everup.keeper.children import Child, is_same

_INFO = struct.Struct("@QQ11Ii")  # struct pidfd_info as first published: 64 bytes
_INFO_EXIT = 1 << 3
_GET_INFO = 3 << 30 | _INFO.size << 16 | 0xFF << 8 | 11  # _IOWR(PIDFS_IOCTL_MAGIC, 11, ...)
_NO_PROCESS = (errno.ESRCH, errno.EINVAL)  # gone; a thread's number, or no number at all
LOOK_S = 1.0


class Strangers:
    """Watches them. ``ended`` is called with the child, its ``status`` set, at its end."""

    def __init__(
        self,
        watch: Callable[[int, Callable[[], None]], None],
        unwatch: Callable[[int], None],
        ended: Callable[[Child], None],
    ) -> None:
        self._watch = watch
        self._unwatch = unwatch
        self._ended = ended
        self.blind: list[Child] = []
        """Those for whom no pidfd could be had: looked at by ``look`` instead."""

    def take(self, child: Child) -> bool:
        """Watch the main process of ``child``; False when it is gone."""
        child.stranger = True
        try:
            fd = os.pidfd_open(child.pid)
        except OSError as error:
            if error.errno in _NO_PROCESS or not is_same(child):
                return False
            self.blind.append(child)
            return True
        if not is_same(child):  # only now is its number sure not to change hands unseen
            os.close(fd)
            return False
        child.pidfd = fd
        self._watch(fd, lambda: self._seen(child))
        return True

    def release(self, child: Child) -> None:
        """No longer watch it."""
        if child in self.blind:
            self.blind.remove(child)
        if child.pidfd >= 0:
            self._unwatch(child.pidfd)
            os.close(child.pidfd)
            child.pidfd = -1

    def look(self) -> None:
        """Try again to watch those without a pidfd; every ``LOOK_S``."""
        blind, self.blind = self.blind, []
        for child in blind:
            if not self.take(child):
                self._ended(child)

    def _seen(self, child: Child) -> None:
        if not select.select([child.pidfd], [], [], 0)[0]:
            return  # meant for whoever had this number of a descriptor before
        child.status = exit_status(child.pidfd, child.pid, child.start)
        self.release(child)
        self._ended(child)


def own(pid: int) -> bool:
    """Whether the process is a child of this one."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        return False
    return True


def exit_status(pidfd: int, pid: int, start: int) -> int | None:
    """Wait status of a process that has ended and is not ours; None: nobody can tell.

    The kernel's note is there once its parent has reaped it, /proc until then; it may happen
    between the two looks.
    """
    status: int | None = None
    for look in range(3):
        with contextlib.suppress(OSError, ValueError, IndexError):
            status = _zombie_status(pid, start) if look == 1 else _noted(pidfd)
        if status is not None:
            break
    return status


def _noted(pidfd: int) -> int | None:
    info = note(pidfd, _INFO_EXIT)
    return int(info[-1]) if info[0] & _INFO_EXIT else None


def note(pidfd: int, mask: int) -> tuple[int, ...]:
    """The kernel's ``struct pidfd_info``: the mask of what it knows, the id of the control group,
    pid, tgid, ppid, eight ids of user and group, and the wait status. Raises ``OSError``."""
    info = bytearray(_INFO.pack(mask, *[0] * 13))
    fcntl.ioctl(pidfd, _GET_INFO, info)
    return _INFO.unpack(info)


def _zombie_status(pid: int, start: int) -> int | None:
    # To others the kernel shows 0, which would be taken for a success.
    if os.geteuid() not in (0, os.stat(f"/proc/{pid}").st_uid):
        return None
    with open(f"/proc/{pid}/stat", "rb", 0) as file:
        fields = file.read(4096).rpartition(b")")[2].split()
    if fields[0] not in (b"Z", b"X") or int(fields[19]) != start:
        return None
    return int(fields[49])
