"""Searches bodies for patterns: no pattern, and no body that is made for it, holds up the loop.

A regular expression with nested repeats can backtrack for years. So a search gets a few
milliseconds of CPU on the loop, where a timer's signal ends it; one that takes longer is done again
by a process of its own, which ends with the probe's time.

    python _search.py < {"pattern": ..., "flags": ..., "text": ..., "limit_s": ...}

prints whether it was found and the time that it took, and imports the standard library alone.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

QUICK_S: Final = 0.01
_PROCESSES: Final = 4
_SLOW: Final = 1000


class _SlowError(Exception):
    """The time on the loop is up."""


class Searcher:
    """Of one prober. ``command`` starts this file as a program."""

    __slots__ = ("_armed", "_before", "_command", "_free", "_slow", "_tasks", "_timed")

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._armed = False
        self._slow: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._free = asyncio.Semaphore(_PROCESSES)
        self._timed = threading.current_thread() is threading.main_thread()
        self._before: Any = None
        if self._timed:
            self._before = signal.signal(signal.SIGVTALRM, self._ring)

    def quick(self, pattern: re.Pattern[str], text: str) -> bool | None:
        """Whether it is found; None: that is not said in no time."""
        if not self._timed or pattern.pattern in self._slow:
            return None
        self._armed = True
        signal.setitimer(signal.ITIMER_VIRTUAL, QUICK_S)
        try:
            return pattern.search(text) is not None
        except _SlowError:
            return None
        finally:
            self._armed = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)

    def aside(
        self, pattern: re.Pattern[str], text: str, limit_s: float, done: Callable[[bool], None]
    ) -> asyncio.Task[None]:
        """A task that calls ``done`` with whether it is found; cancel it at will. It does not call
        at all if it takes longer than ``limit_s``."""
        task = asyncio.get_running_loop().create_task(self._aside(pattern, text, limit_s, done))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _ring(self, _number: int, _frame: object) -> None:
        if self._armed:
            self._armed = False
            raise _SlowError

    async def _aside(
        self, pattern: re.Pattern[str], text: str, limit_s: float, done: Callable[[bool], None]
    ) -> None:
        asked = {"pattern": pattern.pattern, "flags": pattern.flags, "text": text}
        began_s = time.monotonic()
        with contextlib.suppress(OSError, ValueError, TimeoutError):
            async with asyncio.timeout(limit_s), self._free:
                left_s = limit_s - (time.monotonic() - began_s)
                found, took_s = await self._ask(asked | {"limit_s": left_s})
                if took_s > QUICK_S:
                    self._mark(pattern.pattern)
                done(found)
                return
        self._mark(pattern.pattern)

    def _mark(self, pattern: str) -> None:
        if len(self._slow) < _SLOW:
            self._slow.add(pattern)

    async def _ask(self, asked: dict[str, Any]) -> tuple[bool, float]:
        pipe = asyncio.subprocess.PIPE
        null = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=pipe, stderr=null
        )
        try:
            out, _ = await process.communicate(json.dumps(asked).encode())
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            raise
        found, took_s = json.loads(out)
        return bool(found), float(took_s)

    def close(self) -> None:
        """Ends what is under way; nobody is called any more."""
        for task in self._tasks:
            task.cancel()
        if self._timed:
            signal.signal(signal.SIGVTALRM, self._before or signal.SIG_DFL)
            self._timed = False


def main() -> None:
    asked = json.load(sys.stdin)
    with contextlib.suppress(OSError):
        os.nice(10)
    # Also should everup be killed meanwhile: the signal's default is to end us.
    signal.setitimer(signal.ITIMER_REAL, max(0.001, asked["limit_s"]))
    pattern = re.compile(asked["pattern"], asked["flags"])
    began_s = time.process_time()
    found = pattern.search(asked["text"]) is not None
    print(json.dumps([found, time.process_time() - began_s]))


if __name__ == "__main__":
    main()
