"""What services say on the notify socket, and which instance it was that spoke."""

import time
from collections import deque
from collections.abc import Callable

from everup.adapters import notify, proof
from everup.adapters.cgroups import Cgroups
from everup.adapters.notify import Said
from everup.daemon.crew import Crew
from everup.daemon.senders import Owner, Senders
from everup.engine.core import Engine
from everup.keeper.spawn import start_ticks
from everup.model.event import Event, Heard, Lag, Notified

_TELL_EVERY_S = 60.0
_SOCKETS = 3
_OVERRUN_EVERY_S = 0.2


class Ears:
    """``refused(detail, count)`` is told of datagrams that were dropped, at most once a minute:
    anyone on the machine can send them."""

    def __init__(
        self,
        engine: Engine,
        crew: Crew,
        cgroups: Cgroups,
        dispatch: Callable[[Event], None],
        refused: Callable[[str, int], None],
    ) -> None:
        self._dispatch = dispatch
        self._senders = Senders(engine, crew, cgroups, self._refuse)
        self._refused = refused
        self._sockets: deque[notify.NotifySocket[Owner]] = deque()
        self._refusals = 0
        self._told_at = -_TELL_EVERY_S
        self._overrun_at = -_OVERRUN_EVERY_S

    def open(self, path: str, held: int | None) -> int:
        """Open the socket, or take it back from an earlier engine; returns its descriptor."""
        sock = self.make(path, held)
        self.take(sock)
        return sock.fileno()

    def make(self, path: str, held: int | None = None) -> "notify.NotifySocket[Owner]":
        """A socket at the path, for ``take``."""
        return notify.NotifySocket(
            path, self._senders.owner, self._heard, self._refuse, self._overrun, fd=held
        )

    def take(self, sock: "notify.NotifySocket[Owner]") -> "notify.NotifySocket[Owner] | None":
        """Hear on that too, and on the last ones before it: who has connected to one speaks there
        on. Returns one that is to be closed."""
        self._sockets.appendleft(sock)
        return self._sockets.pop() if len(self._sockets) > _SOCKETS else None

    def belongs(self, pid: int) -> Owner | None:
        """The process of an instance that a process belongs to."""
        self._senders.changed()
        return self._senders.belongs(pid)

    def fileno(self) -> int | None:
        """Of the socket that services are told of."""
        return self._sockets[0].fileno() if self._sockets else None

    def readable(self) -> None:
        self._senders.changed()
        for sock in tuple(self._sockets):
            sock.readable()

    def _heard(self, owner: Owner, said: Said) -> None:
        slot, run = owner
        fields = said.fields
        match notify.dependency(fields):
            case str(wrong):
                self._refuse(f"{wrong} of {slot}")
            case notify.Dependency() as about:
                self._tell(Heard(slot, *about, run=run, voice=said.sender.pid))
        fields = tuple(pair for pair in fields if pair[0] not in notify.OF_DEPENDENCY)
        if not fields:
            return
        facts: dict[str, int | None] = {}
        main, named = notify.named_main(fields, said.descriptors)
        if named:
            fields = tuple(pair for pair in fields if pair[0] not in notify.MAIN)
        if main and self._senders.may_name(said.sender, main, owner):
            facts = {"start": start_ticks(main), "uid": proof.real_uid(main)}
            fields = (*fields, ("MAINPID", str(main)))
        elif named:
            self._refuse(f"{named[:40]} of {slot} is no process of its own")
        self._tell(Notified(slot, fields, run, facts))

    def _tell(self, event: Event) -> None:
        self._dispatch(event)
        self._senders.changed()

    def _overrun(self) -> None:
        """The queue was full: somebody's sign of life may be lost, or wait behind others."""
        if time.monotonic() - self._overrun_at >= _OVERRUN_EVERY_S:
            self._overrun_at = time.monotonic()
            self._dispatch(Lag(0.0, deaf=True))

    def _refuse(self, detail: str) -> None:
        self._refusals += 1
        if time.monotonic() - self._told_at >= _TELL_EVERY_S:
            self._told_at = time.monotonic()
            self._refused(detail, self._refusals)
