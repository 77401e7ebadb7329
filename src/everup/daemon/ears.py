"""What services say on the notify socket, and which instance it was that spoke."""

import time
from collections.abc import Callable

from everup.adapters import notify
from everup.adapters.cgroups import Cgroups
from everup.engine.core import Engine
from everup.model.event import Event, Notified
from everup.model.instance import Slot

_TELL_EVERY_S = 60.0


class Ears:
    """``refused(detail, count)`` is told of datagrams that were dropped, at most once a minute:
    anyone on the machine can send them."""

    def __init__(
        self,
        engine: Engine,
        cgroups: Cgroups,
        dispatch: Callable[[Event], None],
        refused: Callable[[str, int], None],
    ) -> None:
        self._engine = engine
        self._cgroups = cgroups
        self._dispatch = dispatch
        self._refused = refused
        self._socket: notify.NotifySocket | None = None
        self._refusals = 0
        self._told_at = -_TELL_EVERY_S

    def open(self, path: str, held: int | None) -> int:
        """Open the socket, or take it back from an earlier engine; returns its descriptor."""
        self._socket = notify.NotifySocket(path, self.owner, self._heard, self._refuse, fd=held)
        return self._socket.fileno()

    def readable(self) -> None:
        assert self._socket is not None
        self._socket.readable()

    def owner(self, pid: int) -> Slot | None:
        """The instance that a process belongs to: by main pid, control group, session, parents."""
        instances = self._engine.instances
        by_pid = {i.pid: slot for slot, i in instances.items() if i.pid}
        if pid in by_pid:
            return by_pid[pid]
        if (slot := self._cgroups.slot_of(pid)) is not None:
            return slot if slot in instances else None
        return next((by_pid[one] for one in notify.ancestors(pid) if one in by_pid), None)

    def _heard(self, slot: Slot, fields: tuple[tuple[str, str], ...]) -> None:
        main = dict(fields).get("MAINPID", "")
        if main and not (main.isdigit() and self.owner(int(main)) == slot):
            self._refuse(f"MAINPID={main[:20]} of {slot} is no process of its own")
            fields = tuple(pair for pair in fields if pair[0] != "MAINPID")
        self._dispatch(Notified(slot, fields))

    def _refuse(self, detail: str) -> None:
        self._refusals += 1
        if time.monotonic() - self._told_at >= _TELL_EVERY_S:
            self._told_at = time.monotonic()
            self._refused(detail, self._refusals)
