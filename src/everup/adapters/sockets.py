"""The listening sockets of the services: opened here, held by the keeper, steered in the kernel.

Each process of a service has a **lane**: a socket of its own in the SO_REUSEPORT group of each
listener, so that a dead replica's queue stays open for its successor and the kernel can be told
who gets what. Lane n is the socket with index n - 1 in each group. Unix sockets have no such
groups: one is shared by all lanes.
"""

import contextlib
import errno
import os
import socket
import stat
import struct
from collections.abc import Callable, Sequence

import psutil

from everup.adapters import steering, trusted
from everup.config import Address, parse_address
from everup.model.spec import Listener, Service

Hold = Callable[[Sequence[str], Sequence[int]], None]
Drop = Callable[[Sequence[str]], None]
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}
_MIXED = "x"
_CONNECTED = "03"
"""SS_CONNECTED, as /proc/net/unix writes it."""
_BACKLOG = struct.Struct("=I")
_BACKLOG_AT = 24
"""tcpi_unacked: of a listening socket, the connections that wait for accept."""


class SocketBank:
    """All of them. ``hold`` and ``drop`` tell the keeper; ``say`` takes one-time notices.
    ``state_dir``: whose processes may be found to listen already (see ``open``)."""

    def __init__(
        self,
        hold: Hold,
        drop: Drop,
        say: Callable[[str, str], None],
        state_dir: str | None = None,
    ) -> None:
        self._hold = hold
        self._drop = drop
        self._say = say
        self._state_dir = state_dir
        self._sockets: dict[str, socket.socket] = {}
        self._mixed: set[str] = set()
        """Services whose sockets have an order in their groups that nobody knows."""
        self._no_steering = False

    def adopt(self, name: str, fd: int) -> None:
        """Take a socket back that the keeper held for an earlier engine."""
        self._sockets[name] = socket.socket(fileno=fd)
        _, service, _, index = name.split(":")
        if index.startswith(_MIXED):
            self._mixed.add(service)

    def forget_unused(self, services: Sequence[str]) -> None:
        """Close adopted sockets of services that are no longer there."""
        gone = [name for name in self._sockets if name.split(":")[1] not in services]
        self._close(gone)

    def open(self, service: Service, lanes: int) -> None:
        """Open what is missing of lanes 1 to ``lanes``. Raises ``OSError`` whose text is for
        people.

        A new lane gets no connections before ``steer`` says so, unless the kernel refuses steering
        (see ``can_steer``). Where an instance of this service listens on the address already, and
        its socket could not be taken back, the new ones join it, without steering."""
        for listener in service.listen:
            address = parse_address(listener.address)
            fresh: list[int] = []
            try:
                for index in range(1 if address.family == "unix" else lanes):
                    if self._name(service, listener, index) not in self._sockets:
                        sock = self._open(service, listener, address, index)
                        # Asked again: by now the order may have turned out to be unknown.
                        self._sockets[self._name(service, listener, index)] = sock
                        fresh.append(index)
            finally:
                names = [self._name(service, listener, index) for index in fresh]
                if names:
                    self._hold(names, [self._sockets[name].fileno() for name in names])

    def _open(
        self, service: Service, listener: Listener, address: Address, index: int
    ) -> socket.socket:
        if address.family == "unix":
            return _listen(address, listener, True)
        group = self._group(service.name, listener.name)
        if len(group) == 1:
            # Before the second one listens: there is to be no moment in which the kernel
            # spreads. (With more there is a program already, by us or by an engine before.)
            self._attach(service, group[0], [0])
        if group and index != len(group):
            self._mix(service)
        try:
            return _listen(address, listener, not group)
        except OSError as error:
            ours = error.errno == errno.EADDRINUSE and not group and self._ours(service, address)
            if not ours:
                raise
        sock = _listen(address, listener, False)
        self._mix(service)
        return sock

    def ready(self, service: Service, lane: int = 1) -> bool:
        """Whether every socket of a lane is open."""
        return all(
            self._name(service, listener, self._index(listener, lane)) in self._sockets
            for listener in service.listen
        )

    def lanes(self, service: Service) -> int:
        """How many are open. A service on Unix sockets alone has one, for all."""
        tcp = [listener for listener in service.listen if not _is_unix(listener)]
        groups = [self._group(service.name, x.name) for x in tcp or service.listen]
        return min(map(len, groups), default=0)

    def names(self, service: Service, lane: int) -> list[tuple[str, str]]:
        """(listener name, name at the keeper) of the sockets of one lane, in config order."""
        return [
            (x.name, self._name(service, x, self._index(x, lane))) for x in service.listen
        ]  # fmt: skip

    def inodes(self, service: Service, lane: int) -> list[int]:
        """Of the sockets of one lane: whoever has these has them from everup."""
        found = (self._sockets.get(name) for _, name in self.names(service, lane))
        return [os.fstat(sock.fileno()).st_ino for sock in found if sock is not None]

    def refresh(self, service: Service, lane: int) -> None:
        """Make the sockets of a lane that nobody uses blocking again, for a new process: the one
        before may have left them non-blocking, and the flag is the socket's, not the process's. A
        shared Unix socket stays as it is."""
        for listener in service.listen:
            if not _is_unix(listener):
                name = self._name(service, listener, lane - 1)
                if name in self._sockets:
                    self._sockets[name].setblocking(True)

    def empty(self, service: Service, lane: int) -> None:
        """End the connections that wait in a lane that is down for good. (A shared Unix socket is
        everybody's.)"""
        for listener in service.listen:
            sock = self._sockets.get(self._name(service, listener, lane - 1))
            if sock is None or _is_unix(listener):
                continue
            sock.setblocking(False)
            with contextlib.suppress(OSError):  # until nobody waits
                for _ in range(listener.backlog):
                    sock.accept()[0].close()

    def waiting(self, service: Service, lane: int) -> int:
        """Connections in the queues of a lane that nobody has accepted yet. (Who waits on a
        shared Unix socket waits for all.)"""
        count = 0
        for listener in service.listen:
            sock = self._sockets.get(self._name(service, listener, lane - 1))
            if sock is not None and not _is_unix(listener):
                with contextlib.suppress(OSError, struct.error):
                    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
                    count += _BACKLOG.unpack_from(info, _BACKLOG_AT)[0]
        return count

    def busy(self, service: Service, pids: Sequence[int]) -> int:
        """Connections to the service's Unix sockets that these processes have accepted. Raises
        ``OSError`` where that cannot be told."""
        paths = {parse_address(x.address).path for x in service.listen if _is_unix(x)}
        return _unix_connections(paths, pids) if paths else 0

    def close(self, service: str, listen: Sequence[Listener]) -> None:
        """Close all of a service; clients are refused from now on."""
        prefix = f"sock:{service}:"
        self._close([name for name in self._sockets if name.startswith(prefix)])
        for listener in listen:
            address = parse_address(listener.address)
            if address.family == "unix":
                with contextlib.suppress(OSError):
                    os.unlink(address.path)

    def steer(self, service: Service, lanes: Sequence[int]) -> None:
        """New connections go to these lanes; those that are not open are left out."""
        if self._no_steering:
            return
        for listener in service.listen:
            group = [] if _is_unix(listener) else self._group(service.name, listener.name)
            if not group:
                continue
            if service.name in self._mixed:
                steering.detach(group[0])  # what it says goes by an order that is no more
                continue
            active = [lane - 1 for lane in lanes if lane <= len(group)]
            if active:
                self._attach(service, group[0], active)

    def _attach(self, service: Service, sock: socket.socket, active: list[int]) -> None:
        if self._no_steering or service.name in self._mixed:
            return
        try:
            steering.attach(sock, active)
        except OSError as error:
            if not steering.refused(error):
                raise
            self._no_steering = True
            self._say(
                service.name,
                f"the kernel refuses a steering program ({os.strerror(error.errno or 0)}): "
                "connections are spread evenly over all replicas, also those that are not "
                "ready, and probes reach any of them",
            )

    @property
    def steers(self) -> bool:
        """Whether the kernel takes steering programs, as far as is known: it is asked with the
        first ``steer``, and before a second lane is opened."""
        return not self._no_steering

    @property
    def can_steer(self) -> bool:
        """Whether a lane can be opened ahead of its process. False: connections would go there at
        once, so a successor should share the lane of the one that it replaces."""
        return not (self._no_steering or self._mixed)

    def steerable(self, service: Service) -> bool:
        """``can_steer`` for one service: another one's sockets may be the trouble."""
        return not self._no_steering and service.name not in self._mixed

    def _mix(self, service: Service) -> None:
        """Nobody knows the order of its sockets any more. Their names say so from now on, for
        engines to come."""
        if service.name in self._mixed:
            return
        prefix = f"sock:{service.name}:"
        old = [name for name in self._sockets if name.startswith(prefix)]
        self._mixed.add(service.name)
        self._say(service.name, MIXED)
        for listener in service.listen:
            if not _is_unix(listener):
                for sock in self._group(service.name, listener.name):
                    steering.detach(sock)
        new = []
        for name in old:
            base, _, index = name.rpartition(":")
            new.append(f"{base}:{_MIXED}{index}")
            self._sockets[new[-1]] = self._sockets.pop(name)
        if old:
            self._hold(new, [self._sockets[name].fileno() for name in new])
            self._drop(old)

    def _ours(self, service: Service, address: Address) -> bool:
        """Whether whoever listens there is a process of this very service."""
        mine = {f"EVERUP_STATE={self._state_dir}", f"EVERUP_SERVICE={service.name}"}
        if self._state_dir is None:
            return False
        pids = _listeners(address)
        for pid in pids:
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    environment = file.read().decode(errors="replace").split("\0")
            except OSError:
                return False
            if not mine.issubset(environment):
                return False
        return bool(pids)

    def _group(self, service: str, listener: str) -> list[socket.socket]:
        prefix = f"sock:{service}:{listener}:"
        found = [name for name in self._sockets if name.startswith(prefix)]
        return [self._sockets[name] for name in sorted(found, key=_position)]

    def _name(self, service: Service, listener: Listener, index: int) -> str:
        return socket_name(service.name, listener.name, index, mixed=service.name in self._mixed)

    def _index(self, listener: Listener, lane: int) -> int:
        return 0 if _is_unix(listener) else lane - 1

    def _close(self, names: Sequence[str]) -> None:
        for name in names:
            self._sockets.pop(name).close()
        services = {name.split(":")[1] for name in self._sockets}
        self._mixed &= services
        if names:
            self._drop(names)


