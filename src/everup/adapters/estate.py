"""What an ``everup up`` finds of an everup whose keeper and engine are both dead.

Instances go on by themselves. Which those are is known from the journal (boot, pid and start time
must agree: a number alone is never trusted) and from the environment that everup gave them. What
is gathered goes to the new keeper as an estate; see ``everup.keeper.estate``.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from everup.adapters import cgroups, journal, takeback
from everup.adapters.census import Found, census
from everup.adapters.place import Place
from everup.adapters.takeback import Holder
from everup.keeper.children import session_members
from everup.keeper.estate import Estate
from everup.model.instance import Slot
from everup.model.journal import Entry, Kind
from everup.model.spec import Spec

_MAX_HISTORY = 2000
_ENDS = (Kind.EXITED.value, Kind.LOST.value)
_HISTORY = (
    Kind.STARTING.value, Kind.SPAWNED.value, Kind.MAIN.value, *_ENDS,
    Kind.HOOK.value, Kind.HOOK_ENDED.value,
)  # fmt: skip
ROLE = "EVERUP_ROLE"
"""In the environment of what runs beside an instance: ``hook`` or ``probe``."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A main process that should live, by the journal or by its environment."""

    slot: Slot
    run: int
    pid: int
    start: int
    """Ticks since boot."""
    leader: int
    """Of its session: the first main process."""
    leader_start: int = 0
    cgroup: str | None = None
    pipes: tuple[int, ...] = ()
    """Inodes of stdout and stderr; empty: unknown."""
    lane: int = 0
    gen: int = 0
    restarts: int = 0

    @property
    def key(self) -> tuple[Slot, int]:
        return (self.slot, self.run)

    def child(self, lane: int, cgroup: str | None) -> dict[str, Any]:
        """For the estate."""
        return {
            "id": f"main:{self.slot}:{self.run}",
            "pid": self.pid,
            "start": self.start,
            "leader": self.leader,
            "leader_start": self.leader_start,
            "cgroup": cgroup,
            "respawn": True,
            "meta": {
                "role": "main",
                "slot": str(self.slot),
                "run": self.run,
                "restarts": self.restarts,
                "pipes": self.run,
                "lane": lane,
                "gen": self.gen,
            },
        }


@dataclass(frozen=True, slots=True)
class Gathered:
    """All that was found."""

    held: dict[str, int] = field(default_factory=dict)
    children: list[dict[str, Any]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    """(subject, text): what could not be taken back."""

    def __bool__(self) -> bool:
        return bool(self.held or self.children)

    def estate(self) -> Estate:
        """The engine that comes is not the first one: it takes over."""
        return Estate(
            held=self.held,
            children=self.children,
            engine_starts=1 if self.children else 0,
            notes=self.notes,
        )


# -- who should live


def claims(entries: Iterable[Entry], boot: str) -> list[Claim]:
    """The main processes that should live by these journal entries, in the order of their start.
    Of entries of another boot of the machine nothing follows; nor where ``boot`` is unknown."""
    out: dict[tuple[str, int], Claim] = {}
    for entry in sorted(entries, key=_seq):
        if not boot or entry.boot != boot:
            continue
        with contextlib.suppress(KeyError, TypeError, ValueError):
            key = (entry.subject, int(entry.payload["run"]))
            if entry.kind == Kind.SPAWNED.value:
                out.pop(key, None)
                out[key] = _claim(entry.subject, entry.payload)
            elif entry.kind == Kind.MAIN.value and key in out:
                pid, start = int(entry.payload["pid"]), int(entry.payload["start"])
                out[key] = replace(out[key], pid=pid, start=start)
            elif entry.kind in _ENDS:
                out.pop(key, None)
    return list(out.values())


def _claim(subject: str, payload: Mapping[str, Any]) -> Claim:
    pid, start = int(payload["pid"]), int(payload["start"])
    if min(pid, start) <= 0:
        raise ValueError(subject)
    leader = int(payload.get("leader") or pid)
    return Claim(
        Slot.parse(subject),
        int(payload["run"]),
        pid,
        start,
        leader,
        int(payload.get("leader_start") or (start if leader == pid else 0)),
        payload.get("cgroup"),
        tuple(int(inode) for inode in payload.get("pipes") or ()),
        int(payload.get("lane") or 0),
        int(payload.get("gen") or 0),
        int(payload.get("restarts") or 0),
    )


def newcomers(
    found: Iterable[Found], entries: Iterable[Entry], boot: str, role_of: Callable[[int], str]
) -> list[Claim]:
    """Main processes that everup spawned a moment before it died, unknown to the journal.

    ``found``: those that live, in the order of their start; ``role_of`` a pid: what runs
    beside an instance says so in its environment.
    """
    by: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=_seq):
        if boot and entry.boot == boot:
            by.setdefault(entry.subject, []).append(entry)
    out: dict[tuple[Slot, int], Claim] = {}
    for one in found:
        with contextlib.suppress(ValueError):
            slot = Slot.parse(one.slot)
            known = by.get(one.slot, [])
            if not one.leads or (slot, one.run) in out or not _may_be_main(one, known):
                continue
            if role_of(one.pid):
                continue
            facts: Mapping[str, Any] = next(
                (e.payload for e in reversed(known)
                 if _is(e, Kind.SPAWNED, one.run) or _is(e, Kind.STARTING, one.run)),
                {},
            )  # fmt: skip
            out[slot, one.run] = Claim(
                slot,
                one.run,
                one.pid,
                one.start,
                one.pid,
                one.start,
                lane=int(facts.get("lane") or 0),
                gen=int(facts.get("gen") or 0),
                restarts=int(facts.get("restarts") or 0),
            )
    return list(out.values())


