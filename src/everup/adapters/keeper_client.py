"""The engine's side of the talk with the keeper, and all that a new one would have to know."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from everup.adapters import proof
from everup.adapters.cgroups import home_name
from everup.adapters.fdstore import FdStore
from everup.keeper import wire
from everup.keeper.estate import Estate, Record
from everup.keeper.spawn import start_ticks

_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ETOOMANYREFS)
_SHORT_S = 0.05
_FUSE = "fuse:"
"""Of these none may outlive keeper and engine: their end is what they are for."""
_MADE_ANEW = ("notify", "api", "lock")
"""Sockets that an everup which comes after the death of both processes makes anew."""

Handler = Callable[[wire.Message, list[int]], None]


class KeeperClient:
    """Sends requests in order and hands every report to ``handle``. ``lost`` is called when the
    keeper is gone; what is sent from then on is dropped.

    It keeps a duplicate of every descriptor that the keeper holds and a list of its children, so
    that both outlive the keeper (``estate``). ``store``: systemd's, where everup runs under it.
    """

    def __init__(
        self,
        sock: socket.socket,
        handle: Handler,
        lost: Callable[[], None],
        store: FdStore | None = None,
    ) -> None:
        self._sock = sock
        self._handle = handle
        self._lost = lost
        self._store = store
        self._queue: deque[tuple[wire.Message, list[int]]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held: dict[str, int] = {}
        self._lacking: set[str] = set()
        self.heard: Callable[[], None] = lambda: None
        """Called with each message, also those that only say that the keeper lives."""
        self._children: dict[str, Record] = {}
        self._asked: dict[str, Record] = {}

    @classmethod
    def from_fd(
        cls, fd: int, handle: Handler, lost: Callable[[], None], store: FdStore | None = None
    ) -> "KeeperClient":
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        os.set_inheritable(fd, False)
        return cls(sock, handle, lost, store)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.add_reader(self._sock.fileno(), self._readable)

    def gone(self) -> None:
        """Take the keeper for gone, though its end of the socket is still open."""
        if self._sock.fileno() >= 0:
            self.close()
            self._lost()

    def close(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        while self._queue:
            _close(self._queue.popleft()[1])

    def _readable(self) -> None:
        for _ in range(64):  # then let the others have their turn
            try:
                message, fds = wire.receive(self._sock)
            except BlockingIOError:
                return
            except wire.ClosedError:
                self.close()
                self._lost()
                return
            except wire.CutError as error:  # out of descriptors: the others are still to come
                self._lacking.add(str(error.message.get("name")))
                self._handle(error.message, [])
                continue
            self.heard()
            if message["ev"] == "alive":
                continue
            self._note(message, fds)
            self._handle(message, fds)

    def _send(self, message: wire.Message, fds: Sequence[int] = (), ours: int = 0) -> None:
        """Send, or queue behind what waits. The first ``ours`` descriptors are ours to close."""
        if not self._queue:
            try:
                wire.send(self._sock, message, fds)
                _close(fds[:ours])
                return
            except (wire.ClosedError, OSError) as error:
                if not self._later(error):
                    _close(fds[:ours])
                    return  # the reader sees it too and tells
        # Every message has an action of the engine behind it, so the queue is bounded by those.
        copies = [*fds[:ours], *(os.dup(fd) for fd in fds[ours:])]
        self._queue.append((message, copies))

    def _later(self, error: Exception) -> bool:
        """See to it that sending is tried again; False: there is no use in it."""
        assert self._loop is not None
        if isinstance(error, BlockingIOError):
            self._loop.add_writer(self._sock.fileno(), self._writable)
            return True
        if isinstance(error, OSError) and error.errno in _SHORT:
            self._loop.call_later(_SHORT_S, self._writable)
            return True
        return False

    def _writable(self) -> None:
        if self._sock.fileno() < 0:
            return
        assert self._loop is not None
        self._loop.remove_writer(self._sock.fileno())
        while self._queue:
            message, fds = self._queue[0]
            try:
                wire.send(self._sock, message, fds)
            except (wire.ClosedError, OSError) as error:
                if self._later(error):
                    return
            self._queue.popleft()  # where nobody listens any more it goes the same way
            _close(fds)

    def spawn(
        self,
        child_id: str,
        request: Mapping[str, Any],
        *,
        given: Mapping[int, int],
        held: Mapping[int, str],
        meta: Mapping[str, Any],
        hold: Mapping[str, int] | None = None,
    ) -> None:
        """``given``: descriptors by their number in the child, closed here once sent; ``held``:
        the same by their name at the keeper; ``hold``: more for the keeper to hold from now on,
        which stay ours as well."""
        hold = hold or {}
        fds = list(dict.fromkeys(given.values()))
        index = {fd: position for position, fd in enumerate(fds)}
        message = {
            **request,
            "op": "spawn",
            "id": child_id,
            "given": {str(number): index[fd] for number, fd in given.items()},
            "held": {str(number): name for number, name in held.items()},
            "hold": list(hold),
            "meta": meta,
        }
        for name, fd in hold.items():
            self._keep(name, fd)
            self._shelve(name, fd)
        record: Record = {"id": child_id, "meta": dict(meta), "cgroup": request.get("cgroup")}
        record["uid"] = request.get("uid", os.getuid())
        if until := request.get("until"):
            record["until"] = until
        self._asked[child_id] = record | ({"respawn": True} if request.get("respawn") else {})
        self._send(message, [*fds, *hold.values()], ours=len(fds))

    def signal(self, child_id: str, number: int, scope: str) -> None:
        if child_id in self._children:
            self._children[child_id]["signalled"] = True
            if number == signal.SIGKILL and scope == "all":
                self._children[child_id]["rest"] = 0
        self._send({"op": "signal", "id": child_id, "sig": number, "scope": scope})

    def give_time(self, child_id: str, number: int) -> None:
        """It is about to be stopped: see ``Children.give_time``."""
        if child_id in self._children:
            self._children[child_id] |= {"signalled": True, "rest": number}
        self._send({"op": "rest", "id": child_id, "sig": number})

    def bound(self, child_id: str, until: float) -> None:
        """Everything of it is killed at ``until`` (CLOCK_BOOTTIME) unless another time comes."""
        for known in (self._children, self._asked):
            if child_id in known:
                known[child_id]["until"] = until
        self._send({"op": "until", "id": child_id, "until": until})

    def ack(self, child_id: str) -> None:
        """Its end is in the journal: the keeper may forget it."""
        self._children.pop(child_id, None)
        self._send({"op": "ack", "id": child_id})

    def hold(self, names: Sequence[str], fds: Sequence[int]) -> None:
        """Have the keeper hold more; they stay ours as well."""
        for name, fd in zip(names, fds, strict=True):
            self._keep(name, fd)
            self._shelve(name, fd)
        for start in range(0, len(names), wire.MAX_FDS - 4):
            end = start + wire.MAX_FDS - 4
            self._send({"op": "hold", "names": list(names[start:end])}, fds[start:end])

    def drop(self, names: Sequence[str]) -> None:
        """The keeper need not hold these any more. ("lock" it always holds.)"""
        for name in names:
            if name != "lock":
                self._lacking.discard(name)
                if (fd := self._held.pop(name, None)) is not None:
                    os.close(fd)
                if self._store is not None and name not in _MADE_ANEW:
                    self._store.remove(name)
        self._send({"op": "drop", "names": list(names)})

    def main_pid(self, child_id: str, pid: int) -> None:
        """The main process of a child is another one now."""
        if child_id in self._children:
            self._children[child_id] |= {"pid": pid, "start": start_ticks(pid)}
        self._send({"op": "main", "id": child_id, "pid": pid})

    def quit(self, status: int) -> None:
        self._send({"op": "quit", "status": status})

    def alive(self) -> None:
        """To be said every second: a keeper that misses it for long takes us to hang."""
        if not self._queue:
            self._send({"op": "alive"})

    def begun(self) -> None:
        """To be said once: this engine has taken everything over."""
        self._send({"op": "begun"})

    def reexec(self, argv: Sequence[str], engine: Sequence[str]) -> None:
        """Once this engine has left, become the keeper that ``argv`` names (interpreter, options,
        file), which starts ``engine``. Where that cannot be executed the keeper goes on as it is,
        starts its own engine again, and says so in the notes of its hello."""
        self._send({"op": "reexec", "argv": list(argv), "engine": list(engine)})

    # -- what would be left if the keeper died

    def held_fd(self, name: str) -> int | None:
        """Our own duplicate of what the keeper holds under ``name``; not to be closed."""
        return self._held.get(name)

    @property
    def unanswered(self) -> dict[str, dict[str, Any]]:
        """The meta of each child that was asked for, by id, until the keeper has answered."""
        return {child_id: record["meta"] for child_id, record in self._asked.items()}

    def pids(self) -> set[int]:
        """The main processes that the keeper has told of."""
        return {record["pid"] for record in self._children.values()}

    def asked_for(self, child_id: str, pid: int, state_dir: str) -> bool:
        """Whether a process that calls itself a child among ``unanswered`` is that child: it runs
        as the user that it was to be, and is in the control group or has one of the pipes that it
        was given (if any)."""
        record = self._asked.get(child_id, {})
        uid = proof.real_uid(pid)
        if not proof.uid_fits(uid, record.get("uid")):
            return False
        meta, group = record["meta"], record.get("cgroup")
        names = [f"pipe:{meta['slot']}:{meta.get('pipes')}:{end}" for end in ("out", "err")]
        pipes = [os.fstat(self._held[name]).st_ino for name in names if name in self._held]
        if not pipes and group is None:
            return bool(uid == record["uid"])
        return proof.holds(pid, {"pipe:": pipes}) or (
            group is not None
            and proof.in_group(pid, home_name(state_dir), [os.path.basename(group)])
        )

    def born(self, child_id: str, meta: Mapping[str, Any], pid: int, start: int) -> Record:
        """For ``estate``: a child among ``unanswered`` that was found to be there."""
        asked = self._asked.get(child_id, {"id": child_id, "meta": dict(meta)})
        return asked | _identity(pid, start)

    def estate(
        self,
        *,
        engine_starts: int,
        after: int | None = None,
        more: Sequence[Record] = (),
        notes: Sequence[Sequence[str]] = (),
    ) -> Estate:
        """All that the keeper knew, for the next. Its descriptors stay ours; the locked file
        ("lock") goes another way and is left out."""
        lost = [[name, "its descriptor could not be kept"] for name in sorted(self._lacking)]
        return Estate(
            held={name: fd for name, fd in self._held.items() if name != "lock"},
            children=[*self._children.values(), *more],
            engine_starts=engine_starts,
            after=after,
            notes=[*notes, *lost],
        )

    def _shelve(self, name: str, fd: int) -> None:
        """systemd keeps it as well, for an everup that comes after all of this one has died."""
        if self._store is not None and name not in _MADE_ANEW and not name.startswith(_FUSE):
            self._store.push(name, fd)

    def _keep(self, name: str, fd: int) -> None:
        before = self._held.pop(name, None)
        self._lacking.discard(name)
        try:
            self._held[name] = os.dup(fd)
        except OSError:  # out of descriptors: no reason not to go on
            self._lacking.add(name)
        if before is not None:
            os.close(before)

    def _note(self, message: wire.Message, fds: Sequence[int]) -> None:
        """Learn from a report what a new keeper would have to know."""
        match message["ev"]:
            case "hello":
                self._children = {child["id"]: dict(child) for child in message["children"]}
            case "held":
                self._keep(message["name"], fds[0])
            case "spawned":
                asked = self._asked.pop(message["id"], None)
                if asked is not None:  # else its start was asked for by an engine before us
                    born = _identity(message["pid"], message["start"])
                    self._children[message["id"]] = asked | born
            case "failed":
                self._asked.pop(message["id"], None)
            case "exit" | "left" as what:
                record = self._children.get(message["id"])
                if record is not None:
                    record[what] = dict(message)


def _identity(pid: int, start: int) -> Record:
    """Of a process that the keeper has just started: it leads its session."""
    return {"pid": pid, "start": start, "leader": pid, "leader_start": start}


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        with contextlib.suppress(OSError):
            os.close(fd)
