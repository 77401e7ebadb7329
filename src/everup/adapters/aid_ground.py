"""What the processes beside the engine need before they start: a user, a folder, the right to
read the services' output."""

import contextlib
import os
import pwd
import stat
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from everup.adapters import trusted
from everup.adapters.place import Place

ACCOUNT = "everup"
"""The user that the observer becomes, where the machine has it and everup is root."""
_FIRST_UID, _UIDS = 61184, 4336
"""Numbers that systemd's DynamicUser takes, too: no account of people has one."""


def identity(place: Place) -> tuple[int, int] | None:
    """Give user and group of the observer; None: everup's own, which is not root's.

    The account ``everup`` where there is one, else a number that no account has, the same each
    time. Asks for accounts: may block.
    """
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        entry = pwd.getpwnam(ACCOUNT)
        if entry.pw_uid != 0:
            return entry.pw_uid, entry.pw_gid
    first = zlib.crc32(os.fsencode(place.state_dir))
    for step in range(_UIDS):
        uid = _FIRST_UID + (first + step) % _UIDS
        try:
            pwd.getpwuid(uid)
        except KeyError:
            return uid, uid
    raise OSError("no user number is left for the observer")


def groups(uid: int, gid: int) -> list[int]:
    """Give the further groups of that user: those that an operator has put the account into, so
    that it may write another system's files. Never root's."""
    try:
        name = pwd.getpwuid(uid).pw_name
        return [found for found in os.getgrouplist(name, gid) if found not in (0, gid)]
    except (KeyError, OSError):
        return []


def prepare(place: Place, name: str) -> Mapping[str, Any]:
    """Make what the process needs; gives the words that it is started with. Blocks: it writes."""
    who = identity(place)
    words: dict[str, Any] = {"place": asdict(place), "uid": None, "gid": None, "groups": []}
    if who is not None:
        words |= {"uid": who[0], "gid": who[1]}
        if name == "observer":
            words["groups"] = groups(*who)
    if name == "observer":
        trusted.make_directory(place.logs, 0o750)
        _give(place.observer, who, 0o700)
        if who is not None:
            _open_to_group(place.logs, who[1])
    return words


def _give(path: str, who: tuple[int, int] | None, mode: int) -> None:
    """A directory of the observer's own. What is in it is never followed by root."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if who is not None:
            os.fchown(directory, *who)
        os.fchmod(directory, mode)
    finally:
        os.close(directory)


def _open_to_group(path: str, gid: int) -> None:
    """Let a group read a directory of output, the files in it, and those to come."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(directory, -1, gid)
        os.fchmod(directory, 0o2750)  # what is made in it belongs to the group, too
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            with contextlib.suppress(OSError):
                _open_file_to_group(directory, name, gid)
    finally:
        os.close(directory)


def _open_file_to_group(directory: int, name: str, gid: int) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.open(name, flags, dir_fd=directory)
    try:
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode) and found.st_mode & stat.S_IRGRP:
            os.fchown(file, -1, gid)
    finally:
        os.close(file)
