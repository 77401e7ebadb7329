"""What services say on the notify socket, and which instance it was that spoke."""

import time
from collections.abc import Callable
from typing import NamedTuple

from everup.adapters import notify, proof
from everup.adapters.cgroups import Cgroups
from everup.daemon.crew import Crew
from everup.engine.core import Engine
from everup.keeper.spawn import start_ticks
from everup.model.event import Event, Heard, Notified
from everup.model.instance import Slot

_TELL_EVERY_S = 60.0


class Owner(NamedTuple):
    """A process of an instance."""

    slot: Slot
    run: int

    def __str__(self) -> str:
        return str(self.slot)


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
        self._engine = engine
        self._crew = crew
        self._cgroups = cgroups
        self._dispatch = dispatch
        self._refused = refused
        self._socket: notify.NotifySocket[Owner] | None = None
        self._refusals = 0
        self._told_at = -_TELL_EVERY_S

    def open(self, path: str, held: int | None) -> int:
        """Open the socket, or take it back from an earlier engine; returns its descriptor."""
        self._socket = notify.NotifySocket(path, self.owner, self._heard, self._refuse, fd=held)
        return self._socket.fileno()

    def readable(self) -> None:
        assert self._socket is not None
        self._socket.readable()

    def owner(self, pid: int) -> Owner | None:
        """The process of an instance that a process belongs to: by main pid, control group,
        session, parents."""
        engine = self._engine
        all_of_them = (*engine.outgoing.values(), *engine.instances.values())
        by_pid = {i.pid: Owner(i.slot, i.run) for i in all_of_them if i.pid}
        if pid in by_pid:
            return by_pid[pid]
        if (group := self._cgroups.owner_group(pid)) is not None:
            slot, second = group
            run = self._crew.run_in(slot, second)
            return Owner(slot, run) if slot in engine.instances and run is not None else None
        return next((by_pid[one] for one in notify.ancestors(pid) if one in by_pid), None)

    def _heard(self, owner: Owner, fields: tuple[tuple[str, str], ...]) -> None:
        slot, run = owner
        match notify.dependency(fields):
            case str(wrong):
                self._refuse(f"{wrong} of {slot}")
            case notify.Dependency() as said:
                self._dispatch(Heard(slot, *said, run=run))
        fields = tuple(pair for pair in fields if pair[0] not in notify.OF_DEPENDENCY)
        if not fields:
            return
        main = dict(fields).get("MAINPID", "")
        facts = {}
        if main and not (main.isdigit() and self.owner(int(main)) == owner):
            self._refuse(f"MAINPID={main[:20]} of {slot} is no process of its own")
            fields = tuple(pair for pair in fields if pair[0] != "MAINPID")
        elif main:
            facts = {"start": start_ticks(int(main)), "uid": proof.real_uid(int(main))}
        self._dispatch(Notified(slot, fields, run, facts))

    def _refuse(self, detail: str) -> None:
        self._refusals += 1
        if time.monotonic() - self._told_at >= _TELL_EVERY_S:
            self._told_at = time.monotonic()
            self._refused(detail, self._refusals)
