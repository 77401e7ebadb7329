"""Passive results by Nagios' files: its command file and its spool folder."""

import asyncio
import errno
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from everup.integrations.delivery import ChannelError
from everup.integrations.nagios.command import Result, line, spool_file

_MOST_AT_ONCE: Final = 500
_FULL_S: Final = 0.05
_MOST_IN_SPOOL: Final = 5000
"""So many files wait at most: Nagios is not there, and will not want them all."""


class CommandFile:
    """Writes each result as one line, with one ``write`` of at most 4 096 bytes.

    Never waits for a reader: a FIFO that nobody reads is there after Nagios was killed, and after
    it was stopped too.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    @property
    def name(self) -> str:
        return "nagios command file"

    async def send(self, items: Sequence[Result]) -> int:
        fifo = self._open()
        try:
            for count, item in enumerate(items[:_MOST_AT_ONCE]):
                try:
                    os.write(fifo, line(item))
                except BlockingIOError:
                    await asyncio.sleep(_FULL_S)  # Nagios reads, but slower than we write
                    return count
                except OSError as error:
                    raise ChannelError(f"{self._path}: {_words(error)}") from error
                except ValueError as error:
                    raise ChannelError(str(error)) from error
        finally:
            os.close(fifo)
        return min(len(items), _MOST_AT_ONCE)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
        try:
            fifo = os.open(self._path, flags)
        except OSError as error:
            raise ChannelError(f"{self._path}: {_words(error)}") from error
        if not stat.S_ISFIFO(os.fstat(fifo).st_mode):
            os.close(fifo)
            raise ChannelError(f"{self._path} is no FIFO: nothing is written to it")
        return fifo


class Spool:
    """Writes each result as a file of ``check_result_path``, which Nagios reads within seconds."""

    def __init__(self, path: str) -> None:
        self._folder = Path(path)

    @property
    def name(self) -> str:
        return "nagios spool folder"

    async def send(self, items: Sequence[Result]) -> int:
        try:
            if sum(1 for _ in os.scandir(self._folder)) > _MOST_IN_SPOOL:
                text = f"{self._folder}: {_MOST_IN_SPOOL} files wait there; does Nagios run?"
                raise ChannelError(text)
            for item in items[:_MOST_AT_ONCE]:
                self._write(spool_file(item))
        except OSError as error:
            raise ChannelError(f"{self._folder}: {_words(error)}") from error
        return min(len(items), _MOST_AT_ONCE)

    def _write(self, data: bytes) -> None:
        path = self._folder / f"c{secrets.token_hex(3)}"  # Nagios takes names of seven characters
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(path, flags, 0o660), "wb") as file:
            _give(file.fileno(), os.stat(self._folder))
            file.write(data)
        path.with_name(f"{path.name}.ok").touch()


def _give(file: int, folder: os.stat_result) -> None:
    """Have Nagios read it, whoever we are: it cannot where the file is of a group of ours alone."""
    if os.geteuid() == 0:
        os.fchown(file, folder.st_uid, folder.st_gid)
        return
    try:
        os.fchown(file, -1, folder.st_gid)
        os.fchmod(file, 0o660)
    except PermissionError:  # not in that group; there is no secret in it
        os.fchmod(file, 0o644)


def _words(error: OSError) -> str:
    if error.errno == errno.ENXIO:
        return "nobody reads it: Nagios does not run, or takes no external commands"
    if error.errno == errno.ENOENT:
        return "it does not exist: Nagios makes it when it starts (check_external_commands=1)"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "everup's user may not write it: put that user into Nagios' group"
    return (error.strerror or str(error)).lower()
