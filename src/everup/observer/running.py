"""Runs programs for the observer's rooms: bounded in time, output and what they leave behind."""

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Mapping, Sequence
from typing import BinaryIO, Final

from everup.model.display import shown_line

_MOST_SAID: Final = 4096
_ROOM: Final = 1 << 20
_ENVIRONMENT: Final = ("PATH", "LANG", "LC_ALL", "TZ")


class RunError(Exception):
    """A program could not be run, failed, or took too long; the text says which. ``status``: with
    which exit status it ended, None where it did not end by itself."""

    def __init__(self, text: str, status: int | None = None) -> None:
        super().__init__(text)
        self.status = status


async def run(
    command: Sequence[str],
    given: bytes = b"",
    *,
    environment: Mapping[str, str] | None = None,
    timeout_s: float,
) -> None:
    """Run a program, with ``given`` on its standard input. All that it has started ends with it.

    Raises ``RunError`` where it cannot be run, ends with another status than 0, or takes longer.
    """
    # Files in memory, not pipes: nobody has to read or write in time, and what the program leaves
    # behind holds nothing open.
    with _in_memory("given", given) as file, _in_memory("said", b"") as said:
        status = await _run(command, file, said, environment or {}, timeout_s)
        said.seek(0)
        told = said.read(_MOST_SAID).rstrip(b"\0").decode("utf-8", "replace")
    if status is None:
        raise RunError(f"{command[0]} did not end within {timeout_s:g} s")
    if status != 0:
        how = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
        text = f"{command[0]} {how}: {shown_line(told.strip())}".rstrip(": ")
        raise RunError(text, status if status > 0 else None)


async def _run(
    command: Sequence[str], given: BinaryIO, said: BinaryIO, more: Mapping[str, str],
    timeout_s: float,
) -> int | None:  # fmt: skip
    own = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=given,
            stdout=said,
            stderr=said,
            env={**own, **more},
            cwd="/",
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise RunError(f"{command[0]} cannot be run: {error}") from None
    status = None
    try:
        with contextlib.suppress(TimeoutError):
            status = await asyncio.wait_for(process.wait(), timeout_s)
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
    file.flush()
    if content:
        file.truncate()
    file.seek(0)
    return file
