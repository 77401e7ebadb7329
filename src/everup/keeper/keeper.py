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
from collections import deque
from collections.abc import Callable
from typing import Any

from everup.keeper import spawn, wire
from everup.keeper.birth import Body, Nursery
from everup.keeper.children import Child, Children, subreaper, sweep
from everup.keeper.spawn import SpawnError, start_ticks

_FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_QUICK_DEATH_S = 1.0
_MAX_ENGINE_DELAY_S = 5.0
_BODY_S = 0.2
_LEAVE_S = 10.0
_MAX_BODIES = 4
ENGINE_FD = 3


class Keeper:
    """The whole of it: one epoll loop."""

    def __init__(self, engine_argv: list[str], meta: dict[str, Any]) -> None:
        self.engine_argv = engine_argv
        self.meta = meta
        self.held: dict[str, int] = {}
        self.children = Children()
        self.nursery = Nursery()
        self.bodies: dict[str | None, Body] = {}
        self.epoll = select.epoll()
        self.handlers: dict[int, Callable[[], None]] = {}
        self.control: socket.socket | None = None
        self.outbox: deque[tuple[wire.Message, list[int]]] = deque()
        self.engine_pid = 0
        self.engine_started = 0.0
        self.engine_delay_s = 0.0
        self.engine_due: float | None = 0.0
        self.engine_starts = 0
        self.last_signal: int | None = None
        self.exit_status: int | None = None
        self.leaving: int | None = None
        self.leave_by = 0.0

    # -- the loop

    def run(self) -> int:
        subreaper()
        self.nursery.start()
        wake_read, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (*_FORWARDED, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._watch(wake_read, lambda: self._on_signals(wake_read))
        gc.collect()
        gc.freeze()  # the children share these pages; a collection must not copy them
        while self.exit_status is None:
            now = time.monotonic()
            if self.engine_due is not None and now >= self.engine_due:
                self._start_engine()
            wait = -1.0 if self.engine_due is None else max(0.0, self.engine_due - now)
            if self.bodies:
                self._discard_bodies(now)
                wait = _BODY_S if wait < 0 else min(wait, _BODY_S)
            if self.leaving is not None:
                wait = max(0.0, self.leave_by - now)
                if wait == 0.0:
                    os.kill(self.engine_pid, signal.SIGKILL)
                    wait = 1.0
            for fd, _events in self.epoll.poll(wait):
                handler = self.handlers.get(fd)
                if handler is not None:
                    _guarded(handler)
        return self.exit_status

    def _watch(self, fd: int, handler: Callable[[], None]) -> None:
        self.handlers[fd] = handler
        self.epoll.register(fd, select.EPOLLIN)

    def _unwatch(self, fd: int) -> None:
        if self.handlers.pop(fd, None) is not None:
            self.epoll.unregister(fd)

    def _discard_bodies(self, now: float) -> None:
        for cgroup, body in list(self.bodies.items()):
            if now - body.made_at > _BODY_S:
                del self.bodies[cgroup]
                body.discard()

    # -- the engine

    def _start_engine(self) -> None:
        ours, theirs = wire.pair()
        environment = dict(os.environ, EVERUP_KEEPER_FD=str(ENGINE_FD))
        request = {
            "argv": self.engine_argv,
            "env": environment,
            "cwd": os.getcwd(),
            "nofile": "ours",
        }
        sources = {0: 0, 1: 1, 2: 2, ENGINE_FD: theirs.fileno()}
        self.engine_started = time.monotonic()
        try:
            self.engine_pid, report = Body(self.nursery, None).become(request, sources)
        except (SpawnError, OSError) as error:
            _say(f"cannot start the engine: {error}")
            ours.close()
            self._engine_later()
            return
        finally:
            theirs.close()
        os.close(report)
        self.engine_due = None
        self.engine_starts += 1
        self.control = ours
        self._watch(ours.fileno(), self._on_control)
        self._send(
            {
                "ev": "hello",
                "keeper": os.getpid(),
                "engine_starts": self.engine_starts,
                "meta": self.meta,
                "held": list(self.held),
                "children": [child.describe() for child in self.children.known()],
            }
        )
        for name, fd in self.held.items():
            self._send({"ev": "held", "name": name}, [fd])
        if self.last_signal is not None:
            self._send({"ev": "signal", "sig": self.last_signal, "again": True})

    def _engine_later(self) -> None:
        """Restart at once, unless it dies as soon as it starts."""
        if time.monotonic() - self.engine_started > _QUICK_DEATH_S:
            self.engine_delay_s = 0.0
        self.engine_due = time.monotonic() + self.engine_delay_s
        self.engine_delay_s = min(_MAX_ENGINE_DELAY_S, max(0.1, self.engine_delay_s * 2))

    def _lose_control(self) -> None:
        if self.control is not None:
            self._unwatch(self.control.fileno())
            self.control.close()
            self.control = None
        self.outbox.clear()

    def _engine_ended(self, status: int) -> None:
        self._lose_control()
        self.engine_pid = 0
        if self.leaving is not None:
            self.exit_status = self.leaving
            return
        if not self.children.alive() and not self.held and os.WIFEXITED(status):
            # It gave everything back and left (or never came up): there is nothing to keep.
            self.exit_status = os.WEXITSTATUS(status)
            return
        _say(f"the engine ended ({_status_text(status)}); starting it again, services go on")
        self._engine_later()

    def _on_control(self) -> None:
        while self.control is not None:
            try:
                message, fds = wire.receive(self.control)
            except BlockingIOError:
                break
            except wire.ClosedError:
                self._lose_control()
                return
            except ValueError as error:
                self._send({"ev": "error", "text": f"no message: {error!r}"[:300]})
                continue
            try:
                self._handle(message, fds)
            except Exception as error:
                for fd in set(fds) - set(self.held.values()):
                    with contextlib.suppress(OSError):
                        os.close(fd)
                self._send({"ev": "error", "text": f"{message.get('op')}: {error!r}"[:300]})
        self._flush()

    def _send(self, message: wire.Message, fds: list[int] | None = None) -> None:
        self.outbox.append((message, fds or []))
        self._flush()

    def _flush(self) -> None:
        """Send what waits. What an engine does not read stays here; a new engine is told the
        state afresh, so the queue is bounded by what one engine asked for."""
        if self.control is None:
            self.outbox.clear()
            return
        mask = select.EPOLLIN
        while self.outbox:
            message, fds = self.outbox[0]
            try:
                wire.send(self.control, message, fds)
            except BlockingIOError:
                mask |= select.EPOLLOUT
                break
            except wire.ClosedError:
                self._lose_control()
                return
            self.outbox.popleft()
        self.epoll.modify(self.control.fileno(), mask)

    # -- requests

    def _handle(self, message: wire.Message, fds: list[int]) -> None:
        match message["op"]:
            case "spawn":
                self._spawn(message, fds)
            case "signal":
                self.children.signal(message["id"], message["sig"], message["scope"])
            case "ack":
                self.children.forget(message["id"])
            case "hold":
                for name, fd in zip(message["names"], fds, strict=True):
                    self._drop(name)
                    self.held[name] = fd
            case "drop":
                for name in message["names"]:
                    self._drop(name)
            case "main":
                self.children.set_main(message["id"], message["pid"])
            case "quit":
                # The engine has yet to close its files; who waits for us waits for it as well.
                self.leaving = message["status"]
                self.leave_by = time.monotonic() + _LEAVE_S
            case op:
                raise ValueError(f"unknown request {op!r}")

    def _drop(self, name: str) -> None:
        fd = self.held.pop(name, None)
        if fd is not None:
            os.close(fd)

    def _spawn(self, message: wire.Message, fds: list[int]) -> None:
        """``fds``: first those for this child alone, which are given to it and closed here, then
        those to hold by name."""
        child_id, names = message["id"], message["hold"]
        own = len(fds) - len(names)
        self.children.check_free(child_id)
        try:
            for name, fd in zip(names, fds[own:], strict=True):
                self._drop(name)
                self.held[name] = fd
            given = {int(number): fds[index] for number, index in message["given"].items()}
            held = {int(number): self.held[name] for number, name in message["held"].items()}
            cgroup = message.get("cgroup")
            body = self.bodies.pop(cgroup, None) or Body(self.nursery, cgroup)
            pid, report = body.become(message, given | held)
        except Exception as error:  # it must not wait for an answer for ever
            number = getattr(error, "number", None) or getattr(error, "errno", None) or 0
            stage = getattr(error, "stage", "fork")
            note = {"stage": stage, "errno": number, "text": repr(error)[:300]}
            self._send({"ev": "failed", "id": child_id, **note})
            return
        finally:
            for fd in fds[:own]:
                os.close(fd)
        child = Child(child_id, pid, start_ticks(pid), message.get("cgroup"), message["meta"])
        child.report = report
        child.respawn = bool(message.get("respawn"))
        self.children.add(child)
        self._watch(report, lambda: self._on_report(child))

    def _on_report(self, child: Child) -> None:
        """The exec is done, or it failed and the pipe says where."""
        report, child.report = child.report, -1
        self._unwatch(report)
        try:
            text = os.read(report, 4096)
        except BlockingIOError:  # it ended, and somebody else is still to close his copy
            text = b""
        os.close(report)
        if text:
            child.failed = True
            self._send({"ev": "failed", "id": child.id, **json.loads(text)})
        else:
            self._send({"ev": "spawned", "id": child.id, "pid": child.pid, "start": child.start})

    # -- children and signals

    def _on_signals(self, wake: int) -> None:
        numbers = os.read(wake, 512)
        if signal.SIGCHLD in numbers:
            self._reap()
        for number in numbers:
            if number in _FORWARDED:
                self.last_signal = number if number in (signal.SIGTERM, signal.SIGINT) else None
                self._send({"ev": "signal", "sig": number})

    def _reap(self) -> None:
        for pid, status, child in self.children.dead():
            if child is not None:
                if child.report >= 0:  # how it started is told before how it ended
                    self._on_report(child)
                self._send(child.exit_report())  # first of all: the engine thinks meanwhile
                sweep(child)
                if child.respawn and not child.signalled and not child.failed:
                    self._prepare(child.cgroup)
            elif pid == self.engine_pid:
                self._engine_ended(status)
            elif pid == self.nursery.pid:
                self.nursery.lost()

    def _prepare(self, cgroup: str | None) -> None:
        """Somebody died who was not told to: have a body ready while the engine decides."""
        if cgroup not in self.bodies and len(self.bodies) < _MAX_BODIES:
            with contextlib.suppress(SpawnError):  # then the spawn itself will tell
                self.bodies[cgroup] = Body(self.nursery, cgroup)


def _status_text(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exit {os.WEXITSTATUS(status)}"


def _guarded(handler: Callable[[], None]) -> None:
    """Whatever goes wrong with one child, the others are still to be kept."""
    try:
        handler()
    except Exception as error:
        _say(f"{type(error).__name__} in {getattr(handler, '__name__', handler)}: {error}")


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        sys.stderr.write(f"everup keeper: {text}\n")


def main(arguments: list[str]) -> int:
    """``keeper META_JSON -- ENGINE ARGV...``."""
    spawn.raise_nofile()
    meta = json.loads(arguments[0])
    os.set_inheritable(meta.pop("lock_fd"), False)  # held for as long as this process lives
    return Keeper(arguments[2:], meta).run()
