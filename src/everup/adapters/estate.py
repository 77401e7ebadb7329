"""What an ``everup up`` finds of an everup whose keeper and engine are both dead.

Instances go on by themselves. Which those are is known from the journal: boot, pid, start time,
user and control group must agree. What was started in the very moment of the death is found by
the environment that everup gave it, and counts only with a proof (``everup.adapters.proof``).
What is gathered goes to the new keeper as an estate; see ``everup.keeper.estate``.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from everup.adapters import cgroups, journal, proof, takeback
from everup.adapters.census import Found, census
from everup.adapters.claims import ENDS, Claim, claims, newcomers, seq_of
from everup.adapters.place import Place
from everup.adapters.takeback import Holder
from everup.keeper.children import session_members
from everup.keeper.estate import Estate
from everup.model.instance import Slot
from everup.model.journal import Entry, Kind
from everup.model.spec import Spec

_MAX_HISTORY = 2000
_MAX_NOTES = 20
_HISTORY = (
    Kind.STARTING.value, Kind.SPAWNED.value, Kind.MAIN.value, *ENDS,
    Kind.HOOK.value, Kind.HOOK_ENDED.value,
)  # fmt: skip
ROLE = "EVERUP_ROLE"
"""In the environment of what runs beside an instance: ``hook`` or ``probe``."""


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
    out = Gathered()
    user, home = proof.users(spec), cgroups.home_name(place.state_dir)
    living = [
        c for c in claims(history, boot) if lives(c.pid, c.start) and _is_it(c, user, home, out)
    ]
    proven = partial(_proven, spec=spec, user=user, home=home, out=out)
    living += newcomers(found, history, boot, role, proven)
    found = [o for o in found if proof.is_ours(o.pid, user(Slot.parse(o.slot).service), home)]
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


def _is_it(claim: Claim, user: Callable[[str], int | None], home: str, out: Gathered) -> bool:
    """Adds a note to ``out`` where a living process is not the one of the journal."""
    why = proof.strange(
        claim.pid,
        uid=user(claim.slot.service) if claim.uid is None else claim.uid,
        group=claim.cgroup,
        home=home,
        inodes={"pipe:": claim.pipes, "socket:": claim.sockets},
    )
    if why:
        out.notes.append((str(claim.slot), f"pid {claim.pid} is not taken over: {why}"))
    return not why


def _proven(
    one: Found, *, spec: Spec | None, user: Callable[[str], int | None], home: str, out: Gathered
) -> bool:
    """Whether who calls itself an instance is one: it runs as the user that the config says, and
    has what only everup can have given it."""
    slot = Slot.parse(one.slot)
    service = None if spec is None else spec.service.get(slot.service)
    uid, expected = proof.real_uid(one.pid), user(slot.service)
    as_told = uid == (os.getuid() if expected is None else expected)
    groups = [cgroups.group_name(slot, second) for second in (False, True)]
    if proof.uid_fits(uid, expected) and (
        proof.in_group(one.pid, home, groups)
        or (as_told and proof.has_our_output(one.pid))
        or (service is not None and takeback.listens(one.pid, service))
    ):
        return True
    if len(out.notes) < _MAX_NOTES:
        text = f"pid {one.pid} (uid {uid}) calls itself an instance and is none: it is left alone"
        out.notes.append((one.slot, text))
    return False


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
        mine = [c for c in living if c.slot.service == service.name]
        holders = [Holder(pids[c.key], c.key, c.lane, frozenset(c.sockets)) for c in mine]
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
    last = {entry.kind: entry.seq for entry in sorted(entries, key=seq_of)}
    down = last.get(Kind.ENGINE_STOPPED.value, -1) > last.get(Kind.ENGINE_STARTED.value, -1)
    return max(entries, key=seq_of).boot == boot and not down


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
