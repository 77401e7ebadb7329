"""Which processes should live, by the journal and by the environment of those that do.

Only claims: whether a process is what it is claimed to be is for ``everup.adapters.proof``.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from everup.adapters.census import Found
from everup.model.instance import Slot
from everup.model.journal import Entry, Kind

ENDS = (Kind.EXITED.value, Kind.LOST.value)


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
    uid: int | None = None
    """That it was started as; None: the journal is older than that."""
    sockets: tuple[int, ...] = ()
    """Inodes of its listening sockets; empty: unknown, or none."""

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


def claims(entries: Iterable[Entry], boot: str) -> list[Claim]:
    """The main processes that should live by these journal entries, in the order of their start.
    Of entries of another boot of the machine nothing follows; nor where ``boot`` is unknown."""
    out: dict[tuple[str, int], Claim] = {}
    for entry in sorted(entries, key=seq_of):
        if not boot or entry.boot != boot:
            continue
        with contextlib.suppress(KeyError, TypeError, ValueError):
            key = (entry.subject, int(entry.payload["run"]))
            if entry.kind == Kind.SPAWNED.value:
                out.pop(key, None)
                out[key] = _claim(entry.subject, entry.payload)
            elif entry.kind == Kind.MAIN.value and key in out:
                pid, start = int(entry.payload["pid"]), int(entry.payload["start"])
                uid = _uid(entry.payload)
                uid = out[key].uid if uid is None else uid
                out[key] = replace(out[key], pid=pid, start=start, uid=uid)
            elif entry.kind in ENDS:
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
        _uid(payload),
        tuple(int(inode) for inode in payload.get("sockets") or ()),
    )


def _uid(payload: Mapping[str, Any]) -> int | None:
    return None if payload.get("uid") is None else int(payload["uid"])


def newcomers(
    found: Iterable[Found],
    entries: Iterable[Entry],
    boot: str,
    role_of: Callable[[int], str],
    proven: Callable[[Found], bool] = lambda _one: True,
) -> list[Claim]:
    """Main processes that everup spawned a moment before it died, unknown to the journal.

    ``found``: those that live, in the order of their start; ``role_of`` a pid: what runs
    beside an instance says so in its environment. ``proven``: asked last of all, whether it is
    more than a process that calls itself so.
    """
    by: dict[str, list[Entry]] = {}
    for entry in sorted(entries, key=seq_of):
        if boot and entry.boot == boot:
            by.setdefault(entry.subject, []).append(entry)
    out: dict[tuple[Slot, int], Claim] = {}
    for one in found:
        with contextlib.suppress(ValueError):
            slot = Slot.parse(one.slot)
            known = by.get(one.slot, [])
            if not one.leads or (slot, one.run) in out or not _may_be_main(one, known):
                continue
            if role_of(one.pid) or not proven(one):
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


def seq_of(entry: Entry) -> int:
    return entry.seq


def _is(entry: Entry, kind: Kind, run: int) -> bool:
    return entry.kind == kind.value and entry.payload.get("run") == run


def _may_be_main(one: Found, known: Sequence[Entry]) -> bool:
    """By the entries of its slot, in order. If the journal tells of its run by another pid, or has
    seen that end, it is something else: what is left of it."""
    run, hook = one.run, -1
    if any(entry.kind in ENDS and entry.payload.get("run") == run for entry in known):
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
