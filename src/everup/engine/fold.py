"""State from the journal: what an engine knows when it starts.

The fold takes the last entry of each kind for each subject and the keeper's list of children.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from everup.model.event import Adopted, Pending, Unfinished, Up
from everup.model.instance import Slot, State
from everup.model.journal import Entry, Kind
from everup.model.spec import Spec

_STATES = {
    Kind.SPAWNED.value: State.STARTING,
    Kind.RUNNING.value: State.RUNNING,
    Kind.READY.value: State.READY,
    Kind.DRAINING.value: State.DRAINING,
    Kind.STOPPING.value: State.STOPPING,
    Kind.ADOPTED.value: State.STARTING,  # the payload of these two tells which
    Kind.OUTGOING.value: State.STARTING,
}
_ENDS = (Kind.EXITED, Kind.STOPPED, Kind.FAILED, Kind.BACKOFF, Kind.PARKED, Kind.LOST)
_FAILING = (Kind.BACKOFF, Kind.PARKED, Kind.STABLE, Kind.WANTED)
_TELLING = (Kind.ADOPTED.value, Kind.OUTGOING.value)
_MAX_REPLICAS = 1000
_OWN = frozenset({"run", "pid", "state", "since", "reason", "spawned_mono"})
_By = Mapping[tuple[str, str], Entry]


@dataclass(frozen=True, slots=True)
class ChildFact:
    """A living process that the keeper has for us."""

    slot: Slot
    run: int
    pid: int
    restarts: int
    lane: int = 0
    gen: int = 0
    stranger: bool = False
    """Its first keeper died: whether that had passed on its last signal, nobody knows."""


def replicas(latest: Iterable[Entry]) -> dict[str, int]:
    """Replica counts that operators set."""
    counts = ((e.subject, e.payload.get("replicas")) for e in latest if e.kind == Kind.SCALED.value)
    return {name: n for name, n in counts if isinstance(n, int) and 0 <= n <= _MAX_REPLICAS}


def bearable(
    entries: Sequence[Entry], check: Callable[[list[Entry]], object]
) -> tuple[list[Entry], list[Entry]]:
    """Those with which ``check`` works, and those that it fails at: damaged, whatever by. One
    costs some ten calls."""
    good: list[Entry] = []
    bad: list[Entry] = []
    todo = [list(entries)]
    while todo:
        part = todo.pop()
        try:
            check(sorted((*good, *part), key=lambda e: e.seq))
        except Exception:
            if len(part) == 1:
                bad += part
            else:
                middle = len(part) // 2
                todo += [part[middle:], part[:middle]]
        else:
            good += part
    return sorted(good, key=lambda e: e.seq), bad


def fold(
    spec: Spec,
    latest: Iterable[Entry],
    children: Iterable[ChildFact],
    boot: str,
    now: float,
    *,
    candidate: Spec | None = None,
    takeover: bool = False,
) -> Up:
    """Give the event that a new engine starts with. ``children`` is empty after a fresh start, and
    where none was left when it took over (``takeover``); ``candidate`` is the config of a reload
    that was not finished."""
    by: dict[tuple[str, str], Entry] = {(e.kind, e.subject): e for e in latest}
    names = {*spec.service, *(candidate.service if candidate else ())}
    wanted, done, active = [], [], []
    runs: dict[Slot, int] = {}
    alive = list(children)
    for (kind, subject), entry in by.items():
        if kind == Kind.BALANCE.value and alive:
            lanes = entry.payload.get("lanes", entry.payload["replicas"])
            active.append((subject, tuple(int(n) for n in lanes)))
        slot = _slot(subject)
        if slot is None:
            continue
        # Also of what is in no config at the moment: its numbers go on if it comes back.
        if kind == Kind.WANTED.value:
            wanted.append((slot, bool(entry.payload["want"])))
        elif kind == Kind.STARTING.value:
            runs[slot] = int(entry.payload.get("run", 0))
        elif kind == Kind.STOPPED.value and entry.payload.get("done"):
            started = by.get((Kind.STARTING.value, subject))
            if started is None or started.seq < entry.seq:
                done.append(slot)
    found = [_adopt(child, by, boot, now) for child in alive]
    pending = None if candidate is None else _pending(candidate, by)
    return Up(
        tuple(wanted),
        tuple(_in_roles(found)),
        tuple(runs.items()),
        tuple(done),
        tuple(active),
        (bool(alive) or takeover)
        and _seq(by, Kind.ENGINE_STOPPING) > _seq(by, Kind.ENGINE_STARTED),
        tuple((subject, int(e.payload["gen"])) for subject, e in _rollouts(by)),
        tuple(_crashes(by, runs)),
        tuple(_lost(by, runs, {(child.slot, child.run) for child in alive})),
        tuple(_unfinished(by, names)) if alive or pending else (),
        pending,
        tuple(_burning(by)),
    )


def reload_is_open(latest: Iterable[Entry]) -> bool:
    """Whether an engine died in the middle of a reload, and it can still be finished or undone."""
    by = {(e.kind, e.subject): e for e in latest}
    ends = (Kind.RELOADED, Kind.ROLLED_BACK)
    began, back = _seq(by, Kind.RELOADING), _seq(by, Kind.ROLLING_BACK)
    if began < back < _seq(by, Kind.ENGINE_DEFECT):
        return False
    return began > max(_seq(by, kind) for kind in ends)


def gave_up(latest: Iterable[Entry], config: str) -> str:
    """Why everup does not try again what it failed at by its own fault: to begin the reload of
    this config (its digest), or to go back from one. "" if it did not."""
    by = {(e.kind, e.subject): e for e in latest}
    defect = by.get((Kind.ENGINE_DEFECT.value, "everup"))
    began = _seq(by, Kind.RELOADING)
    if defect is None or defect.seq < max(began, _seq(by, Kind.RELOADED)):
        return ""
    back = _seq(by, Kind.ROLLING_BACK)
    going_back = began < back and back > _seq(by, Kind.ROLLED_BACK)
    beginning = defect.payload.get("config") == config
    error = defect.payload.get("error")
    return f"everup itself failed: {error}" if going_back or beginning else ""


def _seq(by: _By, kind: Kind, subject: str = "everup") -> int:
    entry = by.get((kind.value, subject))
    return -1 if entry is None else entry.seq


def _slot(subject: str) -> Slot | None:
    try:
        return Slot.parse(subject)
    except ValueError:
        return None


def _burning(by: _By) -> Iterable[tuple[str, tuple[float, ...]]]:
    """The last alert of a service tells which are on after it."""
    for (kind, subject), entry in by.items():
        if kind != Kind.SLO_BURNING.value:
            continue
        calm = by.get((Kind.SLO_CALM.value, subject))
        last = entry if calm is None or calm.seq < entry.seq else calm
        if windows := tuple(float(s) for s in last.payload.get("burning", ())):
            yield subject, windows


# -- rollouts and reloads


def _rollouts(by: _By) -> list[tuple[str, Entry]]:
    return [(subject, e) for (kind, subject), e in by.items() if kind == Kind.ROLLOUT.value]


def _unfinished(by: _By, names: Iterable[str]) -> Iterable[Unfinished]:
    for name, entry in _rollouts(by):
        ended = max(_seq(by, kind, name) for kind in (Kind.ROLLOUT_DONE, Kind.ROLLOUT_STOPPED))
        if name not in names or ended > entry.seq:
            continue
        slots = tuple(Slot.parse(text) for text in entry.payload["slots"])
        how, by_whom = str(entry.payload["how"]), str(entry.payload.get("by", ""))
        overlap = bool(entry.payload.get("overlap", True))
        yield Unfinished(name, int(entry.payload["gen"]), slots, how, by_whom, overlap)


def _pending(candidate: Spec, by: _By) -> Pending:
    began, back = _seq(by, Kind.RELOADING), by.get((Kind.ROLLING_BACK.value, "everup"))
    failed = "" if back is None or back.seq < began else str(back.payload["reason"])
    defect = by.get((Kind.ENGINE_DEFECT.value, "everup"))
    if defect is not None and defect.seq > began and not failed:
        failed = f"everup itself failed: {defect.payload.get('error')}"
    gens = tuple(
        (name, int(e.payload["gen"]))
        for name, e in _rollouts(by)
        if e.seq > began and e.payload["how"] == "reload"
    )
    opened = by.get((Kind.RELOADING.value, "everup"))
    told = {} if opened is None else opened.payload
    by_whom, overlap = str(told.get("by", "")), bool(told.get("overlap", True))
    return Pending(candidate, by_whom, failed, gens, overlap)


# -- processes


def _crashes(by: _By, slots: Iterable[Slot]) -> Iterable[tuple[Slot, int, bool]]:
    for slot in slots:
        entries = (by.get((kind.value, str(slot))) for kind in _FAILING)
        last = max((e for e in entries if e is not None), key=lambda e: e.seq, default=None)
        if last is not None and "attempt" in last.payload:
            yield slot, int(last.payload["attempt"]), last.kind == Kind.PARKED.value


def _lost(
    by: _By, runs: Mapping[Slot, int], alive: set[tuple[Slot, int]]
) -> Iterable[tuple[Slot, int]]:
    for slot, run in runs.items():
        ends = [end for kind in _ENDS if (end := by.get((kind.value, str(slot))))]
        ended = max((int(end.payload.get("run", 0)) for end in ends), default=0)
        if ended < run and (slot, run) not in alive:
            yield slot, run
        old = by.get((Kind.OUTGOING.value, str(slot)))
        former = 0 if old is None else int(old.payload["run"])
        unseen = old is not None and all(end.seq < old.seq for end in ends)
        if unseen and former != run and (slot, former) not in alive:
            yield slot, former


def _in_roles(found: list[Adopted]) -> Iterable[Adopted]:
    """Of two processes in one slot, one is on its way out: the one that stops, else the older."""
    for slot in dict.fromkeys(one.slot for one in found):
        mine = sorted((one for one in found if one.slot == slot), key=lambda one: one.run)
        leaving = [o for o in mine if o.state in (State.STOPPING, State.DRAINING)]
        if len(mine) > 1:
            old = leaving[0] if leaving else mine[0]
            mine = [replace(one, outgoing=one is old) for one in mine]
        yield from mine


def _adopt(child: ChildFact, by: _By, boot: str, now: float) -> Adopted:
    subject, state, seq, spawned_at = str(child.slot), State.STARTING, -1, now
    facts: dict[str, Any] = {}
    since: float | None = None
    for kind, meaning in _STATES.items():
        entry = by.get((kind, subject))
        if entry is None or entry.payload.get("run") != child.run:
            continue
        if entry.seq > seq:
            seq = entry.seq
            state = State(entry.payload["state"]) if kind in _TELLING else meaning
            since = entry.payload.get("since", entry.mono)
            since = since if boot and entry.boot == boot else None
        if kind == Kind.SPAWNED.value and boot and entry.boot == boot:
            spawned_at = entry.mono
        if kind == Kind.OUTGOING.value and boot and entry.boot == boot:
            spawned_at = entry.payload.get("spawned_mono") or spawned_at
    for kind in (Kind.SPAWNED, Kind.OUTGOING, Kind.MAIN):
        entry = by.get((kind.value, subject))
        if entry is not None and entry.payload.get("run") == child.run:
            facts = {k: v for k, v in entry.payload.items() if k not in _OWN}
    sent = by.get((Kind.SIGNALLED.value, subject))
    signalled = (
        sent is not None
        and sent.seq > seq
        and sent.payload.get("run") == child.run
        and not child.stranger
    )
    said = by.get((Kind.SAID_READY.value, subject))
    said_ready = said is not None and said.payload.get("run") == child.run
    return Adopted(
        child.slot, child.run, child.pid, state, spawned_at, child.restarts, signalled,
        child.lane, child.gen, since, facts=facts, heard=_heard(by, subject, child.run),
        said_ready=said_ready,
    )  # fmt: skip


def _heard(by: _By, subject: str, run: int) -> dict[str, Any]:
    """What the process had said of its dependencies: ``so_far``, and how many of its calls are in
    an event of their own (``summed``)."""
    found = [by.get((k.value, subject)) for k in (Kind.DEPENDENCY_STATE, Kind.DEPENDENCY_CALLS)]
    mine = [e for e in found if e and e.payload.get("run") == run and "so_far" in e.payload]
    if not mine:
        return {}
    last = max(mine, key=lambda e: e.seq)
    sums = mine[-1].payload["so_far"] if mine[-1].kind == Kind.DEPENDENCY_CALLS.value else {}
    summed = {name: row["calls"] for name, row in sums.items()}
    return {"so_far": last.payload["so_far"], "summed": summed}
