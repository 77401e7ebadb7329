"""Does the checks, each by itself, and keeps how they stand for commands to read."""

import asyncio
import os
import time
import zlib
from typing import Any, Final

from everup.observer import kept
from everup.rooms.check.config import Check
from everup.rooms.check.facts import Checked

_MOST_AT_ONCE: Final = 20
_SOON_S: Final = 2.0
"""After a failure it is checked again so soon, if that is before its turn."""
_SAVE_S: Final = 2.0


def prepare(spec: Any) -> None:
    """Import what checks need: later it may not be possible."""
    if getattr(spec, "check", {}):
        import everup.rooms.check.ways  # noqa: F401


async def run(host: Any) -> None:
    """Do all checks of the config until cancelled."""
    checks: dict[str, Check] = getattr(host.spec, "check", {})
    if not checks:
        return
    turns = asyncio.Semaphore(_MOST_AT_ONCE)
    async with asyncio.TaskGroup() as group:
        group.create_task(_save(host))
        for one in checks.values():
            if one.heartbeat is None:
                group.create_task(_again_and_again(one, turns, host))


async def _again_and_again(one: Check, turns: asyncio.Semaphore, host: Any) -> None:
    # Not all at one moment, and not much later than an operator looks.
    await asyncio.sleep(zlib.crc32(one.name.encode()) / (1 << 32) * min(one.interval, 1.0))
    while True:
        began = time.monotonic()
        async with turns:
            result = await look(one)
        host.dispatch(result)
        wait_s = one.interval if result.ok is not False else min(one.interval, _SOON_S)
        await asyncio.sleep(max(0.0, began + wait_s - time.monotonic()))


async def look(one: Check) -> Checked:
    """Do one check."""
    from everup.rooms.check.ways import UnknownError, WrongError, check

    began = time.monotonic()
    ok: bool | None = False
    try:
        async with asyncio.timeout(one.timeout):
            text = await check(one)
            ok = True
    except TimeoutError:
        text = f"no answer within {one.timeout:g} s"
    except UnknownError as error:
        ok, text = None, str(error)
    except WrongError as error:
        text = str(error)
    except OSError as error:
        # In the kernel's words where it has any; names that cannot be resolved have their own.
        number = error.errno or 0
        text = os.strerror(number) if number > 0 else error.strerror or str(error)
    except ValueError as error:
        text = str(error)
    return Checked(one.name, ok, text[:500], time.time(), round(time.monotonic() - began, 4))


async def _save(host: Any) -> None:
    path = host.folder("check") / "state.json"
    while True:
        kept.write(path, host.kernel.rooms["check"].view())
        await asyncio.sleep(_SAVE_S)


SOURCES: Final = (run,)
PERFORMERS: Final[dict[type, Any]] = {}
PREPARE: Final = prepare
