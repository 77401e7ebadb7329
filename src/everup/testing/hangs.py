"""Hangs of everup's own processes in a simulated world.

A stopped engine takes nothing in, a stopped keeper carries nothing out and reports nothing. The
other one ends it after a while, as it does in earnest (see ``keeper.vigil``), or the stop passes
before that.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from everup.model.action import Action
from everup.model.event import Event, Exited, HookDone, Lag, Spawned, SpawnFailed

if TYPE_CHECKING:
    from everup.testing.sim import SimWorld

Who = Literal["engine", "keeper"]
VERDICT_S = 5.5
"""From the stop to the kill, at most."""
_OF_KEEPER = (Spawned, SpawnFailed, Exited, HookDone)


@dataclass(slots=True)
class Hang:
    """One that goes on."""

    who: Who
    since: float
    events: list[Event] = field(default_factory=list)
    """That wait to be taken in."""
    actions: list[Action] = field(default_factory=list)
    """That wait to be carried out."""


def begin(world: "SimWorld", who: Who, lasts_s: float) -> None:
    """SIGSTOP; SIGCONT after ``lasts_s``, unless it was missed before."""
    if world.hang is not None or world.quit is not None:
        return
    hang = world.hang = Hang(who, world.now)
    if lasts_s < VERDICT_S:
        world.after(lasts_s, lambda: end(world, hang))
    else:
        world.after(VERDICT_S, lambda: _missed(world, hang))


def takes_in(world: "SimWorld", event: Event) -> bool:
    """Whether the engine can take an event in now; if not, it waits."""
    hang = world.hang
    if hang is None or (hang.who == "keeper" and not isinstance(event, _OF_KEEPER)):
        return True
    hang.events.append(event)
    return False


def carries_out(world: "SimWorld", action: Action) -> bool:
    """Whether the keeper can carry an action out now; if not, it waits in its socket."""
    if world.hang is None or world.hang.who != "keeper":
        return True
    world.hang.actions.append(action)
    return False


def end(world: "SimWorld", hang: Hang) -> None:
    """SIGCONT: what waited comes at once, after the engine has seen how late it is."""
    if world.hang is not hang:
        return
    world.hang = None
    if hang.who == "engine":
        world.dispatch(Lag(world.now - hang.since))
    for action in hang.actions:
        world.perform(action)
    for event in hang.events:
        world.dispatch(event)


def _missed(world: "SimWorld", hang: Hang) -> None:
    if world.hang is not hang:
        return
    world.hang = None
    world.missed += 1
    world.die(hang.who)
    if hang.who == "engine":  # the keeper tells its next engine what it could not tell this one
        for event in hang.events:
            if isinstance(event, _OF_KEEPER):
                world.dispatch(event)