MIXED = (
    "nobody knows any more in which order the kernel has its listening sockets: until it is "
    "stopped and started, connections are spread evenly over all replicas, also those that are "
    "not ready, and probes reach any of them"
)


def _position(name: str) -> int:
    return int(name.rpartition(":")[2].removeprefix(_MIXED))


def _is_unix(listener: Listener) -> bool:
    return listener.address.startswith("unix:")


def socket_name(service: str, listener: str, index: int, *, mixed: bool = False) -> str:
    """How the keeper knows a socket. ``mixed``: the index is that of its lane alone, nobody knows
    its place in the group."""
    return f"sock:{service}:{listener}:{_MIXED if mixed else ''}{index}"


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


def _listen(address: Address, listener: Listener, first: bool) -> socket.socket:
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
        sock.bind(_resolve(address))
        if not reuse_port:
            sock.listen(1)  # another listener shows only now
    except socket.gaierror as error:
        sock.close()
        raise OSError(errno.EADDRNOTAVAIL, str(error)) from error
    except BaseException:
        sock.close()
        raise
    return sock


def _listen_unix(path: str, listener: Listener) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(1.0)
                if probe.connect_ex(path) == 0:
                    raise OSError(errno.EADDRINUSE, "in use")
            os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        trusted.bind(sock, path, int(listener.mode, 8))
        sock.listen(listener.backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _unix_connections(paths: set[str], pids: Sequence[int]) -> int:
    accepted = set()
    with open("/proc/net/unix") as file:
        for line in file:
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and fields[5] == _CONNECTED and fields[7].rstrip("\n") in paths:
                accepted.add(f"socket:[{fields[6]}]")
    count = 0
    for pid in pids if accepted else ():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(FileNotFoundError):
                    count += os.readlink(f"/proc/{pid}/fd/{fd}") in accepted
    return count


def _holder(address: Address) -> str:
    """`` (by nginx, pid 12)`` where it can be found out."""
    for pid in _listeners(address):
        with contextlib.suppress(psutil.Error):
            return f" by {psutil.Process(pid).name()} (pid {pid})"
    return ""


def _listeners(address: Address) -> list[int]:
    """Processes that listen on the port of the address, as far as can be seen."""
    found: dict[int, None] = {}
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            local = connection.laddr
            listens = connection.status == psutil.CONN_LISTEN and connection.pid
            if listens and local and local.port == address.port:
                found[int(connection.pid or 0)] = None
    return list(found)
