"""Whether the other process of everup hangs. Each says every second that it lives.

Silence alone is no proof. The machine may be starved, or the watcher itself was not running: a
tick of its that comes late makes it begin anew. So at the verdict the silent one is looked at: one
that is stopped, or sleeps without having run or wanted to, hangs; one that runs, waits for its
turn on a CPU or for a disk gets more time. One that is dead but for a thread that waits for a disk
is given up: no other sign of its end comes before that disk answers. Used by keeper and engine.
"""

import contextlib
from collections.abc import Callable

from everup.keeper.doomed import is_doomed

BEAT_S = 1.0
"""How often each says that it lives."""
HUNG_S = 5.0
GIVE_UP_S = 2.0
"""From the death of one that cannot end to the verdict that nobody waits for it."""
_TICKS = 10
_PATIENCE = 6
"""So many times longer may one be silent that runs, or would if it got a CPU."""
_LATE_S = 0.5
_IDLE = 0.02
"""Of the time: who has run or waited for a CPU for less than this does nothing. A thread of it that
writes output may wake it now and then."""


class Activity:
    """What the kernel says of a process's first thread."""

    __slots__ = ("active_s", "dies", "state")

    def __init__(self, state: str, active_s: float, dies: bool = False) -> None:
        self.state = state
        """As in /proc/PID/stat; empty: it is gone, or nobody can tell."""
        self.active_s = active_s
        """It has run, or waited for a CPU."""
        self.dies = dies
        """It has ended or been killed, and is still there."""


def activity(pid: int) -> Activity:
    state, active_s = "", 0.0
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open(f"/proc/{pid}/stat", "rb", 0) as file:
            state = file.read(4096).rpartition(b")")[2].split()[0].decode("ascii")
        with open(f"/proc/{pid}/schedstat", "rb", 0) as file:
            ran, waited = file.read(256).split()[:2]
        active_s = (int(ran) + int(waited)) / 1e9
    return Activity(state, active_s, is_doomed(pid))


class Vigil:
    """Watches one process at a time. Moments are monotonic seconds."""

    def __init__(self, hung_s: float = HUNG_S, look: Callable[[int], Activity] = activity) -> None:
        self._tick_s = max(hung_s, 0.1) / _TICKS
        self._look = look
        self.pid = 0
        self._due: float | None = None
        self._quiet = 0
        self._dying = 0
        self._killed = False
        self._before = Activity("", 0.0)
        self.dead = False
        """By the last verdict: it has ended, and will not be seen to before a disk answers."""

    def watch(self, pid: int, now: float) -> None:
        """From its first instant on."""
        self.pid, self._quiet, self._dying = pid, 0, 0
        self._killed = self.dead = False
        self._due = now + self._tick_s

    def stop(self) -> None:
        """There is nobody to be watched."""
        self._due = None

    def killed(self) -> None:
        """It was sent SIGKILL: the one thing left to be seen is that it cannot end."""
        self._killed = True

    def heard(self) -> None:
        """It said something."""
        self._quiet = 0

    def wait_s(self, now: float) -> float | None:
        """Seconds until the next tick; None while nobody is watched."""
        return None if self._due is None else max(0.0, self._due - now)

    def hung(self, now: float) -> str:
        """To be asked when the tick is due: why it is taken to hang, or nothing."""
        if self._due is None or now < self._due:
            return ""
        late = now - self._due > max(self._tick_s, _LATE_S)
        self._due = now + self._tick_s
        if late:  # we did not run ourselves, and it may not have either
            self._quiet = 0
            return ""
        self._quiet += 1
        seen = self._look(self.pid)
        self._dying = self._dying + 1 if seen.dies else 0
        if self._quiet == 1:
            self._before = seen
        if (self._dying - 1) * self._tick_s >= GIVE_UP_S:
            self.dead = True
            return "it is dead and cannot end: a thread of it waits for a disk that does not answer"
        return self._verdict(seen) if self._quiet > _TICKS and not self._killed else ""

    def _verdict(self, now: Activity) -> str:
        silent_s = self._quiet * self._tick_s
        if now.state in ("Z", "X") or now.dies:
            return ""  # it has ended: that is seen another way, or soon
        if now.state == "T":
            return f"it is stopped and has said nothing for {silent_s:.1f} s"
        moved = now.active_s - self._before.active_s > _IDLE * silent_s
        if now.state == "S" and not moved:
            return f"it sleeps and has said nothing for {silent_s:.1f} s"
        if self._quiet > _TICKS * _PATIENCE:
            return f"it has said nothing for {silent_s:.1f} s, though it runs or waits for a disk"
        return ""


HALTED_LOOK_S = 3.0
_HALTED_LOOKS = 3


class Halted:
    """Whether a keeper stays stopped for longer than an engine would let it: then that is stopped
    as well, and the two cannot see to each other. To be asked every ``HALTED_LOOK_S``."""

    def __init__(self, look: Callable[[int], Activity] = activity) -> None:
        self._look = look
        self._looks = 0
        self._looked_at: float | None = None

    def look(self, pid: int, now: float) -> bool:
        """True once it was found stopped several times in a row, by a watcher that ran itself."""
        late = self._looked_at is not None and now - self._looked_at > 2 * HALTED_LOOK_S
        self._looked_at = now
        stopped = self._look(pid).state == "T"
        self._looks = self._looks + 1 if stopped and not late else int(stopped)
        return self._looks > _HALTED_LOOKS
