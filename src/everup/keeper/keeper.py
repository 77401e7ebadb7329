"""The keeper: holds sockets, pipes and children, and decides nothing.

It spawns, signals, reaps and reports as the engine asks, and starts the engine again when that
dies. Everything it knows of a child beyond its pid is opaque text that the engine gave it.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable

from everup.keeper import birth, remains, spawn, succession, voice, wire
from everup.keeper.children import Child, Children, subreaper
from everup.keeper.deadlines import Deadlines
from everup.keeper.doomed import DOOMED, Doomed
from everup.keeper.escaped import Escaped, told
from everup.keeper.estate import Estate
from everup.keeper.link import Link
from everup.keeper.remains import Remains
from everup.keeper.spawn import SpawnError, start_ticks
from everup.keeper.starts import Starts, status_text
from everup.keeper.strangers import LOOK_S, Strangers, own
from everup.keeper.succession import FORWARDED, LOCK
from everup.keeper.vigil import BEAT_S, HUNG_S, Vigil
from everup.keeper.voice import say

_QUICK_DEATH_S = 1.0
_MAX_ENGINE_DELAY_S = 5.0
_LEAVE_S = 10.0
ENGINE_FD = 3
_OUT_OF_MEMORY = 71
_MAIN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "__main__.py")


class Keeper:
    """The whole of it: one epoll loop."""

    def __init__(
        self, engine_argv: list[str], meta: wire.Message, lock: int, estate: Estate
    ) -> None:
        self.engine_argv = engine_argv
        self.meta = meta
        self.estate = estate
        self.held = {**estate.held, LOCK: lock}
        self.notes = [list(note) for note in estate.notes]
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.link = Link(self.epoll, self.handlers, self._request)
        self.nursery = birth.Nursery()
        self.engine_pid = 0
        own = lambda: (self.engine_pid, self.nursery.pid)  # noqa: E731
        tell = lambda child, pids: self.link.send(told(child, pids))  # noqa: E731
        self.children = Children(Escaped(meta.get("state_dir"), self.held, own), tell)
        self.strangers = Strangers(self.watch, self.unwatch, self.ended)
        self.deadlines = Deadlines(self.children)
        self.wake = -1
        self.remains = Remains(self.children, self.link.send, self._all_ended)
        self.hung_s = float(meta.get("hung_s", HUNG_S))
        self.vigil = Vigil(self.hung_s)
        self.doomed = Doomed(os.environ.pop(DOOMED, ""))
        self.beat_due = 0.0
        self.before = -1  # pidfd of an engine that has yet to leave before ours can start
        self.engine_started = 0.0
        self.engine_delay_s = 0.0
        self.engine_due: float | None = 0.0
        self.engine_starts = estate.engine_starts
        self.starts = Starts()
        self.last_signal: int | None = estate.signal
        self.exit_status: int | None = None
        self.leaving: int | None = None
        self.successor: tuple[list[str], list[str]] | None = None
        self.leave_by: float | None = None

    # -- the loop

    def run(self) -> int:
        subreaper()
        with contextlib.suppress(OSError):  # then it is tried again with the first birth
            self.nursery.start()
        self.wake, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (*FORWARDED, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        spawn.ignore_terminals()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # an exec may have come before
        self.watch(self.wake, self.on_signals)
        succession.inherit(self)
        gc.collect()
        gc.freeze()  # the children share these pages; a collection must not copy them
        while self.exit_status is None:
            now = time.monotonic()
            _guarded(lambda now=now: self._on_time(now))  # type: ignore[misc]
            for fd, _events in self.epoll.poll(self._wait_s(now)):
                handler = self.handlers.get(fd)
                if handler is not None:
                    _guarded(handler)
        return self.exit_status

    def _on_time(self, now: float) -> None:
        self.deadlines.enforce()
        if self.engine_due is not None and now >= self.engine_due:
            if self.successor is not None:
                succession.become(self)
            self._start_engine()
        self.nursery.discard(now)
        self.strangers.look()
        self.remains.look()
        if self.leave_by is not None and now >= self.leave_by:
            self.leave_by = None
            self.kill_engine()
        if why := self.vigil.hung(now):
            succession.judge(self, why)
        if self.engine_pid and now >= self.beat_due:
            self.beat_due = now + BEAT_S
            self.link.beat()
            voice.flush()

    def _wait_s(self, now: float) -> float:
        waits = [due - now for due in (self.engine_due, self.leave_by) if due is not None]
        if self.nursery.bodies:
            waits.append(birth.BODY_S)
        if self.strangers.blind:
            waits.append(LOOK_S)
        if self.remains:
            waits.append(remains.LOOK_S)
        if (tick := self.vigil.wait_s(now)) is not None:
            waits.append(tick)
        if (due := self.deadlines.wait_s()) is not None:
            waits.append(due)
        if self.engine_pid:
            waits.append(self.beat_due - now)
        return max(0.0, min(waits)) if waits else -1.0

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        self.handlers[fd] = handler
        self.epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        if self.handlers.pop(fd, None) is not None:
            self.epoll.unregister(fd)

    # -- the engine

    def _start_engine(self) -> None:
        self.engine_started = time.monotonic()
        try:
            ours = self._bear_engine()
        except (SpawnError, OSError) as error:
            say(f"cannot start the engine: {error}")
            self._engine_later()
            return
        self.vigil.watch(self.engine_pid, time.monotonic())
        self.engine_due = None
        self.engine_starts += 1
        self.link.open(ours)
        self.link.send(
            {
                "ev": "hello",
                "keeper": os.getpid(),
                "engine_starts": self.engine_starts,
                "meta": self.meta,
                "held": list(self.held),
                "children": [child.describe() for child in self.children.known()],
                "notes": self.notes,
                "argv": [sys.executable, "-I", "-S", _MAIN],
                "engine": self.engine_argv,
                "found": spawn.found(),
            }
        )
        for name, fd in self.held.items():
            self.link.send({"ev": "held", "name": name}, [fd])
        if self.last_signal is not None:
            self.link.send({"ev": "signal", "sig": self.last_signal, "again": True})

    def _bear_engine(self) -> socket.socket:
        ours, theirs = wire.pair()
        try:
            directory = os.getcwd()
        except FileNotFoundError:  # where we were started is gone
            directory = "/"
        request = {
            "argv": self.engine_argv,
            "env": dict(os.environ, **self.starts.told(ENGINE_FD, self.hung_s, self.doomed)),
            "cwd": directory,
            "nofile": "ours",
            "oom": "ours",
        }
        sources = {0: 0, 1: 1, 2: 2, ENGINE_FD: theirs.fileno()}
        try:
            self.engine_pid, report = self.nursery.body(None).become(request, sources)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        os.close(report)
        return ours

    def _engine_later(self) -> None:
        """Restart at once, unless it dies as soon as it starts."""
        if time.monotonic() - self.engine_started > _QUICK_DEATH_S:
            self.engine_delay_s = 0.0
        self.engine_due = time.monotonic() + self.engine_delay_s
        self.engine_delay_s = min(_MAX_ENGINE_DELAY_S, max(0.1, self.engine_delay_s * 2))

    def kill_engine(self) -> None:
        """SIGKILL; its end is seen by ``reap``, or not at all while a disk does not answer."""
        self.vigil.killed()
        with contextlib.suppress(ProcessLookupError):
            if self.before >= 0:
                signal.pidfd_send_signal(self.before, signal.SIGKILL)
            elif self.engine_pid:
                os.kill(self.engine_pid, signal.SIGKILL)

    def engine_ended(self, status: int) -> None:
        self.link.readable()  # what it said before
        self.link.close()
        self.engine_pid, self.leave_by = 0, None
        self.vigil.stop()
        if self.leaving is not None:
            self.children.end_unclaimed(say)
            self.exit_status = self.leaving
            return
        if self.successor is not None:
            self.engine_due = time.monotonic()
            return
        idle = not self.children.alive() and self.held.keys() <= {LOCK}
        if idle and os.WIFEXITED(status):
            # It gave everything back and left (or never came up): there is nothing to keep.
            self.exit_status = os.WEXITSTATUS(status)
            return
        say(f"the engine ended ({status_text(status)}); starting it again, services go on")
        self.starts.ended(status)
        self._engine_later()

    # -- requests

    def _request(self, message: wire.Message, fds: list[int]) -> None:
        self.vigil.heard()
        try:
            self._handle(message, fds)
        except Exception:
            for fd in set(fds) - set(self.held.values()):
                with contextlib.suppress(OSError):
                    os.close(fd)
            raise

    def _handle(self, message: wire.Message, fds: list[int]) -> None:
        match message["op"]:
            case "spawn":
                self._spawn(message, fds)
            case "signal":
                self.children.signal(message["id"], message["sig"], message["scope"])
            case "rest":
                self.children.give_time(message["id"], message["sig"])
            case "until":
                self.deadlines.set(message["id"], message["until"])
            case "ack":
                self.children.forget(message["id"])
            case "hold":
                for name, fd in zip(message["names"], fds, strict=True):
                    self._hold(name, fd)
            case "drop":
                for name in message["names"]:
                    self._drop(name)
            case "main":
                self._set_main(self.children.get(message["id"]), message["pid"])
            case "begun":
                self.starts.begun()
            case "alive":
                self.notes.clear()  # it has had them for a while
            case "beat":  # of an engine that is still loading
                pass
            case "reexec":
                self.successor = list(message["argv"]), list(message["engine"])
                self.leave_by = time.monotonic() + _LEAVE_S
            case "quit":
                # The engine has yet to close its files; who waits for us waits for it as well.
                self.leaving = message["status"]
                self.leave_by = time.monotonic() + _LEAVE_S
            case op:
                raise ValueError(f"unknown request {op!r}")

    def _hold(self, name: str, fd: int) -> None:
        if name != LOCK or succession.may_lock(fd):
            fd, self.held[name] = self.held.get(name, -1), fd
        if fd >= 0:
            os.close(fd)

    def _drop(self, name: str) -> None:
        if name != LOCK and (fd := self.held.pop(name, None)) is not None:
            os.close(fd)

    def _spawn(self, message: wire.Message, fds: list[int]) -> None:
        """``fds``: first those for this child alone, which are given to it and closed here, then
        those to hold by name."""
        child_id, names = message["id"], message["hold"]
        count = len(fds) - len(names)
        self.children.check_free(child_id)
        try:
            for name, fd in zip(names, fds[count:], strict=True):
                self._hold(name, fd)
            given = {int(number): fds[index] for number, index in message["given"].items()}
            held = {int(number): self.held[name] for number, name in message["held"].items()}
            cgroup = message.get("cgroup")
            self.deadlines.check(float(message.get("until", 0)))
            pid, report = self.nursery.body(cgroup).become(message, given | held)
        except Exception as error:  # it must not wait for an answer for ever
            number = getattr(error, "number", None) or getattr(error, "errno", None) or 0
            stage = getattr(error, "stage", "fork")
            note = {"stage": stage, "errno": number, "text": repr(error)[:300]}
            self.link.send({"ev": "failed", "id": child_id, **note})
            return
        finally:
            for fd in fds[:count]:
                os.close(fd)
        child = Child(child_id, pid, start_ticks(pid), message.get("cgroup"), message["meta"])
        child.report, child.respawn = report, bool(message.get("respawn"))
        child.uid = int(message.get("uid", child.uid))
        child.until = float(message.get("until", 0))
        self.children.add(child)
        self.watch_report(child)

    def _set_main(self, child: Child, pid: int) -> None:
        mine = own(pid)
        if child.ended_at or child.left is not None or pid <= 1 or not (mine or start_ticks(pid)):
            raise ValueError(f"{child.id} cannot have pid {pid} as its main process")
        self.strangers.release(child)
        self.children.set_main(child, pid)
        child.stranger = False
        if not mine and not self.strangers.take(child):
            self.ended(child)

    def watch_report(self, child: Child) -> None:
        self.watch(child.report, lambda: self._on_report(child))

    def _on_report(self, child: Child, ended: bool = False) -> None:
        """The exec is done, or it failed and the pipe says where."""
        try:
            text = os.read(child.report, 4096)
        except BlockingIOError:
            if not ended:
                return  # meant for whoever had this number of a descriptor before
            text = b""  # somebody else is still to close his copy
        report, child.report = child.report, -1
        self.unwatch(report)
        os.close(report)
        if text:
            child.failed = True
            self.link.send({"ev": "failed", "id": child.id, **json.loads(text)})
        else:
            self.link.send(
                {"ev": "spawned", "id": child.id, "pid": child.pid, "start": child.start}
            )

    # -- children and signals

    def on_signals(self) -> None:
        numbers = os.read(self.wake, 512)
        if signal.SIGCHLD in numbers:
            self.reap()
        for number in numbers:
            if number in FORWARDED:
                self.last_signal = number if number in (signal.SIGTERM, signal.SIGINT) else None
                self.link.send({"ev": "signal", "sig": number})

    def reap(self) -> None:
        for pid, status, child in self.children.dead():
            if child is not None:
                self.ended(child)
            elif pid == self.engine_pid:
                self.engine_ended(status)
            elif pid == self.nursery.pid:
                self.nursery.lost()

    def ended(self, child: Child) -> None:
        """Its main process has ended."""
        self.children.main_ended(child)
        self.strangers.release(child)
        if child.report >= 0:  # how it started is told before how it ended
            self._on_report(child, ended=True)
        if not self.remains.take(child):
            self._all_ended(child)

    def _all_ended(self, child: Child) -> None:
        self.children.ended(child)
        self.link.send(child.exit_report())  # first of all: the engine thinks meanwhile
        self.children.sweep(child)
        if child.respawn and not child.signalled and not child.failed:
            self.nursery.prepare(child.cgroup)


def _guarded(handler: Callable[[], None]) -> None:
    """Whatever goes wrong with one child, the others are still to be kept."""
    try:
        handler()
    except MemoryError:
        # What was under way is lost, and with it somebody's answer. The engine starts another
        # keeper, which asks anew; that is better than to know half.
        os._exit(_OUT_OF_MEMORY)
    except Exception as error:
        say(f"{type(error).__name__} in {getattr(handler, '__name__', handler)}: {error}")


def main(arguments: list[str]) -> int:
    """``keeper META_JSON -- ENGINE ARGV...``; ``keeper --try`` ends at once: it can be run."""
    if arguments == ["--try"]:
        return 0
    voice.never_wait()
    meta = json.loads(arguments[0])
    spawn.protect({name: meta.pop(name) for name in ("nofile", "oom") if name in meta})
    lock = meta.pop("lock_fd")  # held for as long as this process lives
    os.set_inheritable(lock, False)
    succession.sign(lock)
    return Keeper(arguments[2:], meta, lock, succession.read(meta.pop("estate_fd", None))).run()
