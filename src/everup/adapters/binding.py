"""Open listening sockets, and say in words what is in the way."""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import psutil

from everup.adapters import aside, launch, sock_diag, trusted
from everup.config import Address
from everup.model.spec import Listener

_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}
_IP_FREEBIND: Final = 15  # socket.IP_FREEBIND is not in every Python that we run on
_LOOKUP_S = 2.0
_DEAD = (errno.ECONNREFUSED,)


def bound_as(address: Address) -> tuple[object, ...]:
    """What ``identity`` gives for a socket that was opened for this address."""
    if address.family == "unix":
        return (socket.AF_UNIX, address.path)
    family = _FAMILIES[address.family]
    return (family, *_resolve(address)[:2])


def identity(sock: socket.socket) -> tuple[object, ...] | None:
    """Where a socket listens, to be compared with ``bound_as``; None if it does not listen."""
    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return None
    if sock.type != socket.SOCK_STREAM:
        return None
    if sock.family == socket.AF_UNIX:
        return (socket.AF_UNIX, sock.getsockname())
    return (sock.family, *sock.getsockname()[:2])


def _resolve(address: Address) -> tuple[str, int]:
    info = socket.getaddrinfo(
        address.host or None,
        address.port,
        _FAMILIES[address.family],
        socket.SOCK_STREAM,
        0,
        socket.AI_PASSIVE,
    )
    return info[0][4][:2]  # type: ignore[return-value]  # TCP: never the bytes of other families


def listen(address: Address, listener: Listener, first: bool) -> socket.socket:
    try:
        if address.family == "unix":
            return _listen_unix(address.path, listener)
        if first:
            # With SO_REUSEPORT a port that somebody of the same user has in the same way would
            # be shared in silence: ask once without.
            _bind(address, reuse_port=False).close()
        sock = _bind(address, reuse_port=True)
        sock.listen(listener.backlog)
        return sock
    except OSError as error:
        text = f"cannot listen on {listener.address}: {os.strerror(error.errno or 0)}"
        if error.errno == errno.EADDRINUSE:
            text += _holder(address)
        elif error.errno == errno.EPERM or isinstance(error, trusted.UntrustedError):
            text = f"cannot listen on {listener.address}: {error.strerror}"
        elif error.errno == errno.EACCES and address.port < 1024:
            text += "; ports below 1024 need root or CAP_NET_BIND_SERVICE"
        raise OSError(error.errno, text) from error


