"""The ways in to everup: a socket of its own that somebody removes is made again."""

import asyncio
import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

from everup.adapters import aside, binding, trusted
from everup.adapters.aside import LateError
from everup.keeper import succession
from everup.model.journal import Kind

if TYPE_CHECKING:
    from everup.daemon.runtime import Runtime

_LOOK_EVERY_S = 2.0
_LOOK_S = 5.0
_TELL_EVERY_S = 60.0


class Doors:
    """Of one engine."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._told: dict[str, float] = {}

    async def keep_notify(self) -> None:
        """Until the engine ends. Who has the old socket open is still heard."""
        runtime = self._runtime
        path = runtime.place.notify_socket
        while True:
            await _gone(path, runtime.ears.fileno)
            if runtime.leaving:
                return
            self._tell(f"{path} was removed; it is made again")
            with contextlib.suppress(OSError):
                await self._make_directory()
                sock = await aside.run(_LOOK_S, runtime.ears.make, path)
                old = runtime.ears.take(sock)
                if old is not None:
                    runtime.loop.remove_reader(old.fileno())
                    old.close()
                runtime.keeper.hold(["notify"], [sock.fileno()])
                runtime.loop.add_reader(sock.fileno(), runtime.ears.readable)

    async def keep_lock(self) -> None:
        """Until the engine ends. Without the file at its path, commands take everup for one that
        does not run."""
        runtime = self._runtime
        while not runtime.leaving:
            await asyncio.sleep(_LOOK_EVERY_S)
            held = runtime.held("lock")
            with contextlib.suppress(OSError):
                fresh = -1 if held is None else await aside.run(_LOOK_S, _lock_anew, runtime, held)
                if fresh < 0:
                    continue
                if not runtime.leaving:
                    runtime.keeper.hold(["lock"], [fresh])
                    self._tell(f"{runtime.place.lock} was removed; it is made again")
                os.close(fresh)

    async def serve(self, path: str, work: Coroutine[Any, Any, None]) -> None:
        """Run what serves at the path for as long as that leads to it. Raises what it raises."""
        with contextlib.suppress(OSError):  # it will tell what is wrong
            await self._make_directory()
        held = lambda: self._runtime.held("api")  # noqa: E731
        serving, watching = asyncio.ensure_future(work), asyncio.ensure_future(_gone(path, held))
        try:
            await asyncio.wait({serving, watching}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                return serving.result()
            self._tell(f"{path} was removed; it is made again")
        finally:
            for task in (serving, watching):
                task.cancel()
            await asyncio.gather(serving, watching, return_exceptions=True)
        with contextlib.suppress(OSError):  # whatever is there now is not ours
            await aside.run(_LOOK_S, os.unlink, path)

    async def _make_directory(self) -> None:
        await aside.run(_LOOK_S, trusted.make_directory, self._runtime.place.run_dir, 0o755)

    def _tell(self, text: str) -> None:
        now = time.monotonic()
        if now - self._told.get(text, -_TELL_EVERY_S) >= _TELL_EVERY_S:
            self._told[text] = now
            self._runtime.record(Kind.FACILITY, "everup", detail=text)


def _lock_anew(runtime: "Runtime", held: int) -> int:
    """A descriptor of a lock file in the place of one that is not there any more; -1: it is.
    ``OSError``, where another everup has it, too."""
    place, found = runtime.place, os.fstat(held)
    if found.st_nlink:  # moved, with the folder: while we hold that, nobody starts a second one
        return -1
    with contextlib.suppress(FileNotFoundError):
        there = os.lstat(place.lock)
        if (there.st_dev, there.st_ino) == (found.st_dev, found.st_ino):
            return -1
    if place.weakness() is not None:
        return -1
    fresh = trusted.open_file(place.lock, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fresh, fcntl.LOCK_EX | fcntl.LOCK_NB)
        succession.sign(fresh, runtime.keeper_pid)
    except BaseException:
        os.close(fresh)
        raise
    return fresh


async def _gone(path: str, descriptor: Callable[[], int | None]) -> None:
    """Wait until the path leads no longer to that socket. None: it is not open yet."""
    while True:
        await asyncio.sleep(_LOOK_EVERY_S)
        fd = descriptor()
        if fd is None:
            continue
        with contextlib.suppress(LateError):  # a disk that does not answer: nobody knows
            if not await aside.run(_LOOK_S, _leads_to, path, socket.socket(fileno=os.dup(fd))):
                return


def _leads_to(path: str, sock: socket.socket) -> bool:
    with sock:
        file = binding.file_of(sock)
    return os.path.exists(path) if file is None else file.is_at(path)
