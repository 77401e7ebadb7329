"""Take descriptors back out of living instances: their listening sockets and output pipes.

For an ``everup up`` that finds instances whose keeper and engine are both dead. The sockets come by
pidfd_getfd (Linux 5.6), the pipes through /proc. Whatever is not to be had is told, never fatal:
the instance goes on with its own. And nothing is had that everup has not made: whoever names
himself as an instance could slip us a listener of his own.
"""

import ctypes
import errno
import os
import socket
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from everup.adapters import proof, steering
from everup.adapters.binding import bound_as, identity
from everup.adapters.sockets import MIXED, place_of, socket_name
from everup.config import parse_address
from everup.model.instance import Slot
from everup.model.spec import Listener, Service

_PIDFD_GETFD = 438
_libc = ctypes.CDLL(None, use_errno=True)

Key = tuple[Slot, int]
"""A process of a service: its slot and run."""
Pids = Callable[[], Iterable[int]]
"""The processes of an instance, the likeliest first; asked for as far as needed."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Processes that may have what is looked for."""

    pids: Pids
    key: Key | None = None
    """The instance that they are; None for what is left of one."""
    lane: int = 0
    """As the journal has it; 0: unknown."""
    sockets: frozenset[int] = frozenset()
    """Inodes of its listening sockets; empty: unknown, then any that everup can have made."""


@dataclass(slots=True)
class Taken:
    """What was had."""

    held: dict[str, int] = field(default_factory=dict)
    lanes: dict[Key, int] = field(default_factory=dict)
    notes: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Found:
    """One listening socket."""

    sock: socket.socket
    owners: list[Key] = field(default_factory=list)
    index: int = -1


@dataclass(slots=True)
class _Search:
    """Through the processes of one service."""

    service: Service
    wanted: dict[tuple[object, ...], Listener]
    found: dict[str, dict[int, _Found]]
    """By listener, by inode."""
    notes: list[tuple[str, str]] = field(default_factory=list)

    def add(self, sock: socket.socket, *, kept: bool = False) -> bool:
        """Keep it if it is one of the service's; else it is closed. ``kept``: by systemd, so that
        nobody need prove that everup made it."""
        try:
            made = kept or proof.is_everups(os.fstat(sock.fileno()).st_uid)
            listener = self.wanted.get(identity(sock) or ()) if made else None
        except OSError:
            listener = None
        if listener is None:
            sock.close()
            return False
        same = self.found[listener.name].setdefault(os.fstat(sock.fileno()).st_ino, _Found(sock))
        if same.sock is not sock:
            sock.close()
        return True

    def look(self, holder: Holder) -> None:
        """Take what the processes of one holder have."""
        missing, trouble = set(self.found), 0
        for pid in holder.pids():
            try:
                trouble = self._look_at(pid, holder, missing) or trouble
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ESRCH):
                    trouble = error.errno or errno.EPERM
            if not missing:
                return
        if trouble and holder.key is not None:
            for listener in self.service.listen:
                if listener.name in missing:
                    self.notes.append((str(holder.key[0]), _not_had(listener.address, trouble)))

    def _look_at(self, pid: int, holder: Holder, missing: set[str]) -> int:
        """Takes off ``missing`` what this process has; returns an errno where it was refused."""
        handle, refused, key = os.pidfd_open(pid), 0, holder.key
        try:
            for number, inode in proof.links(pid, "socket:"):
                if not missing:
                    break
                if holder.sockets and inode not in holder.sockets:
                    continue  # its own, though it may listen on the same port
                if not any(inode in known for known in self.found.values()) and not refused:
                    try:
                        sock = _as_socket(_getfd(handle, number))
                    except OSError as error:
                        refused = 0 if error.errno == errno.EBADF else error.errno or errno.EPERM
                        continue
                    if sock is None or not self.add(sock):
                        continue
                for name, known in self.found.items():
                    if inode in known:
                        missing.discard(name)
                        if key is not None and key not in known[inode].owners:
                            known[inode].owners.append(key)
        finally:
            os.close(handle)
        return refused


def _search(service: Service) -> _Search:
    wanted = {bound_as(parse_address(x.address)): x for x in service.listen}
    return _Search(service, wanted, {x.name: {} for x in service.listen})


def listens(pid: int, service: Service) -> bool:
    """Whether a process has a listening socket that everup made for the service."""
    search = _search(service)
    search.look(Holder(lambda: (pid,)))
    found = [one.sock for group in search.found.values() for one in group.values()]
    for sock in found:
        sock.close()
    return bool(found)


def take_sockets(
    service: Service, holders: Sequence[Holder], stored: Mapping[str, int] | None = None
) -> Taken:
    """The listening sockets of a service, out of its processes. ``stored``: those that systemd
    kept, by name; they are taken over or closed.

    Lanes are counted anew, by the places that the sockets have in their groups by now: where one
    that nobody had any more has been closed, the kernel has moved others. Where their order cannot
    be told, their names say so (see ``SocketBank``).
    """
    search = _search(service)
    kept: dict[str, int] = {}
    """Index by name in the store, for the inodes that came from there."""
    for name, fd in (stored or {}).items():
        sock = _as_socket(fd)
        if sock is not None and search.add(sock, kept=True):
            kept[name] = os.fstat(sock.fileno()).st_ino if sock.fileno() >= 0 else -1
    for holder in holders:
        search.look(holder)
    out = Taken(notes=search.notes)
    mixed = not _number(service, search.found, kept)
    if mixed:
        _renumber(search.found, holders)
        out.notes.append((service.name, MIXED))
    for listener, group in search.found.items():
        for one in group.values():
            name = socket_name(service.name, listener, one.index, mixed=mixed)
            if name not in out.held:  # a Unix path can have been bound twice
                out.held[name] = one.sock.detach()
            if not _is_unix(service, listener):
                out.lanes.update((key, one.index + 1) for key in one.owners)
    _lanes_of_the_rest(out, holders)
    return out