def _seq(entry: Entry) -> int:
    return entry.seq


def _is(entry: Entry, kind: Kind, run: int) -> bool:
    return entry.kind == kind.value and entry.payload.get("run") == run


def _may_be_main(one: Found, known: Sequence[Entry]) -> bool:
    """By the entries of its slot, in order. If the journal tells of its run by another pid, or has
    seen that end, it is something else: what is left of it."""
    run, hook = one.run, -1
    if any(entry.kind in _ENDS and entry.payload.get("run") == run for entry in known):
        return False
    spawned = [entry.payload for entry in known if _is(entry, Kind.SPAWNED, run)]
    if spawned:  # by an engine that did not know its start time, or it would be claimed
        return all(s.get("pid") == one.pid and not s.get("start") for s in spawned)
    for entry in known:
        if _is(entry, Kind.HOOK, run) and entry.payload.get("hook") == "pre_start":
            hook = entry.seq
        elif entry.kind == Kind.HOOK_ENDED.value and entry.payload.get("hook") == "pre_start":
            hook = -1
    if hook >= 0:
        return False  # it is that hook
    if any(_is(entry, Kind.STARTING, run) for entry in known):
        return True
    runs = [entry.payload.get("run") for entry in known]
    return run > max((r for r in runs if isinstance(r, int)), default=0)  # the journal lost it


# -- gathering


def gather(
    place: Place,
    spec: Spec | None,
    entries: Sequence[Entry],
    boot: str,
    inherited: Mapping[str, int] | None = None,
) -> Gathered:
    """Find the living instances and take back what they hold.

    ``spec``: what they were started by, None if unknown (then no sockets). ``entries``: the last
    of each kind for each subject. ``inherited``: what systemd kept, by name; all of it is taken
    over or closed.
    """
    stored = dict(inherited or {})
    history: list[Entry] = []
    found: list[Found] = []
    if _may_live(entries, boot):
        found = _census(place.state_dir)
        history = [*entries, *_history(place, found)]
    living = [c for c in claims(history, boot) if lives(c.pid, c.start)]
    living += newcomers(found, history, boot, role)
    out = Gathered()
    if spec is None and living:
        out.notes.append(
            ("everup", "the config of the everup before cannot be read: sockets are not taken back")
        )
    groups = {claim.key: _group(claim, place) for claim in living}
    pids = {c.key: partial(_pids_of, c, groups[c.key], found) for c in living}
    lanes = _sockets(spec, living, pids, found, stored, out)
    for claim in living:
        names = [f"pipe:{claim.slot}:{claim.run}:{stream}" for stream in ("out", "err")]
        ours = {name: stored.pop(name) for name in names if name in stored}
        taken = takeback.take_pipes(claim.slot, claim.run, claim.pipes, pids[claim.key], ours)
        out.held.update(taken.held)
        out.notes.extend(taken.notes)
        lane = lanes.get(claim.key, claim.lane)
        out.children.append(claim.child(lane, groups[claim.key]))
    for name, fd in stored.items():
        if name.startswith("pipe:"):
            out.held[name] = fd  # the last words of somebody who is gone
        else:
            os.close(fd)
    return out


