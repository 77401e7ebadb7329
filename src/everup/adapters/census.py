"""Which processes of this machine everup started: told by the environment that it gave them."""

import os
from dataclasses import dataclass

from everup.keeper.spawn import start_ticks


@dataclass(frozen=True, slots=True)
class Found:
    """A process that carries the mark of an instance: its main process, or a descendant."""

    pid: int
    start: int
    """Ticks since boot; with the pid its identity."""
    slot: str
    run: int
    leads: bool
    """It leads its session, as what the keeper starts does; descendants seldom do."""


def census(state_dir: str) -> list[Found]:
    """Everyone whose ``EVERUP_STATE`` is ``state_dir``, in the order of their start.

    One pass over /proc. Processes that vanish meanwhile or may not be read are left out, and so
    are those that have written over their environment (as some do to change their title).
    """
    found = []
    mark = b"EVERUP_STATE=" + os.fsencode(state_dir)
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb", 0) as file:
                    data = file.readall()
                if mark not in data:
                    continue
                one = _found(int(name), data, mark)
            except OSError:
                continue
            if one is not None:
                found.append(one)
    return sorted(found, key=lambda one: (one.start, one.pid))


def _found(pid: int, data: bytes, mark: bytes) -> Found | None:
    lines = data.split(b"\0")
    known = {
        name: value
        for name, _, value in (line.partition(b"=") for line in lines)
        if name.startswith(b"EVERUP_")
    }
    if mark not in lines:
        return None
    slot, run = known.get(b"EVERUP_INSTANCE", b""), known.get(b"EVERUP_RUN", b"")
    start = start_ticks(pid)
    if not slot or not run.isdigit() or not start:
        return None
    return Found(pid, start, os.fsdecode(slot), int(run), os.getsid(pid) == pid)
