"""What becomes of listening sockets that somebody meddles with.

everup keeps them, but every process that was given one can shut it down for all, and whoever may
write in the directory of a Unix socket can remove its path. They are put back. A process of a
service that listens by itself, on a socket of its own, gets none of the clients that the kernel
steers: it is out of the balance.
"""

from everup.engine import rollout
from everup.engine.records import How
from everup.engine.state import Supervised
from everup.model.action import MendSockets, Watch
from everup.model.event import SocketsLost, SocketsMoved, Strangers
from everup.model.instance import State
from everup.model.journal import Kind
from everup.model.replacing import replace
from everup.supervise.lifecycle import Happening, On

_UP = (State.RUNNING, State.READY)


def lost(state: Supervised, event: SocketsLost, now: float) -> None:
    """Put them back. Where others must take their place, the processes get these by being
    replaced, one after the other."""
    name = event.service
    if name not in state.open_lanes or name not in state.services:
        return
    state.record(Kind.SOCKETS_LOST, name, lost=list(event.lost), anew=event.anew)
    state.emit(MendSockets(name, event.anew))
    mine = tuple(i.slot for i in state.of(name) if i.want and i.has_process)
    if event.anew and mine and name not in state.rolling and state.reloading is None:
        rollout.begin(state, mine, How.VERDICT, "everup", now)


def moved(state: Supervised, event: SocketsMoved) -> None:
    """Probes and the balance go by the places of the sockets: ask and steer anew."""
    name = event.service
    if name not in state.open_lanes or name not in state.services:
        return
    state.steered.discard(name)
    state.touch(name)
    for instance in state.all_of(name):
        if instance.pid and instance.state in (State.STARTING, *_UP):
            state.emit(Watch(instance.slot, instance.run, instance.state is State.STARTING))


def strangers(state: Supervised, event: Strangers, now: float) -> None:
    """Say who they are; those that are instances are not ready, since nobody reaches them."""
    name = event.service
    if name not in state.services:
        return
    details = [stranger.detail for stranger in event.strangers]
    state.record(Kind.SOCKETS_STRANGERS, name, strangers=details)
    mine = {(s.slot, s.run): s.detail for s in event.strangers if s.slot is not None}
    for instance in state.all_of(name):
        service = state.definition(instance)
        detail = mine.get((instance.slot, instance.run))
        if detail is not None and instance.state is State.READY:
            unready = Happening(On.UNREADY, detail)
            state.happen(instance.slot, unready, now, instance.run)
        elif detail is not None and instance.state is State.STARTING:
            state.put(replace(instance, reason=detail), now)
        elif instance.state is State.RUNNING and service.probe.readiness is None:
            state.happen(instance.slot, Happening(On.READY), now, instance.run)
