"""Which pipes must be looked at though the kernel tells of nothing new in them."""

import time

from everup.adapters.logs._source import TAKE_BYTES, Source

LAST_DELAY_S = 0.25
_FIRST_DELAY_S = 0.0001
_FINEST_S = 0.001
"""epoll waits for whole milliseconds."""


class Turns:
    """An unfinished line stays in its pipe, so pipes are watched for edges, not for content. Two
    things make no edge: what is left when a turn has ended, and a long write that waits for room
    in a pipe that is not empty: the kernel tells of it when it is complete."""

    def __init__(self) -> None:
        self._unread: dict[int, None] = {}
        self._later: dict[int, float] = {}  # when to look again

    @property
    def any_later(self) -> bool:
        return bool(self._later)

    def wait_s(self, otherwise: float | None) -> float | None:
        """How long epoll may wait; None: without end."""
        if self._unread:
            return 0.0
        if not self._later:
            return otherwise
        wait_s = max(0.0, min(self._later.values()) - time.monotonic())
        if wait_s >= _FINEST_S:
            return wait_s
        time.sleep(wait_s)
        return 0.0

    def due(self) -> dict[int, None]:
        """Descriptors whose turn it is, in order; forgets what was unread."""
        turns, self._unread = self._unread, {}
        if self._later:
            now_s = time.monotonic()
            turns |= dict.fromkeys(fd for fd, due_s in self._later.items() if due_s <= now_s)
        return turns

    def had(self, source: Source, taken: int) -> None:
        """After a turn in which ``taken`` bytes were stored."""
        if source.more:
            self._unread[source.fd] = None
        if taken and source.full:
            source.widen(TAKE_BYTES)  # so that the service writes on while we store
            source.delay_s = _FIRST_DELAY_S
        elif source.fd in self._later:
            source.delay_s *= 2
        else:
            return
        if source.delay_s > LAST_DELAY_S:  # the tick looks at unfinished lines from now on
            del self._later[source.fd]
        else:
            self._later[source.fd] = time.monotonic() + source.delay_s

    def forget(self, fd: int) -> None:
        """This descriptor will be closed."""
        self._unread.pop(fd, None)
        self._later.pop(fd, None)