def _bind(address: Address, *, reuse_port: bool) -> socket.socket:
    sock = socket.socket(_FAMILIES[address.family], socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # Accepted connections inherit it. asyncio servers set it themselves, but not on a socket
        # that was passed to them as a bare descriptor: 40 ms for each kept-alive answer.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.family == "inet6":
            # [::] takes IPv4 as well, as servers do by default on Linux.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.host != "::")
        _bind_to(sock, _resolve(address))
        if not reuse_port:
            sock.listen(1)  # another listener shows only now
    except socket.gaierror as error:
        sock.close()
        raise OSError(errno.EADDRNOTAVAIL, str(error)) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _bind_to(sock: socket.socket, where: tuple[str, int]) -> None:
    """An address that the machine has not yet, or no more (a floating one, one of an interface that
    comes up later) works from the moment it is there: see ``is_here``."""
    try:
        sock.bind(where)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
        sock.bind(where)


def is_here(address: Address) -> bool:
    """Whether the machine has this address now."""
    if address.family == "unix" or address.wildcard:
        return True
    with socket.socket(_FAMILIES[address.family], socket.SOCK_STREAM) as sock:
        try:
            sock.bind((_resolve(address)[0], 0))
        except OSError as error:
            return error.errno != errno.EADDRNOTAVAIL
    return True


@dataclass(frozen=True, slots=True)
class File:
    """The file that a Unix socket was bound to, whatever name it has by now."""

    inode: int
    device: int

    def is_at(self, path: str) -> bool:
        """Whether the path still leads to it."""
        try:
            return self.is_same(os.lstat(path))
        except OSError:
            return False

    def is_same(self, found: os.stat_result) -> bool:
        """Whether that is a look at it."""
        return (found.st_ino, sock_diag.device_number(found.st_dev)) == (self.inode, self.device)


def file_of(sock: socket.socket) -> File | None:
    """None where the kernel does not tell."""
    with contextlib.suppress(OSError):
        known = sock_diag.unix_socket(os.fstat(sock.fileno()).st_ino)
        if known is not None and known.path_inode is not None and known.path_device is not None:
            return File(known.path_inode, known.path_device)
    return None


def unlink_own(path: str, file: File | None) -> None:
    """Remove the path of a socket of ours, and its spare name; never what somebody else has put
    there meanwhile."""
    with contextlib.suppress(OSError), _parent(path) as directory:
        for name in (path, spare_name(path)):
            base = os.path.basename(name)
            with contextlib.suppress(OSError):
                found = os.stat(base, dir_fd=directory, follow_symlinks=False)
                if file is not None and file.is_same(found):
                    os.unlink(base, dir_fd=directory)


def keep_spare(path: str, file: File) -> None:
    """Give a socket's file that is at its path its spare name."""
    base, spare = os.path.basename(path), os.path.basename(spare_name(path))
    with contextlib.suppress(OSError), _parent(path) as directory:
        with contextlib.suppress(FileNotFoundError):
            if file.is_same(os.stat(spare, dir_fd=directory, follow_symlinks=False)):
                return
            os.unlink(spare, dir_fd=directory)
        _link(base, spare, directory)


def link_back(path: str, file: File) -> None:
    """Give a file that has its spare name alone its path again. ``OSError``."""
    with _parent(path) as directory:
        spare = os.path.basename(spare_name(path))
        if file.is_same(os.stat(spare, dir_fd=directory, follow_symlinks=False)):
            _link(spare, os.path.basename(path), directory)


def _link(old: str, new: str, directory: int) -> None:
    os.link(old, new, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)


@contextlib.contextmanager
def _parent(path: str) -> Iterator[int]:
    """The directory of a path, where nobody can lead what is done there elsewhere."""
    directory = trusted.open_parent(path)
    try:
        yield directory
    finally:
        os.close(directory)


def spare_name(path: str) -> str:
    """A second name of the socket's file, so that the first can be made again."""
    directory, base = os.path.split(path)
    return os.path.join(directory, f".{base}.everup")


def _give(sock: socket.socket, path: str, listener: Listener) -> None:
    """Make it the file of its user and group: by descriptor, since by name it would be whatever
    has that name by then."""
    if listener.user is None and listener.group is None:
        return
    try:
        uid, gid = aside.call(_LOOKUP_S, _ids, listener.user, listener.group)
        handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            file = file_of(sock)
            if file is None or not file.is_same(os.fstat(handle)):
                raise OSError(errno.ESTALE, "its path is somebody else's already")
            os.chown(f"/proc/self/fd/{handle}", uid, gid)
        finally:
            os.close(handle)
    except (OSError, LookupError) as error:
        unlink_own(path, file_of(sock))
        owner = (listener.user or "") + (f":{listener.group}" if listener.group else "")
        why = "no such user or group" if isinstance(error, LookupError) else error.strerror or error
        raise OSError(errno.EPERM, f"cannot give it to {owner}: {why}") from error


def _ids(user: str | None, group: str | None) -> tuple[int, int]:
    """-1: as it is."""
    uid = -1 if user is None else launch.account(user).pw_uid
    return uid, -1 if group is None else launch.group_number(group)


def _listen_unix(path: str, listener: Listener) -> socket.socket:
    base = os.path.basename(path)
    with _parent(path) as directory:
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(base, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISSOCK(found.st_mode):
                _refuse_living(path)
                os.unlink(base, dir_fd=directory)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            trusted.bind(sock, path, int(listener.mode, 8))
            file = file_of(sock)
            found = os.stat(base, dir_fd=directory, follow_symlinks=False)
            if file is not None and not file.is_same(found):
                # By its name it had to be bound: clients and the kernel's lists go by that.
                raise OSError(errno.ESTALE, "its directory was replaced meanwhile")
            _give(sock, path, listener)
            sock.listen(listener.backlog)
        except BaseException:
            sock.close()
            raise
    return sock


def _refuse_living(path: str) -> None:
    """``OSError`` if a program listens there. A queue that is full (EAGAIN) is that of a busy
    program, not of a dead one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        if probe.connect_ex(path) not in _DEAD:
            raise OSError(errno.EADDRINUSE, "in use")


def _holder(address: Address) -> str:
    """`` (by nginx, pid 12)`` where it can be found out."""
    for pid in listeners(address):
        with contextlib.suppress(psutil.Error):
            return f" by {psutil.Process(pid).name()} (pid {pid})"
    return ""


def listeners(address: Address) -> list[int]:
    """Processes that listen on the port of the address, as far as can be seen."""
    found: dict[int, None] = {}
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            local = connection.laddr
            listens = connection.status == psutil.CONN_LISTEN and connection.pid
            if listens and local and local.port == address.port:
                found[int(connection.pid or 0)] = None
    return list(found)
