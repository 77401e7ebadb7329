"""Messages on the standard input of a program."""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Sequence
from typing import BinaryIO, Final

from everup.model.display import shown_line
from everup.rooms.notify.actions import Message
from everup.rooms.notify.ways import LaterError

_TIMEOUT_S: Final = 30.0
_MOST_SAID: Final = 4096
_ROOM: Final = 1 << 20
_ENVIRONMENT: Final = ("PATH", "LANG", "LC_ALL", "TZ")


async def send(command: Sequence[str], message: Message) -> None:
    """Run a program with a message. All that it has started ends with it.

    Raises ``LaterError`` where it cannot be run, ends with another status than 0, or takes longer
    than 30 s.
    """
    body = json.dumps({"title": message.title, **message.data}, ensure_ascii=False).encode()
    # Files in memory, not pipes: nobody has to read or write in time, and what the program leaves
    # behind holds nothing open.
    with _in_memory("message", body) as given, _in_memory("said", b"") as said:
        status = await _run(command, given, said)
        said.seek(0)
        words = shown_line(said.read(_MOST_SAID).rstrip(b"\0").decode("utf-8", "replace").strip())
    if status is None:
        raise LaterError(f"{command[0]} did not end within {_TIMEOUT_S:g} s")
    if status != 0:
        how = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
        raise LaterError(f"{command[0]} {how}: {words}".rstrip(": "))


async def _run(command: Sequence[str], given: BinaryIO, said: BinaryIO) -> int | None:
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=given,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=said,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise LaterError(f"{command[0]} cannot be run: {error}") from None
    status = None
    try:
        with contextlib.suppress(TimeoutError):
            status = await asyncio.wait_for(process.wait(), _TIMEOUT_S)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    if status is None:
        await process.wait()
    return status


def _in_memory(name: str, content: bytes) -> BinaryIO:
    """A file that cannot grow: who writes more than fits is told that it may not."""
    file = os.fdopen(os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING), "w+b")
    file.truncate(max(len(content), _ROOM))
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    file.write(content)
    if content:
        file.truncate()
    file.seek(0)
    return file
