"""Looks after the listening sockets: does everybody still leave them as everup opened them?

Every process that was given one can shut it down for all, or shorten its queue; a Unix path can be
removed by whoever may write in its directory; and a program can listen on the port by itself. The
looking is here, the deciding in ``engine.listening``.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from everup.adapters import binding, sock_diag
from everup.config import parse_address
from everup.model.event import SocketsLost, SocketsMoved, Stranger, Strangers
from everup.model.journal import Kind
from everup.model.spec import Service

if TYPE_CHECKING:
    from everup.daemon.runtime import Runtime

_EVERY_S = 1.0
_AFTER_START_S = (0.05, 0.1, 0.2, 0.4)
"""Servers call listen() as they start, and that with their own idea of a queue."""
_FAMILIES = (2, 10)


class Listening:
    """Of one engine."""

    def __init__(self, runtime: "Runtime") -> None:
        self._runtime = runtime
        self._wake = asyncio.Event()
        self._quick: list[float] = []
        self._seen: dict[str, frozenset[int]] = {}
        """Inodes of strangers at the last look: one look can meet a socket on its way."""
        self._told: dict[str, frozenset[int]] = {}
        self._taken: set[str] = set()
        """Paths that somebody else has, as far as that is told."""

    def reported(self, message: Mapping[str, Any]) -> None:
        """What the keeper says of a process: at each start and end there is reason to look."""
        role, _, rest = str(message["id"]).partition(":")
        name = rest.partition(":")[0].rpartition(".")[0]
        if role != "main" or name not in self._runtime.engine.open_lanes:
            return
        if message["ev"] == "exit":
            self._look(name)  # before a successor gets it
        self._quick = list(_AFTER_START_S)
        self._wake.set()

    async def run(self) -> None:
        """Until the engine ends."""
        runtime = self._runtime
        await runtime.began.wait()
        while True:
            try:
                await self._round()
            except Exception as error:
                runtime.voice.say(f"the listening sockets: {type(error).__name__}: {error}")
            delay_s = self._quick.pop(0) if self._quick else _EVERY_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), delay_s)
            self._wake.clear()

    async def _round(self) -> None:
        bank = self._runtime.bank
        paths, ports = [], []
        for service in self._open():
            bank.keep_backlogs(service)
            self._look(service.name)
            paths += [(service.name, path, file) for _, path, file in bank.paths(service)]
            ports += [(service.name, port) for port in bank.numbers(service)]
        if paths:
            self._paths(await asyncio.to_thread(_gone, paths))
        found = await asyncio.to_thread(_listening, ports) if ports else {}
        for service in self._open():
            await self._strangers(service, found.get(service.name, ()))

    def _open(self) -> list[Service]:
        engine = self._runtime.engine
        return [
            engine.services[name] for name in list(engine.open_lanes) if name in engine.services
        ]

    # -- shut down, or without a path

    def _look(self, name: str) -> None:
        """Find those that listen no more."""
        service = self._runtime.engine.services.get(name)
        if service is None or not service.listen or name not in self._runtime.engine.open_lanes:
            return
        if closed := self._runtime.bank.closed(service):
            addresses = {x.name: x.address for x in service.listen}
            lost = tuple(f"{addresses[x]} (lane {lane}) was shut down" for x, lane in closed)
            self._runtime.dispatch(SocketsLost(name, lost))

    def _paths(self, gone: Iterable[tuple[str, str, str]]) -> None:
        for name, path, state in gone:
            if state == "taken":
                if path not in self._taken:
                    self._taken.add(path)
                    text = f"{path} is somebody else's now: clients do not reach {name} there"
                    self._runtime.record(Kind.SOCKETS_FAILED, name, detail=text)
                continue
            self._taken.discard(path)
            lost = (f"unix:{path} was removed",)
            self._runtime.dispatch(SocketsLost(name, lost, anew=state == "anew"))

    def mend(self, name: str, anew: bool) -> None:
        """Carry out what the engine has decided."""
        runtime, service = self._runtime, self._runtime.service(name)
        try:
            for _, path, file in runtime.bank.paths(service):
                if not os.path.lexists(path) and file.is_at(binding.spare_name(path)):
                    binding.link_back(path, file)
            moved = runtime.bank.listen_again(service)
            if anew:
                runtime.bank.open_anew(service)
        except OSError as error:  # told with the next look as well, and tried again
            runtime.record(Kind.SOCKETS_FAILED, name, detail=error.strerror or str(error))
            return
        runtime.bank.keep_backlogs(service)
        if moved:
            runtime.dispatch(SocketsMoved(name))

    # -- strangers

    async def _strangers(self, service: Service, found: Iterable[tuple[int, str, int]]) -> None:
        """``found``: port, host and inode of all that listen on its ports."""
        name, runtime = service.name, self._runtime
        if not runtime.bank.steerable(service):
            return  # sockets of its own that could not be taken back look the same
        ours = {inode for inodes in runtime.bank.numbers(service).values() for inode in inodes}
        addresses = [parse_address(x.address) for x in service.listen]
        there = {}
        for port, host, inode in found:
            where = parse_address(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            if inode not in ours and any(where.overlaps(own) for own in addresses):
                there[inode] = f"{host}:{port}"
        before, self._seen[name] = self._seen.get(name, frozenset()), frozenset(there)
        sure = before & frozenset(there)
        if sure == self._told.get(name, frozenset()):
            return
        self._told[name] = sure
        holders = await asyncio.to_thread(_holders, sure)
        strangers = tuple(self._stranger(name, there[inode], holders.get(inode)) for inode in sure)
        runtime.dispatch(Strangers(name, strangers))

    def _stranger(self, name: str, where: str, holder: tuple[int, str] | None) -> Stranger:
        if holder is None:
            return Stranger(f"somebody listens on {where} as well and may get clients of {name}")
        pid, program = holder
        owner = self._runtime.ears.belongs(pid)
        who = f"{program} (pid {pid})"
        if owner is None or owner.slot.service != name:
            return Stranger(f"{who} listens on {where} as well and may get clients of {name}")
        text = (
            f"{who} listens on {where} by itself and does not take the socket that everup gave it, "
            "where its clients wait: use port instead of listen, or have it take that socket"
        )
        return Stranger(text, owner.slot, owner.run)


def _gone(paths: list[tuple[str, str, binding.File]]) -> list[tuple[str, str, str]]:
    """Service, path and what is the matter: ``back`` (there is a spare name), ``anew`` (there is
    none) or ``taken``. Gives those that are well a spare name."""
    found = []
    for name, path, file in paths:
        spare = binding.spare_name(path)
        if file.is_at(path):
            if not file.is_at(spare):
                binding.keep_spare(path, file)
        elif os.path.lexists(path):
            found.append((name, path, "taken"))
        else:
            found.append((name, path, "back" if file.is_at(spare) else "anew"))
    return found


def _listening(ports: list[tuple[str, int]]) -> dict[str, list[tuple[int, str, int]]]:
    """By service: port, host and inode of everybody who listens on its ports."""
    found: dict[str, list[tuple[int, str, int]]] = {}
    for name, port in ports:
        for one in sock_diag.listening(port, _FAMILIES) or ():
            found.setdefault(name, []).append((port, one.host, one.inode))
    return found


def _holders(inodes: Iterable[int]) -> dict[int, tuple[int, str]]:
    """Pid and name of a process that has each of these sockets, as far as can be seen."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, tuple[int, str]] = {}
    for pid in os.listdir("/proc") if wanted else ():
        if not pid.isdigit() or len(found) == len(wanted):
            continue
        with contextlib.suppress(OSError):
            for fd in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    inode = wanted.get(os.readlink(f"/proc/{pid}/fd/{fd}"))
                    if inode is not None and inode not in found:
                        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                            found[inode] = (int(pid), file.read().strip())
    return found
