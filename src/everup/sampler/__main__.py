"""The sampler process: ``python -m everup.sampler WORDS_JSON``, started by the engine.

Whoever may connect says which processes and sockets are to be measured, and gets a line of JSON
for each look at them. It answers with numbers alone, so that an observer that somebody has taken
over learns nothing else by it.
"""

import contextlib
import json
import os
import select
import socket
import struct
import sys
import threading
import time
from typing import Any

from everup.sampler import instance, machine, peers, queues

_BEAT_FD = 3
_BEAT_S = 1.0
_DISKS_EVERY_S = 10.0
_PEERS_EVERY_S = 5.0
_MOST_LINE = 4 << 20
_MOST_INSTANCES = 5000
_UCRED = struct.Struct("3i")


class Disks:
    """Looks at the file systems in a thread: one that does not answer must not hold up the rest."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}
        self._due = 0.0
        self._busy = False

    def look(self, now: float) -> dict[str, dict[str, float]]:
        """Give what was found last, and look again where that is due."""
        if now >= self._due and not self._busy:
            self._due, self._busy = now + _DISKS_EVERY_S, True
            threading.Thread(target=self._look, daemon=True).start()
        return self.found

    def _look(self) -> None:
        with contextlib.suppress(Exception):
            self.found = dict(machine.disks())
        self._busy = False


class Listener:
    """Who is told, and what they want to know."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.interval_s = 0.0
        """0: they have not said yet."""
        self.instances: dict[str, tuple[int, str | None]] = {}
        self.inodes: frozenset[int] = frozenset()
        self.due = 0.0
        self.dropped = 0
        self.peers_due = 0.0
        self._read = b""
        self._unsent = b""

    def readable(self) -> bool:
        """Take what they say; False: they are gone, or make no sense."""
        try:
            data = self.sock.recv(1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._read += data
        if not data or len(self._read) > _MOST_LINE:
            return False
        *lines, self._read = self._read.split(b"\n")
        for line in lines:
            try:
                self._take(json.loads(line))
            except (ValueError, TypeError, KeyError, AttributeError):
                return False
        return True

    def _take(self, asked: dict[str, Any]) -> None:
        self.interval_s = min(3600.0, max(0.1, float(asked["interval_s"])))
        found = {}
        for name, (pid, group) in list(asked["instances"].items())[:_MOST_INSTANCES]:
            found[str(name)] = (int(pid), _group(group))
        self.instances = found
        self.inodes = frozenset(int(inode) for inode in asked["inodes"])

    def tell(self, line: bytes) -> bool:
        """Send; what they are too slow for is dropped whole, and counted. False: they are gone."""
        if self._unsent:
            self.dropped += 1
        else:
            self._unsent = line
        try:
            self._unsent = self._unsent[self.sock.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True


def _group(path: Any) -> str | None:
    """A directory below /sys/fs/cgroup, or none."""
    if not isinstance(path, str) or not path.startswith("/sys/fs/cgroup/") or "/.." in path:
        return None
    return path


def sample(listener: Listener, disks: Disks) -> bytes:
    """Measure what one listener wants to know."""
    began = time.monotonic()
    grouped = all(group for _, group in listener.instances.values())
    children = {} if grouped else instance.children_of_all()
    found, connected = {}, {}
    far_ends: dict[int, str] = {}
    if began >= listener.peers_due:
        listener.peers_due = began + _PEERS_EVERY_S
        with contextlib.suppress(OSError):
            far_ends = peers.remotes()
    for name, (pid, group) in listener.instances.items():
        pids = instance.members(pid, group, children)
        if far_ends and (ends := peers.peers(pids, far_ends)):
            connected[name] = ends
        if numbers := instance.measure(pids, pid, group):
            found[name] = numbers
    waiting: dict[int, tuple[int, int]] = {}
    if listener.inodes:
        with contextlib.suppress(OSError):
            waiting = queues.queues()
    told = {
        "at": time.time(),
        "mono": began,
        "machine": machine.machine(),
        "instances": found,
        "queues": {str(n): waiting[n] for n in listener.inodes if n in waiting},
        "disks": disks.look(began),
        "peers": connected,
        "dropped": listener.dropped,
        "took_s": time.monotonic() - began,
    }
    return json.dumps(told, separators=(",", ":")).encode() + b"\n"


def serve(sock: socket.socket, uids: frozenset[int]) -> None:
    """Serve until nobody is left to do it for."""
    listeners: list[Listener] = []
    disks, beat = Disks(), 0.0
    while True:
        now = time.monotonic()
        if now >= beat:
            beat = now + _BEAT_S
            if not _beat():
                return
        for one in listeners:
            if one.interval_s and now >= one.due:
                one.due = max(one.due + one.interval_s, now)
                if not one.tell(sample(one, disks)):
                    one.due = float("inf")
                    one.sock.close()
        listeners = [one for one in listeners if one.sock.fileno() >= 0]
        due = min([beat, *(one.due for one in listeners if one.interval_s)])
        timeout_s = max(0.0, due - time.monotonic())
        ready = select.select([sock, *(one.sock for one in listeners)], [], [], timeout_s)[0]
        if sock in ready:
            _accept(sock, uids, listeners)
        for one in listeners:
            if one.sock in ready and not one.readable():
                one.sock.close()
        listeners = [one for one in listeners if one.sock.fileno() >= 0]


def _accept(sock: socket.socket, uids: frozenset[int], listeners: list[Listener]) -> None:
    with contextlib.suppress(OSError):
        peer, _ = sock.accept()
        raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        if _UCRED.unpack(raw)[1] not in uids or len(listeners) >= 8:
            peer.close()
            return
        peer.setblocking(False)
        listeners.append(Listener(peer))


def _beat() -> bool:
    try:
        os.write(_BEAT_FD, b".")
    except BlockingIOError:
        return True
    except OSError:  # neither a keeper nor an engine is left
        return False
    return True


def main() -> int:
    """Run until everup ends."""
    words = json.loads(sys.argv[1])
    path = os.path.join(words["place"]["run_dir"], "sampler.sock")
    os.set_blocking(_BEAT_FD, False)
    for fd in (_BEAT_FD, _BEAT_FD + 1):
        os.set_inheritable(fd, False)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    uid, gid = words["uid"], words["gid"]
    before = os.umask(0o777 & ~(0o600 if uid is None else 0o660))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(path)
    os.umask(before)
    if uid is not None:
        os.chown(path, -1, gid)  # nobody else may write into the directory
    sock.listen(8)
    sock.setblocking(False)
    serve(sock, frozenset({0, os.getuid()} | ({uid} if uid is not None else set())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
