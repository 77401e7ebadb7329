"""Tell whether a process is really one that everup started.

Never by what it says: anybody can start a process with everup's names in its environment, or a
listener on a free port. What nobody can forge is a pid with its start time, the user that it runs
as, a place in a control group of everup's, and a pipe or a socket that everup has made.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from everup.adapters import aside, cgroups, launch
from everup.model.spec import Spec

ROOT = 0
_LOOK_S = 1.0


def real_uid(pid: int) -> int | None:
    """The user that a process runs as (not the one whose rights a setuid program lends it); None
    when it is gone, or cannot be asked."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{pid}/status").read_bytes().splitlines():
            if line.startswith(b"Uid:"):
                return int(line.split()[1])
    return None


def uid_fits(uid: int | None, expected: int | None) -> bool:
    """Whether a process that was started as ``expected`` can run as ``uid`` by now: root may
    become anybody, and a setuid program root. ``expected`` None: nobody knows."""
    return uid is not None and (expected is None or uid == expected or ROOT in (uid, expected))


def is_everups(uid: int) -> bool:
    """Whether a file, pipe or socket of this owner is everup's own doing."""
    return uid in (ROOT, os.geteuid())


def users(spec: Spec | None) -> Callable[[str], int | None]:
    """By the name of a service, the user that its processes are started as; None where that is not
    known: the config cannot be read, has no such service, or names nobody on this machine."""
    known: dict[str, int | None] = {}
    late = False

    def user(name: str) -> int | None:
        nonlocal late
        if name not in known:
            service = None if spec is None else spec.service.get(name)
            known[name] = None
            if service is not None and not late:
                try:
                    who = aside.call(_LOOK_S, launch.identity, service)
                    known[name] = os.getuid() if who is None else who.uid
                except (launch.LaunchError, OSError) as error:
                    late = isinstance(error, aside.LateError)  # one wait is enough
        return known[name]

    return user


def in_group(pid: int, home: str, names: Collection[str] = ()) -> bool:
    """Whether the process is in a control group below ``home`` that everup has made. ``names``:
    one of these; empty: any."""
    group = cgroups.group_path(pid, home)
    if group is None or (names and os.path.basename(group) not in names):
        return False
    with contextlib.suppress(OSError):
        # Who has a subtree of his own may call a group in it as he likes; but it is his.
        return is_everups(os.stat(group).st_uid)
    return False


def links(pid: int, kind: str) -> list[tuple[int, int]]:
    """(descriptor, inode) of the process' descriptors of this kind (``pipe:`` or ``socket:``), in
    their order. Raises ``OSError``."""
    out = []
    for number in sorted(map(int, os.listdir(f"/proc/{pid}/fd"))):
        with contextlib.suppress(FileNotFoundError, ValueError):
            link = os.readlink(f"/proc/{pid}/fd/{number}")
            if link.startswith(kind + "["):
                out.append((number, int(link[len(kind) + 1 : -1])))
    return out


def holds(pid: int, inodes: Mapping[str, Collection[int]]) -> bool:
    """Whether the process has one of these open; by kind (``pipe:``, ``socket:``)."""
    with contextlib.suppress(OSError):
        return any(inode in wanted for kind, wanted in inodes.items() if wanted
                   for _, inode in links(pid, kind))  # fmt: skip
    return False


def has_our_output(pid: int) -> bool:
    """Whether its stdout or stderr is a pipe as everup gives it: made by everup, and open both
    ways, which nobody else does."""
    return any(is_our_output(pid, number) for number in (1, 2))


def is_our_output(pid: int, number: int) -> bool:
    """The same of one descriptor."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        facts = os.stat(f"/proc/{pid}/fd/{number}")
        if stat.S_ISFIFO(facts.st_mode) and is_everups(facts.st_uid):
            lines = Path(f"/proc/{pid}/fdinfo/{number}").read_text().splitlines()
            flags = next(line for line in lines if line.startswith("flags:"))
            return int(flags.split()[1], 8) & os.O_ACCMODE == os.O_RDWR
    return False


def strange(
    pid: int,
    *,
    uid: int | None,
    group: str | None,
    home: str,
    inodes: Mapping[str, Collection[int]],
) -> str:
    """Why a process whose pid and start time agree with the journal is not the one that it tells
    of; "" if it is. ``uid``, ``group`` and ``inodes`` as journaled: what is None or empty is not
    known, and not asked for."""
    found = real_uid(pid)
    if not uid_fits(found, uid):
        return f"it runs as uid {found}, not {uid}"
    if group is None or not os.path.exists(os.path.join(group, "cgroup.procs")):
        return ""
    if in_group(pid, home, [os.path.basename(group)]) or holds(pid, inodes):
        return ""
    return f"it is not in its control group {group}, and has neither its pipes nor its sockets"


def is_ours(pid: int, expected: int | None, home: str) -> bool:
    """Whether a process that carries everup's marks was indeed started by everup, or by what that
    started: it may be ended, and asked for what it holds. ``expected``: the user of its service,
    None if unknown."""
    uid = real_uid(pid)
    if uid is None:
        return False
    return uid in (os.getuid(), expected) or in_group(pid, home) or has_our_output(pid)
