"""What the journal remembers of earlier times: read by a process of its own, at the lowest
priority, so that a long journal holds nobody up.

    python -m everup.daemon.memory JOURNAL STATE_DIR [SECONDS SERVICE...]

brings the history up to date, so that what is counted outlives the entries that are about to be
deleted as too old, and prints when the services were up in the last seconds.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from everup.adapters import python
from everup.adapters.place import Place
from everup.model.event import Remembered

_LIMIT_S = 300.0
_KEEP_EVERY_S = 86400.0


def is_due(place: Place, retention_s: float) -> bool:
    """Whether it is time to bring the history up to date: long before an entry is deleted."""
    from everup.adapters.history import NAME  # not while an engine starts: that must be quick

    try:
        age_s = time.time() - os.stat(os.path.join(place.state_dir, NAME)).st_mtime
    except OSError:
        return True
    return not 0 <= age_s < min(_KEEP_EVERY_S, retention_s / 4)


async def keep(place: Place) -> None:
    """Bring the history up to date. Raises ``OSError`` if that does not work."""
    await _ask(place)


async def remember(place: Place, services: Sequence[str], seconds: float) -> Remembered:
    """When the services were up. Raises ``OSError`` if nobody can tell."""
    now, wall = time.monotonic(), time.time()
    answer = json.loads(await _ask(place, str(seconds), *services))
    by = now - wall
    return Remembered(
        tuple(
            (name, tuple((since + by, until + by, up) for since, until, up in spans))
            for name, spans in answer.items()
        )
    )


async def _ask(place: Place, *words: str) -> bytes:
    module = "everup.daemon.memory"
    argv = python.command("-m", module, place.journal, place.state_dir, *words)
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_LIMIT_S):
            out, words_of_it = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        raise
    if process.returncode:
        lines = words_of_it.decode(errors="replace").strip().splitlines() or ["no word"]
        raise OSError(f"the history of the journal: status {process.returncode}: {lines[-1]}")
    return out


def main(journal: str, state_dir: str, *words: str) -> None:
    os.nice(19)
    from everup.adapters.history import advance
    from everup.adapters.journal import boot_id
    from everup.reliability.account import timeline

    try:
        history = advance(Path(journal), Path(state_dir), save=True)
    except FileNotFoundError:
        print("{}")
        return
    if not words:
        return
    end = history.moment(time.time(), time.monotonic(), boot_id())
    history.close(end, running=True)
    start = end - int(float(words[0]) * 1e6)
    states = {"up": True, "degraded": True, "down": False}
    found = {
        name: [
            (since, until, states[state])
            for since, until, state in timeline(history, name, start, end)
            if state in states
        ]
        for name in words[1:]
        if name in history.services
    }
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
