"""The listening sockets of the services: opened here, held by the keeper, steered in the kernel.

Each slot of a service has a socket of its own in one SO_REUSEPORT group, so that a dead replica's
queue stays open for its successor and the kernel can be told who gets what. Unix sockets have no
such groups: one is shared by all slots.
"""

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Callable, Sequence

import psutil

from everup.adapters import steering
from everup.config import Address, parse_address
from everup.model.spec import Listener, Service

Hold = Callable[[Sequence[str], Sequence[int]], None]
Drop = Callable[[Sequence[str]], None]
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6, "unix": socket.AF_UNIX}


class SocketBank:
    """All of them. ``hold`` and ``drop`` tell the keeper; ``say`` takes one-time notices."""

    def __init__(self, hold: Hold, drop: Drop, say: Callable[[str, str], None]) -> None:
        self._hold = hold
        self._drop = drop
        self._say = say
        self._sockets: dict[str, socket.socket] = {}
        self._no_steering = False

    def adopt(self, name: str, fd: int) -> None:
        """Take a socket back that the keeper held for an earlier engine."""
        self._sockets[name] = socket.socket(fileno=fd)

    def forget_unused(self, services: Sequence[str]) -> None:
        """Close adopted sockets of services that are no longer there."""
        gone = [name for name in self._sockets if name.split(":")[1] not in services]
        self._close(gone)

    def open(self, service: Service, slots: int) -> None:
        """Open what is missing. Raises ``OSError`` whose text is for people."""
        for listener in service.listen:
            address = parse_address(listener.address)
            count = 1 if address.family == "unix" else slots
            fresh = []
            for index in range(count):
                name = socket_name(service.name, listener.name, index)
                if name not in self._sockets:
                    first = not any(
                        n.startswith(name.rpartition(":")[0] + ":") for n in self._sockets
                    )
                    self._sockets[name] = _listen(address, listener, first)
                    fresh.append(name)
            if fresh:
                self._hold(fresh, [self._sockets[name].fileno() for name in fresh])

    def ready(self, service: Service) -> bool:
        """Whether every socket of the service is open."""
        return all(
            socket_name(service.name, listener.name, 0) in self._sockets
            for listener in service.listen
        )

    def names(self, service: Service, replica: int) -> list[tuple[str, str]]:
        """(listener name, name at the keeper) of the sockets of one replica, in config order.

        The sockets are made blocking again: a predecessor may have left its own non-blocking, and
        the flag is the socket's, not the process's. A shared Unix socket stays as it is."""
        for listener in service.listen:
            if not listener.address.startswith("unix:"):
                name = socket_name(service.name, listener.name, replica - 1)
                if name in self._sockets:
                    self._sockets[name].setblocking(True)
        return [
            (x.name, socket_name(service.name, x.name, self._index(x, replica)))
            for x in service.listen
        ]

    def empty(self, service: Service, replica: int) -> None:
        """End the connections that wait for a replica that is down for good. (A shared Unix
        socket is everybody's.)"""
        for listener in service.listen:
            name = socket_name(service.name, listener.name, replica - 1)
            sock = self._sockets.get(name)
            if sock is None or listener.address.startswith("unix:"):
                continue
            sock.setblocking(False)
            with contextlib.suppress(OSError):  # until nobody waits
                for _ in range(listener.backlog):
                    sock.accept()[0].close()

    def close(self, service: Service) -> None:
        """Close all of a service; clients are refused from now on."""
        prefix = f"sock:{service.name}:"
        self._close([name for name in self._sockets if name.startswith(prefix)])
        for listener in service.listen:
            address = parse_address(listener.address)
            if address.family == "unix":
                with contextlib.suppress(OSError):
                    os.unlink(address.path)

    def steer(self, service: Service, replicas: Sequence[int]) -> None:
        """New connections go to these replicas (numbers from 1)."""
        if self._no_steering:
            return
        for listener in service.listen:
            if parse_address(listener.address).family == "unix":
                continue
            sock = self._sockets.get(socket_name(service.name, listener.name, 0))
            # By the sockets there are: those of replicas that were scaled away stay in the group.
            if sock is None or socket_name(service.name, listener.name, 1) not in self._sockets:
                continue
            try:
                steering.attach(sock, [replica - 1 for replica in replicas])
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
                return

    @property
    def steers(self) -> bool:
        return not self._no_steering

    def _index(self, listener: Listener, replica: int) -> int:
        return 0 if listener.address.startswith("unix:") else replica - 1

    def _close(self, names: Sequence[str]) -> None:
        for name in names:
            self._sockets.pop(name).close()
        if names:
            self._drop(names)


def socket_name(service: str, listener: str, index: int) -> str:
    """How the keeper knows a socket."""
    return f"sock:{service}:{listener}:{index}"


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
        info = socket.getaddrinfo(
            address.host or None, address.port, sock.family, sock.type, 0, socket.AI_PASSIVE
        )
        sock.bind(info[0][4])
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
        sock.bind(path)
        os.chmod(path, int(listener.mode, 8))
        sock.listen(listener.backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _holder(address: Address) -> str:
    """`` (by nginx, pid 12)`` where it can be found out."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            local = connection.laddr
            listens = connection.status == psutil.CONN_LISTEN and connection.pid
            if listens and local and local.port == address.port:
                name = psutil.Process(connection.pid).name()
                return f" by {name} (pid {connection.pid})"
    return ""
