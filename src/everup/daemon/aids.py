"""The processes of everup beside the engine: started, watched and ended through the keeper.

The keeper has them as children, so that they outlive an engine. Each says every second that it
lives, by a byte in a pipe whose reading end the keeper keeps for the next engine.
"""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from everup.adapters import python
from everup.adapters.keeper_client import KeeperClient
from everup.adapters.place import Place
from everup.model.aid import ANEW, BEAT_FD, STATE_FD
from everup.rooms.observer.facts import AidEnded, AidSilent, AidStarted

PREFIX = "aid:"
_MODULES = {"observer": "everup.observer", "sampler": "everup.sampler"}
_LOOK_S = 1.0
_SILENT_S = 10.0
_END_S = 2.0


@dataclass(slots=True)
class _Aid:
    name: str
    child_id: str
    pid: int = 0
    beat_fd: int = -1
    heard_at: float = field(default_factory=time.monotonic)
    killed: bool = False


class Aids:
    """Of one engine. ``prepare`` makes what a process needs before it is started, which may take a
    disk; it gives the words that the process is started with."""

    def __init__(
        self,
        keeper: KeeperClient,
        place: Place,
        dispatch: Callable[[Any], None],
        start: Callable[[Any], object],
        prepare: Callable[[str], Awaitable[Mapping[str, Any]]],
    ) -> None:
        self._keeper = keeper
        self._place = place
        self._dispatch = dispatch
        self._spawn_task = start
        self._prepare = prepare
        self._aids: dict[str, _Aid] = {}
        self._number = 0
        self._none_left = asyncio.Event()

    def adopt(self, child: Mapping[str, Any], held: dict[str, int]) -> None:
        """Go on with one that an earlier engine has started."""
        name, child_id = child["meta"]["aid"], child["id"]
        self._number = max(self._number, int(child_id.rpartition(":")[2]))
        beat = held.pop(_beat_name(child_id), None)
        if "exit" in child or name in self._aids or name not in _MODULES or beat is None:
            if "exit" in child:
                self._keeper.ack(child_id)
            else:
                self._keeper.signal(child_id, signal.SIGKILL, "all")
            if beat is not None:
                os.close(beat)
                self._keeper.drop([_beat_name(child_id)])
            return
        self._aids[name] = _Aid(name, child_id, child["pid"], beat)

    def start(self, name: str) -> None:
        """Start it, or find it running."""
        aid = self._aids.get(name)
        if aid is not None and aid.pid:
            self._dispatch(AidStarted(name, aid.pid, adopted=True))
        elif aid is None:
            self._number += 1
            self._aids[name] = aid = _Aid(name, f"{PREFIX}{name}:{self._number}")
            self._spawn_task(self._start(aid))

    async def _start(self, aid: _Aid) -> None:
        try:
            words = await self._prepare(aid.name)
            self._spawn(aid, words)
        except OSError as error:
            self._forget(aid)
            self._dispatch(AidEnded(aid.name, f"it cannot be started: {error.strerror or error}"))

    def _spawn(self, aid: _Aid, words: Mapping[str, Any]) -> None:
        read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        state = os.open(self._place.state_dir, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        request: dict[str, Any] = {
            "argv": python.command("-m", _MODULES[aid.name], json.dumps(words)),
            "env": {k: v for k, v in os.environ.items() if k in _INHERITED},
            "cwd": "/",
            "listen_pid": False,
        }
        meta = {"role": "aid", "aid": aid.name}
        out, err = os.dup(2), os.dup(2)
        given = {0: null, 1: out, 2: err, BEAT_FD: write, STATE_FD: state}
        aid.beat_fd, aid.heard_at = read, time.monotonic()
        hold = {_beat_name(aid.child_id): read}
        self._keeper.spawn(aid.child_id, request, given=given, held={}, meta=meta, hold=hold)

    def kill(self, name: str, *, at_once: bool) -> None:
        """End it; ``AidEnded`` follows."""
        aid = self._aids.get(name)
        if aid is None:
            return
        aid.killed = True
        self._keeper.signal(aid.child_id, signal.SIGKILL if at_once else signal.SIGTERM, "all")
        if not at_once:
            asyncio.get_running_loop().call_later(_END_S, self._kill_id, aid.child_id)

    def _kill_id(self, child_id: str) -> None:
        if any(aid.child_id == child_id for aid in self._aids.values()):
            self._keeper.signal(child_id, signal.SIGKILL, "all")

    async def close(self) -> None:
        """End all of them, before the engine ends for good."""
        for name in list(self._aids):
            self.kill(name, at_once=False)
        if self._aids:
            self._none_left.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._none_left.wait(), _END_S + 1.0)

    def reported(self, message: Mapping[str, Any]) -> None:
        """Take the keeper's word of one of them."""
        child_id = message["id"]
        aid = next((a for a in self._aids.values() if a.child_id == child_id), None)
        match message["ev"]:
            case "spawned" if aid is not None:
                aid.pid, aid.heard_at = message["pid"], time.monotonic()
                self._dispatch(AidStarted(aid.name, aid.pid))
            case "failed" if aid is not None:
                self._forget(aid)
                detail = os.strerror(message["errno"]) if message["errno"] else message.get("text")
                self._dispatch(AidEnded(aid.name, f"it cannot be started: {detail}"))
            case "exit":
                self._keeper.ack(child_id)
                if aid is not None:
                    self._forget(aid)
                    status = message["status"]
                    self._dispatch(AidEnded(aid.name, _words(status), _is_anew(status)))

    def _forget(self, aid: _Aid) -> None:
        self._aids.pop(aid.name, None)
        if not self._aids:
            self._none_left.set()
        if aid.beat_fd >= 0:
            os.close(aid.beat_fd)
            self._keeper.drop([_beat_name(aid.child_id)])

    async def watch(self) -> None:
        """Tell of those that hang, until cancelled. Time in which the engine itself did not run
        counts for nobody."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(_LOOK_S)
            now = time.monotonic()
            late_s = max(0.0, now - before - 2 * _LOOK_S)
            before = now
            for aid in list(self._aids.values()):
                aid.heard_at += late_s
                if _beats(aid.beat_fd):
                    aid.heard_at = now
                elif aid.pid and now - aid.heard_at > _SILENT_S:
                    self._dispatch(AidSilent(aid.name, now - aid.heard_at))


_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "SSL_CERT_FILE", "SSL_CERT_DIR")


def _beat_name(child_id: str) -> str:
    return f"beat:{child_id}"


def _beats(fd: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        return fd >= 0 and bool(os.read(fd, 4096))
    return False


def _is_anew(status: int | None) -> bool:
    return status is not None and os.WIFEXITED(status) and os.WEXITSTATUS(status) == ANEW


def _words(status: int | None) -> str:
    if status is None:
        return "nobody saw how"
    if os.WIFSIGNALED(status):
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(os.WTERMSIG(status)).name}"
        return f"killed by signal {os.WTERMSIG(status)}"
    return f"exit {os.WEXITSTATUS(status)}"