def _sockets(
    spec: Spec | None,
    living: Sequence[Claim],
    pids: Mapping[takeback.Key, takeback.Pids],
    found: Sequence[Found],
    stored: dict[str, int],
    out: Gathered,
) -> dict[takeback.Key, int]:
    """Adds to ``out``; returns the lane of each instance."""
    lanes: dict[takeback.Key, int] = {}
    for service in spec.service.values() if spec is not None else ():
        prefix = f"sock:{service.name}:"
        ours = {name: stored.pop(name) for name in list(stored) if name.startswith(prefix)}
        holders = [Holder(pids[c.key], c.key, c.lane) for c in living if c.slot[0] == service.name]
        # What is left of others is about to be killed, and may have the queue of its lane.
        for one in found:
            slot = Slot.parse(one.slot)
            if slot.service == service.name and (slot, one.run) not in pids:
                holders.append(Holder(partial(iter, (one.pid,))))
        if (holders and service.listen) or ours:
            taken = takeback.take_sockets(service, holders, ours)
            lanes |= taken.lanes
            out.held.update(taken.held)
            out.notes.extend(taken.notes)
    return lanes


def _may_live(entries: Sequence[Entry], boot: str) -> bool:
    """Whether it is worth while to look: not after a reboot, nor once all was stopped."""
    if not boot or not entries:
        return bool(boot)  # without a journal the environment of the living has to do
    last = {entry.kind: entry.seq for entry in sorted(entries, key=_seq)}
    down = last.get(Kind.ENGINE_STOPPED.value, -1) > last.get(Kind.ENGINE_STARTED.value, -1)
    return max(entries, key=_seq).boot == boot and not down


def _census(state_dir: str) -> list[Found]:
    found = []
    for one in census(state_dir):
        with contextlib.suppress(ValueError):
            Slot.parse(one.slot)
            found.append(one)
    return found


def _history(place: Place, found: Iterable[Found]) -> list[Entry]:
    """More of the journal than the last entry of each kind: two runs of a slot may live."""
    slots = sorted({one.slot for one in found})
    if not slots:
        return []
    try:
        return journal.read(
            Path(place.journal), last=_MAX_HISTORY, subjects=slots, kinds=_HISTORY
        )  # fmt: skip
    except sqlite3.Error:
        return []


def lives(pid: int, start: int) -> bool:
    """Whether the process is there, is the one that is meant, and is no zombie."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0] not in (b"Z", b"X") and int(fields[19]) == start
    return False


def role(pid: int) -> str:
    """``hook`` or ``probe``, if the process is part of one; else empty."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if line.startswith(f"{ROLE}=".encode()):
                return line.partition(b"=")[2].decode(errors="replace")
    return ""


def _group(claim: Claim, place: Place) -> str | None:
    group = cgroups.group_path(claim.pid, cgroups.home_name(place.state_dir))
    if group is None and claim.cgroup is not None and claim.pid in _procs(claim.cgroup):
        return claim.cgroup
    return group


def _procs(group: str | None) -> list[int]:
    if group is not None:
        with contextlib.suppress(OSError, ValueError):
            return [int(pid) for pid in Path(group, "cgroup.procs").read_text().split()]
    return []


def _pids_of(claim: Claim, group: str | None, found: Iterable[Found]) -> Iterator[int]:
    """The processes of an instance, the likeliest first."""
    seen = {claim.pid}
    yield claim.pid
    marked = [one.pid for one in found if (one.slot, one.run) == (str(claim.slot), claim.run)]
    for pid in chain(_procs(group), marked, _session(claim.leader)):
        if pid not in seen:
            seen.add(pid)
            yield pid


def _session(leader: int) -> Iterator[int]:
    """All of /proc is looked at, so only once nobody else is left to ask."""
    yield from session_members(leader)
