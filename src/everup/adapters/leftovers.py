"""What an earlier everup left behind: processes that nobody watches any more.

They hold the ports and files of what is about to be started.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from everup.adapters import cgroups, proof
from everup.adapters.census import Found, census
from everup.adapters.cgroups import Cgroups
from everup.adapters.estate import lives, role
from everup.model.instance import Slot

_LEFTOVERS_S = 2.0


def end_leftovers(
    state_dir: str,
    groups: Cgroups,
    children: Iterable[Mapping[str, Any]],
    user: Callable[[str], int | None] = lambda _service: None,
) -> dict[str, list[int]]:
    """Kill what an earlier everup left behind and nobody watches: what belongs to no child, and
    the hooks and probes of the children; by group or slot, the pids. ``children`` as an estate or
    the keeper's hello has them; ``user`` says as whom a service runs: who only calls himself a
    process of everup's is not touched. Blocks, as a rule for a few milliseconds, at most 4 s."""
    spared: dict[tuple[str, int], str | None] = {}
    for child in children:
        if child["meta"]["role"] == "main" and "exit" not in child:
            spared[child["meta"]["slot"], int(child["meta"]["run"])] = child.get("cgroup")
    ended = groups.end_leftovers([group for group in spared.values() if group is not None])
    home, until = cgroups.home_name(state_dir), time.monotonic() + _LEFTOVERS_S
    while True:
        left = [
            one
            for one in census(state_dir)
            if not _is_spared(one, spared, home) and proof.is_ours(one.pid, _user(one, user), home)
        ]
        for one in left:
            pids = ended.setdefault(one.slot, [])
            if one.pid not in pids:
                pids.append(one.pid)
            _kill(one)
        if not left or time.monotonic() > until:
            return ended
        time.sleep(0.01)


def _user(one: Found, user: Callable[[str], int | None]) -> int | None:
    with contextlib.suppress(ValueError):
        return user(Slot.parse(one.slot).service)
    return None


def _is_spared(one: Found, spared: Mapping[tuple[str, int], str | None], home: str) -> bool:
    if one.pid in (os.getpid(), os.getppid()):
        return True  # everup itself, started from within an instance
    if (one.slot, one.run) not in spared or role(one.pid):
        return False
    group = spared[one.slot, one.run]
    if group is None:
        return True
    own = cgroups.group_of(one.pid, home)
    return own is not None and os.path.basename(own) == os.path.basename(group)


def _kill(one: Found) -> None:
    """By pidfd: its number may be somebody else's by now."""
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(one.pid)
        try:
            if lives(one.pid, one.start):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
