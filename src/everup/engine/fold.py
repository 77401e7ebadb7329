"""State from the journal: what an engine knows when it starts.

The fold takes the last entry of each kind for each subject and the keeper's list of children.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from everup.model.event import Adopted, Up
from everup.model.instance import Slot, State
from everup.model.journal import Entry, Kind
from everup.model.spec import Spec

_STATES = {
    Kind.SPAWNED.value: State.STARTING,
    Kind.RUNNING.value: State.RUNNING,
    Kind.READY.value: State.READY,
    Kind.STOPPING.value: State.STOPPING,
    Kind.ADOPTED.value: State.STARTING,  # its payload tells which
}


@dataclass(frozen=True, slots=True)
class ChildFact:
    """A living process that the keeper has for us."""

    slot: Slot
    run: int
    pid: int
    restarts: int


def replicas(latest: Iterable[Entry]) -> dict[str, int]:
    """Replica counts that operators set."""
    return {e.subject: int(e.payload["replicas"]) for e in latest if e.kind == Kind.SCALED.value}


def fold(
    spec: Spec, latest: Iterable[Entry], children: Iterable[ChildFact], boot: str, now: float
) -> Up:
    """The event that a new engine starts with. ``children`` is empty after a fresh start."""
    by: dict[tuple[str, str], Entry] = {(e.kind, e.subject): e for e in latest}
    wanted, runs, done, active = [], [], [], []
    alive = {child.slot: child for child in children}
    for (kind, subject), entry in by.items():
        if kind == Kind.BALANCE.value and alive:
            active.append((subject, tuple(int(n) for n in entry.payload["replicas"])))
        slot = _slot(subject, spec)
        if slot is None:
            continue
        # A slot that is scaled away at the moment keeps its run number for when it comes back.
        if kind == Kind.WANTED.value:
            wanted.append((slot, bool(entry.payload["want"])))
        elif kind == Kind.STARTING.value:
            runs.append((slot, int(entry.payload.get("run", 0))))
        elif kind == Kind.STOPPED.value and entry.payload.get("done"):
            started = by.get((Kind.STARTING.value, subject))
            if started is None or started.seq < entry.seq:
                done.append(slot)
    adopted = tuple(_adopt(child, by, boot, now) for child in alive.values())
    quitting = bool(alive) and _seq(by, Kind.ENGINE_STOPPING) > _seq(by, Kind.ENGINE_STARTED)
    return Up(tuple(wanted), adopted, tuple(runs), tuple(done), tuple(active), quitting)


def _seq(by: Mapping[tuple[str, str], Entry], kind: Kind) -> int:
    entry = by.get((kind.value, "everup"))
    return -1 if entry is None else entry.seq


def _slot(subject: str, spec: Spec) -> Slot | None:
    try:
        slot = Slot.parse(subject)
    except ValueError:
        return None
    return slot if slot.service in spec.service else None


def _adopt(child: ChildFact, by: Mapping[tuple[str, str], Entry], boot: str, now: float) -> Adopted:
    subject, state, seq, spawned_at = str(child.slot), State.STARTING, -1, now
    for kind, meaning in _STATES.items():
        entry = by.get((kind, subject))
        if entry is None or entry.payload.get("run") != child.run:
            continue
        if entry.seq > seq:
            seq = entry.seq
            state = State(entry.payload["state"]) if kind == Kind.ADOPTED.value else meaning
        if kind == Kind.SPAWNED.value and entry.boot == boot:
            spawned_at = entry.mono
    sent = by.get((Kind.SIGNALLED.value, subject))
    signalled = sent is not None and sent.seq > seq and sent.payload.get("run") == child.run
    return Adopted(child.slot, child.run, child.pid, state, spawned_at, child.restarts, signalled)
