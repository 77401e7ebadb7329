"""What a process of a singleton is started with beyond what any other gets.

Its keeper kills it when its time is over. Should keeper and engine be killed at one moment, nobody
would; so it gets a fuse: the reading end of a pipe whose writing end keeper and engine hold alone.
When the last of them is dead, the kernel itself sends SIGKILL to the process group.
"""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from everup.keeper.spawn import start_ticks
from everup.model.action import Bound, Spawn
from everup.model.instance import Slot
from everup.model.record import Instance

FUSE: Final = "fuse:"
"""Names of the writing ends begin so, ``fuse:SLOT:RUN``, where the keeper holds them."""
_FIRST: Final = 3
_AFTER_S: Final = 0.1
"""So long the keeper has to do it, and to tell."""
_TIMERS: Final[WeakKeyDictionary[Any, dict[Slot, asyncio.TimerHandle]]] = WeakKeyDictionary()


def fenced(request: Mapping[str, Any], action: Spawn) -> dict[str, Any]:
    """Give the request of a spawn with the fencing token, and the time at which the keeper kills
    what it has started; as it was where the service is no singleton."""
    if not action.fence:
        return dict(request)
    token = {"EVERUP_FENCE": str(action.fence)}
    return {**request, "env": request["env"] | token, "until": action.until}


@contextlib.contextmanager
def fuse(
    request: MutableMapping[str, Any],
    held: Mapping[int, str],
    given: MutableMapping[int, int],
    hold: MutableMapping[str, int],
    of: str,
) -> Iterator[None]:
    """Have a process of a singleton get a fuse, behind its sockets; ``of`` is ``SLOT:RUN``. Raises
    ``OSError`` where no pipe is to be had."""
    if not request.get("until"):
        yield
        return
    read, write = os.pipe2(os.O_CLOEXEC)
    request["fuse"] = number = max(held, default=_FIRST - 1) + 1
    given[number] = read  # closed once it was sent
    hold[FUSE + of] = write
    try:
        yield
    finally:
        os.close(write)


def keep(held: MutableMapping[str, int], children: Sequence[Mapping[str, Any]]) -> None:
    """Leave the fuses of living processes to the client, which has its own of each: what is left in
    ``held`` is of nobody any more."""
    living = {child["id"].partition(":")[2] for child in children if "exit" not in child}
    for name in [n for n in held if n.startswith(FUSE) and n.removeprefix(FUSE) in living]:
        os.close(held.pop(name))


def bound(action: Bound, host: Any) -> None:
    """Tell the keeper another time, and keep it in mind."""
    host.keeper.bound(f"main:{action.slot}:{action.run}", action.until)
    arm(host, action.slot, action.run, action.until)


def arm(host: Any, slot: Slot, run: int, until: float) -> None:
    """Kill a process ourselves a little after the keeper should have: that may be stopped."""
    timers = _TIMERS.setdefault(host, {})
    if (before := timers.pop(slot, None)) is not None:
        before.cancel()
    wait_s = max(0.0, until - time.clock_gettime(time.CLOCK_BOOTTIME)) + _AFTER_S
    timers[slot] = host.loop.call_later(wait_s, _cut, host, slot, run)


def _cut(host: Any, slot: Slot, run: int) -> None:
    _TIMERS.get(host, {}).pop(slot, None)
    instance = host.engine.process(slot, run)
    if instance is not None and instance.pid:
        kill(instance)


def kill(instance: Instance) -> None:
    """Send SIGKILL to a main process, its group, and all of its control group; nobody who has its
    number by now gets it."""
    facts = instance.facts
    if start_ticks(instance.pid) == facts.get("start"):
        with contextlib.suppress(OSError):
            os.kill(instance.pid, signal.SIGKILL)
        if facts.get("leader") == instance.pid:
            with contextlib.suppress(OSError):
                os.killpg(instance.pid, signal.SIGKILL)
    if cgroup := facts.get("cgroup"):
        with contextlib.suppress(OSError, ValueError):
            for pid in Path(cgroup, "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    os.kill(int(pid), signal.SIGKILL)
