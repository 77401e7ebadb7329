"""Follows the output of all instances, also over the death of observers."""

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from everup.adapters.logs import Follower, LogLine
from everup.observer.events import Wrote
from everup.rooms.locate.output import Line
from everup.rooms.monitor.reader import Reader

_CATCH_UP: Final = 5000
"""Lines of an instance that an observer reads of what was written before it began."""
_MOST_POLLS: Final = 5
"""Of one instance in one round; the rest comes in the next one."""


class Tail:
    """Gives what each instance has written since the last round: nothing twice, and nothing is left
    out but what was written while no observer ran beyond ``_CATCH_UP`` lines. Blocks: it reads."""

    def __init__(self, logs: Path, state: Mapping[str, Any] | None = None) -> None:
        self._logs = logs
        self._followers: dict[str, Follower] = {}
        self._seen_ns: dict[str, int] = {}
        """By instance: the time of the newest line that was read."""
        self._reader = Reader()
        self._since_ns = time.time_ns()
        """What was written before is not read: the first observer ever begins with what comes."""
        self.changed = False
        """There is something that ``state`` has not given yet."""
        if state is not None:
            with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
                seen = {str(name): int(at) for name, at in state["seen_ns"].items()}
                since_ns = int(state["since_ns"])
                self._reader = Reader(state["reader"])
                self._seen_ns, self._since_ns = seen, since_ns

    def state(self) -> dict[str, Any]:
        """Give all that the next one needs, as plain JSON values."""
        self.changed = False
        return {
            "since_ns": max(self._since_ns, *self._seen_ns.values(), 0),
            "seen_ns": dict(self._seen_ns),
            "reader": self._reader.state(),
        }

    def poll(self, names: Sequence[str]) -> dict[str, Wrote]:
        """Read what is new of these instances; others are let go."""
        for name in [known for known in self._followers if known not in names]:
            self._followers.pop(name).close()
            self._seen_ns.pop(name, None)
        out = {}
        for name in names:
            with contextlib.suppress(OSError):  # what cannot be read now is read later
                lines = self._lines(name)
                if lines:
                    self.changed = True
                    wrote = self._reader.take(name.rpartition(".")[0], map(_line, lines))
                    if wrote.lines:
                        out[name] = wrote
        return out

    def close(self) -> None:
        """Close the files."""
        for follower in self._followers.values():
            follower.close()
        self._followers.clear()

    def _lines(self, name: str) -> list[LogLine]:
        follower = self._followers.get(name)
        lines: list[LogLine] = []
        if follower is None:
            follower = Follower(self._logs, [name], last=_CATCH_UP)
            self._followers[name] = follower
            lines = follower.history
        for _ in range(_MOST_POLLS):
            more = follower.poll()
            lines = [*lines, *more]
            if not more:
                break
        seen = self._seen_ns.get(name, self._since_ns)
        fresh = [line for line in lines if line.time_ns > seen and line.stream != "everup"]
        if lines:
            self._seen_ns[name] = max(seen, lines[-1].time_ns)
        return fresh


def _line(line: LogLine) -> Line:
    return Line(line.time_ns / 1e9, line.text.decode("utf-8", "replace"))