def _number(
    service: Service, found: Mapping[str, Mapping[int, _Found]], kept: Mapping[str, int]
) -> bool:
    """Give each socket its index; False where that can't be done so that lanes are the same for
    all listeners."""
    lanes: dict[Key, int] = {}
    for listener, group in found.items():
        if _is_unix(service, listener) or not group:
            for one in group.values():
                one.index = 0
            continue
        places = steering.positions([one.sock for one in group.values()])
        if places is None:
            by_inode = {inode: place_of(name) for name, inode in kept.items()
                        if name.startswith(f"sock:{service.name}:{listener}:")
                        and place_of(name) >= 0}  # fmt: skip
            places = [by_inode.get(inode, -1) for inode in group]
            if sorted(places) != list(range(len(group))):
                return False
        for one, place in zip(group.values(), places, strict=True):
            one.index = place
            if any(lanes.setdefault(key, place) != place for key in one.owners):
                return False
    return True


def _renumber(found: Mapping[str, Mapping[int, _Found]], holders: Sequence[Holder]) -> None:
    """Numbers in no order: the same for all sockets of one process, as far as that goes."""
    lanes: dict[Key, int] = {}
    for group in found.values():
        free = list(range(len(group) + len(holders)))
        for one in sorted(group.values(), key=lambda one: not one.owners):
            known = [lanes[key] for key in one.owners if lanes.get(key) in free]
            one.index = known[0] if known else free[0]
            free.remove(one.index)
            for key in one.owners:
                lanes.setdefault(key, one.index)


def _lanes_of_the_rest(out: Taken, holders: Sequence[Holder]) -> None:
    """Instances whose socket is not had keep their lane, if nobody else has it by now."""
    taken = set(out.lanes.values())
    taken |= {int(name.rpartition(":")[2].lstrip("x")) + 1 for name in out.held}
    for holder in holders:
        if holder.key is not None and holder.key not in out.lanes:
            free = holder.lane > 0 and holder.lane not in taken
            lane = holder.lane if free else max(taken, default=0) + 1
            taken.add(lane)
            out.lanes[holder.key] = lane


def take_pipes(
    slot: Slot, run: int, inodes: Sequence[int], pids: Pids, stored: Mapping[str, int]
) -> Taken:
    """The read ends of the output of one instance. ``inodes``: of its pipes for stdout and stderr;
    0: unknown, then what the first process has there. What systemd kept goes first."""
    out = Taken()
    for number, stream in enumerate(("out", "err")):
        name = f"pipe:{slot}:{run}:{stream}"
        if name in stored:
            out.held[name] = stored[name]
            continue
        inode = inodes[number] if number < len(inodes) else 0
        try:
            fd = _open_pipe(pids, inode, number + 1)
        except OSError as error:
            why = os.strerror(error.errno or 0)
            out.notes.append((str(slot), f"its std{stream} can no longer be read: {why}"))
            continue
        if fd >= 0:
            out.held[name] = fd
    if len(out.held) == 1:  # the other was closed by the service: an end that reads as such
        missing = (
            {f"pipe:{slot}:{run}:{stream}" for stream in ("out", "err")} - set(out.held)
        ).pop()
        out.held[missing], write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.close(write)
    return out


def _open_pipe(pids: Pids, inode: int, number: int) -> int:
    """A new read end, non-blocking; -1 when nobody has the pipe any more. Raises ``OSError`` when
    somebody may have it and can't be asked."""
    trouble: OSError | None = None
    for pid in pids():
        try:
            for own, link in proof.links(pid, "pipe:"):
                if (link == inode) if inode else (own == number and proof.is_our_output(pid, own)):
                    return _reopen(pid, own, link)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ESRCH):
                trouble = error
        if not inode:
            break
    if trouble is not None:
        raise trouble
    return -1


def _reopen(pid: int, number: int, inode: int) -> int:
    """Never the description that the service has itself: its flags are the service's. And nothing
    is opened before it is sure to be that pipe: the process may have put another file there, one
    for which it would need our rights. Raises ``OSError``."""
    try:
        copy = os.open(f"/proc/{pid}/fd/{number}", os.O_PATH | os.O_CLOEXEC)
    except OSError:
        handle = os.pidfd_open(pid)
        try:
            copy = _getfd(handle, number)
        finally:
            os.close(handle)
    try:
        facts = os.fstat(copy)
        if not stat.S_ISFIFO(facts.st_mode) or facts.st_ino != inode:
            raise FileNotFoundError(errno.ENOENT, "it has another file there by now")
        return os.open(f"/proc/self/fd/{copy}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(copy)


def _getfd(handle: int, number: int) -> int:
    """A copy of another process' descriptor, not inherited. Raises ``OSError``."""
    fd = int(_libc.syscall(_PIDFD_GETFD, handle, number, 0))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return fd


def _as_socket(fd: int) -> socket.socket | None:
    try:
        return socket.socket(fileno=fd)
    except OSError:
        os.close(fd)
        return None


def _not_had(address: str, number: int) -> str:
    return (
        f"its listening socket {address} could not be taken back ({os.strerror(number)}): it keeps "
        "serving on it, but connections are refused or lost while it restarts"
    )


def _is_unix(service: Service, listener: str) -> bool:
    return any(x.name == listener and x.address.startswith("unix:") for x in service.listen)
