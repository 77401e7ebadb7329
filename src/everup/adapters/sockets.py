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
import struct
from collections.abc import Callable, Sequence

from everup.adapters import binding, sock_diag, steering
from everup.config import Address, parse_address
from everup.model.spec import Listener, Probe, Service

Hold = Callable[[Sequence[str], Sequence[int]], None]
Drop = Callable[[Sequence[str]], None]
_MIXED = "x"
_MOVED = "@"
_CONNECTED = "03"
"""SS_CONNECTED, as /proc/net/unix writes it."""
_BACKLOG = struct.Struct("=I")
_BACKLOG_AT, _LIMIT_AT = 24, 28
"""tcpi_unacked, tcpi_sacked: of a listening socket, the connections that wait for accept, and how
many may."""


def accepts(sock: socket.socket) -> bool:
    """Whether it listens. (A program that was given it can shut it down, for everybody.)"""
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


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
        self._places: dict[str, int] = {}
        """Index in its group of each socket that is not where its lane says: one that began to
        listen anew is the last of its group."""
        self._limits: dict[str, int] = {}
        """What the kernel made of the backlog, as far as it is known."""
        self._no_steering = False

    def adopt(self, name: str, fd: int) -> None:
        """Take a socket back that the keeper held for an earlier engine."""
        name, _, place = name.partition(_MOVED)
        self._sockets[name] = socket.socket(fileno=fd)
        if place:
            self._places[name] = int(place)
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
            if not self.lanes(service) and not binding.is_here(address):
                self._say(
                    service.name,
                    f"this machine does not have the address of {listener.address} (yet): it is "
                    "listened on all the same, and works from the moment that it is there",
                )
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
            return binding.listen(address, listener, True)
        group = self._group(service.name, listener.name)
        if len(group) == 1 and accepts(group[0]):
            # Before the second one listens: there is to be no moment in which the kernel
            # spreads. (With more there is a program already, by us or by an engine before.)
            self._attach(service, group[0], [0])
        if group and index != len(group):
            self._mix(service)
        try:
            return binding.listen(address, listener, not group)
        except OSError as error:
            ours = error.errno == errno.EADDRINUSE and not group and self._ours(service, address)
            if not ours:
                raise
        sock = binding.listen(address, listener, False)
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
            (x.name, self._kept(self._name(service, x, self._index(x, lane))))
            for x in service.listen
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

    def close(self, service: str, listen: Sequence[Listener], kept: Sequence[str] = ()) -> None:
        """Close all of a service but those ``kept``, by name; clients are refused from now on."""
        prefix = f"sock:{service}:"
        files = []
        for listener in listen:
            address = parse_address(listener.address)
            sock = self._sockets.get(socket_name(service, listener.name, 0))
            if address.family == "unix" and sock is not None:
                files.append((address.path, binding.file_of(sock)))
        mine = [name for name in self._sockets if name.startswith(prefix)]
        self._close([name for name in mine if name.split(":")[2] not in kept])
        for path, file in files:
            binding.unlink_own(path, file)

    def keep_backlogs(self, service: Service) -> None:
        """Give the queues their length back where a program has called listen() with one of its
        own: the limit is the socket's, and so that of everybody who comes after it."""
        for listener, _, name, sock in self._all(service):
            limit = self._limit(sock)
            if limit is None or limit == self._limits.get(name) or not accepts(sock):
                continue
            with contextlib.suppress(OSError):
                sock.listen(listener.backlog)
                self._limits[name] = self._limit(sock) or 0

    def _limit(self, sock: socket.socket) -> int | None:
        with contextlib.suppress(OSError, struct.error):
            if sock.family == socket.AF_UNIX:
                known = sock_diag.unix_socket(os.fstat(sock.fileno()).st_ino)
                return None if known is None else known.limit
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 64)
            return int(_BACKLOG.unpack_from(info, _LIMIT_AT)[0])
        return None

    def closed(self, service: Service) -> list[tuple[str, int]]:
        """Listener and lane of the sockets that listen no more."""
        return [
            (listener.name, lane)
            for listener, lane, _, sock in self._all(service)
            if not accepts(sock)
        ]

    def paths(self, service: Service) -> list[tuple[str, str, binding.File]]:
        """Listener, path and file of the Unix sockets, where the kernel tells."""
        found = []
        for listener, _, _, sock in self._all(service):
            if _is_unix(listener) and (file := binding.file_of(sock)) is not None:
                found.append((listener.name, parse_address(listener.address).path, file))
        return found

    def numbers(self, service: Service) -> dict[int, list[int]]:
        """The inodes of the sockets of each TCP port."""
        found: dict[int, list[int]] = {}
        for listener, _, _, sock in self._all(service):
            if not _is_unix(listener):
                port = parse_address(listener.address).port
                found.setdefault(port, []).append(os.fstat(sock.fileno()).st_ino)
        return found

    def _all(self, service: Service) -> list[tuple[Listener, int, str, socket.socket]]:
        """Listener, lane, name and socket of all that are open."""
        found = []
        for listener in service.listen:
            prefix = f"sock:{service.name}:{listener.name}:"
            found += [
                (listener, _position(name) + 1, name, sock)
                for name, sock in self._sockets.items()
                if name.startswith(prefix)
            ]
        return found

    def listen_again(self, service: Service) -> bool:
        """Make those that were shut down listen again. True: they have other places in their groups
        now, so probes and the balance go by others. Raises ``OSError`` whose text is for people."""
        moved = False
        for listener in service.listen:
            mine = [(n, sock) for x, _, n, sock in self._all(service) if x is listener]
            dead = [sock for _, sock in mine if not accepts(sock)]
            for sock in dead:
                try:
                    sock.listen(listener.backlog)
                except OSError as error:
                    why = os.strerror(error.errno or 0)
                    text = f"cannot listen on {listener.address} again: {why}"
                    raise OSError(error.errno, text) from error
            if dead and len(mine) > 1:
                moved = True
                self._find_places(service, [name for name, _ in mine])
        return moved

    def open_anew(self, service: Service) -> None:
        """Other sockets in the place of Unix ones whose files have no name any more: clients cannot
        come to those. Whoever has them serves who is in their queues. Raises ``OSError``."""
        for listener in service.listen:
            name = self._name(service, listener, 0)
            address = parse_address(listener.address)
            if address.family != "unix" or os.path.lexists(address.path):
                continue
            old = self._sockets.pop(name, None)
            self._sockets[name] = sock = binding.listen(address, listener, True)
            self._limits.pop(name, None)
            self._hold([name], [sock.fileno()])
            if old is not None:
                old.close()

    def _find_places(self, service: Service, names: list[str]) -> None:
        """Ask the kernel in which order it has them by now."""
        if service.name in self._mixed or self._no_steering:
            return
        places = steering.positions([self._sockets[name] for name in names])
        if places is None:
            self._mix(service)
            return
        old = {name: self._kept(name) for name in names}
        for name, place in zip(names, places, strict=True):
            self._places.pop(name, None)
            if place != _position(name):
                self._places[name] = place
        changed = [name for name in names if self._kept(name) != old[name]]
        if changed:
            fds = [self._sockets[name].fileno() for name in changed]
            self._hold([self._kept(name) for name in changed], fds)
            self._drop([old[name] for name in changed])

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
            active = [self.place(service, listener, lane) for lane in lanes if lane <= len(group)]
            # Put on a socket that is dead, the program would keep it from ever listening again.
            alive = next((sock for sock in group if accepts(sock)), None)
            if active and alive is not None:
                self._attach(service, alive, active)

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
        new, kept = [], [self._kept(name) for name in old]
        for name in old:
            base, _, index = name.rpartition(":")
            new.append(f"{base}:{_MIXED}{index}")
            self._sockets[new[-1]] = self._sockets.pop(name)
            self._places.pop(name, None)
        if old:
            self._hold(new, [self._sockets[name].fileno() for name in new])
            self._drop(kept)

    def _ours(self, service: Service, address: Address) -> bool:
        """Whether whoever listens there is a process of this very service."""
        mine = {f"EVERUP_STATE={self._state_dir}", f"EVERUP_SERVICE={service.name}"}
        if self._state_dir is None:
            return False
        pids = binding.listeners(address)
        for pid in pids:
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    environment = file.read().decode(errors="replace").split("\0")
            except OSError:
                return False
            if not mine.issubset(environment):
                return False
        return bool(pids)

    def place(self, service: Service, listener: Listener, lane: int) -> int:
        """The index of a lane's socket in its group, as the kernel has it."""
        return self._places.get(self._name(service, listener, lane - 1), lane - 1)

    def reached_as(self, service: Service, probe: Probe, lane: int) -> int:
        """The lane by whose address a probe reaches that one: the kernel goes by places."""
        if not service.listen:
            return lane
        listener = next((x for x in service.listen if x.name == probe.listener), service.listen[0])
        return lane if _is_unix(listener) else self.place(service, listener, lane) + 1

    def _kept(self, name: str) -> str:
        """What the keeper calls a socket."""
        return f"{name}{_MOVED}{self._places[name]}" if name in self._places else name

    def _group(self, service: str, listener: str) -> list[socket.socket]:
        prefix = f"sock:{service}:{listener}:"
        found = [name for name in self._sockets if name.startswith(prefix)]
        return [self._sockets[name] for name in sorted(found, key=_position)]

    def _name(self, service: Service, listener: Listener, index: int) -> str:
        return socket_name(service.name, listener.name, index, mixed=service.name in self._mixed)

    def _index(self, listener: Listener, lane: int) -> int:
        return 0 if _is_unix(listener) else lane - 1

    def _close(self, names: Sequence[str]) -> None:
        kept = [self._kept(name) for name in names]
        for name in names:
            self._sockets.pop(name).close()
            self._places.pop(name, None)
            self._limits.pop(name, None)
        services = {name.split(":")[1] for name in self._sockets}
        self._mixed &= services
        if names:
            self._drop(kept)


MIXED = (
    "nobody knows any more in which order the kernel has its listening sockets: until it is "
    "stopped and started, connections are spread evenly over all replicas, also those that are "
    "not ready, and probes reach any of them"
)


def _position(name: str) -> int:
    return int(name.rpartition(":")[2].removeprefix(_MIXED))


def place_of(name: str) -> int:
    """The index in its group that a name tells; -1: nobody knows it."""
    index, _, place = name.rpartition(":")[2].partition(_MOVED)
    return int(place or index) if (place or index).isdigit() else -1


def _is_unix(listener: Listener) -> bool:
    return listener.address.startswith("unix:")


def socket_name(service: str, listener: str, index: int, *, mixed: bool = False) -> str:
    """How the keeper knows a socket. ``mixed``: the index is that of its lane alone, nobody knows
    its place in the group."""
    return f"sock:{service}:{listener}:{_MIXED if mixed else ''}{index}"


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
