"""To the everup that runs this service: how what it depends on fares, in its own words.

One datagram for each dependency on the socket that ``EVERUP_NOTIFY`` names, in lines as those of
sd_notify(3)::

    EVERUP_DEPENDENCY=db
    EVERUP_BREAKER=open
    EVERUP_CALLS=120,3,0,1
    EVERUP_P99_MS=41.5

``EVERUP_CALLS`` are those ok, failed, rejected and neutral since the datagram before.
"""

import os
import re
import socket
import sys
from collections.abc import Callable
from threading import Event as Gate
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from everup.tolerate._base import Event, Policy
from everup.tolerate._clock import SYSTEM, Clock
from everup.tolerate._forks import register
from everup.tolerate._look import Watchable, check_names, states, worst_state
from everup.tolerate._options import Seconds, real, seconds
from everup.tolerate._windows import State
from everup.tolerate.keyed import Keyed
from everup.tolerate.meter import Meter, Snapshot

if TYPE_CHECKING:
    import asyncio

MOST = 64
"""Dependencies that everup hears of from one instance."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,63}")
_CHANGES = frozenset({"opened", "half_open", "closed", "isolated", "reset"})


class _Dependency:
    __slots__ = ("before", "breakers", "calls_at", "meter", "name", "state_at", "told")

    def __init__(self, source: Meter | Policy, now: float) -> None:
        self.name = source.name
        self.meter = source if isinstance(source, Meter) else None
        policies: tuple[Watchable, ...] = (source,)
        if isinstance(source, Meter):
            policies = source.watch
        self.breakers: list[Any] = [
            one for one in policies if isinstance(one, Keyed) or any(True for _ in states((one,)))
        ]
        self.told: State | None = None
        self.state_at = float("-inf")
        self.before: Snapshot | None = None if self.meter is None else self.meter.snapshot()
        self.calls_at = now

    def state(self) -> State | None:
        """The worst of its breakers."""
        return worst_state(self.breakers)


class EverupSink:
    """Tells everup of breaker states and of how calls go, for each dependency.

    ``sources``: at most 64, each a dependency of that name (up to 63 of letters, digits and
    ``_.-``): meters, with the breakers that they watch (of several, and of all keys of a ``Keyed``,
    the worst state), and breakers without a meter. What a meter has counted before is not told.

    Bounded: a change of state is told at once, but for each dependency not more than
    ``changes_per_s`` a second (above 0, default 1): of several in between, the last. Calls are told
    every ``interval_s`` seconds (above 0, default 10) if there were any, and with each change of
    state, which they explain. Nothing waits: what the socket does not take at once is dropped and
    counted (``dropped``), and told the next time, calls and all. Nothing is raised into a call.

    It has no thread: telling is done by the calls that meters count and by events of the breakers,
    so the last word before a silence may be late. ``start`` gives it a thread or a task instead.

    ``address``: of the socket, ``@`` for an abstract one; default: ``EVERUP_NOTIFY`` of the
    environment. Without either it does nothing at all and costs nothing. After a fork it goes on
    in the child, without what the parent had not yet told and without a thread.

    Raises ``ValueError`` for options out of range and sources that are too many, of one name, or
    of a name that everup does not take; ``TypeError`` for a source that has neither calls nor a
    state to tell of.
    """

    def __init__(
        self,
        *sources: Meter | Policy,
        interval_s: Seconds = 10.0,
        changes_per_s: float = 1.0,
        address: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        interval_s = seconds("interval_s", interval_s, above=True)
        real("changes_per_s", changes_per_s, above=True)
        if len(sources) > MOST:
            raise ValueError(f"{len(sources)} sources: it can tell of {MOST}")
        check_names(sources)
        self.clock = SYSTEM if clock is None else clock
        self.dropped = 0
        """Datagrams that could not be sent."""
        self.sent = 0
        now = self.clock.now()
        self._dependencies = [_dependency(source, now) for source in sources]
        self._interval_s = interval_s
        self._gap_s = 1 / changes_per_s
        self._period_s = min(interval_s, self._gap_s)
        given = os.environ.get("EVERUP_NOTIFY", "") if address is None else address
        self._address = "\0" + given[1:] if given.startswith("@") else given
        self._socket: socket.socket | None = None
        self._lock = Lock()
        self._wanted = False
        self._stop = Gate()
        self._runner: Thread | asyncio.Task[None] | None = None
        self._ends: list[Callable[[], None]] = []
        if self._address:
            self._listen()
            _living.add(self)

    def _listen(self) -> None:
        heard: list[int] = []
        for dependency in self._dependencies:
            if dependency.meter is not None:
                self._ends.append(dependency.meter.every(self._period_s, self.turn))
            for breaker in dependency.breakers:
                if id(breaker) not in heard:  # of two meters that watch it, once
                    heard.append(id(breaker))
                    self._ends.append(breaker.subscribe(self._hear))

    def _hear(self, event: Event) -> None:
        if event.kind in _CHANGES:
            self.turn()

    # -- a thread or a task of its own

    def start(self) -> "Thread | asyncio.Task[None] | None":
        """Tell in time whatever calls there are: by a task, on a running event loop, else by a
        daemon thread. Returns it; None where there is nobody to tell. ``close`` ends it."""
        if not self._address or self._runner is not None:
            return self._runner
        loop = _running_loop()
        if loop is None:
            self._runner = Thread(target=self._run, name="everup-sink", daemon=True)
            self._runner.start()
        else:
            self._runner = loop.create_task(self._run_async())
        return self._runner

    def _run(self) -> None:
        self.turn()
        while not self._stop.wait(self._period_s):
            self.turn()

    async def _run_async(self) -> None:
        while True:
            self.turn()
            await self.clock.asleep(self._period_s)

    def close(self) -> None:
        """Tell what is left, as far as the socket takes it at once, and then nothing more."""
        while self._ends:
            self._ends.pop()()
        runner, self._runner = self._runner, None
        self._stop.set()
        if isinstance(runner, Thread):
            runner.join()
        elif runner is not None:
            runner.cancel()
        self.turn(at_once=True)
        _living.discard(self)
        self._address = ""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    # -- telling

    def turn(self, *, at_once: bool = False) -> None:
        """Send what is due, and only that; with ``at_once`` everything that is new. Never waits:
        while another thread does it, that one does it once more."""
        if not self._address:
            return
        self._wanted = True
        while self._wanted and self._lock.acquire(blocking=False):
            try:
                self._wanted = False
                now = self.clock.now()
                for dependency in self._dependencies:
                    try:
                        self._look(dependency, now, at_once)
                    except Exception:  # a source that cannot be looked at
                        self.dropped += 1
            finally:
                self._lock.release()

    def _look(self, it: _Dependency, now: float, at_once: bool) -> None:
        state = it.state()
        changed = state is not it.told and (at_once or now - it.state_at >= self._gap_s)
        if not changed and not at_once and now - it.calls_at < self._interval_s:
            return
        lines = [f"EVERUP_DEPENDENCY={it.name}"]
        if state is not None:
            lines.append(f"EVERUP_BREAKER={state.value}")
        shot = None if it.meter is None else it.meter.snapshot()
        fresh = None if shot is None or it.before is None else shot.since(it.before)
        if fresh is not None and fresh.calls:
            counts = (fresh.ok, fresh.failed, fresh.rejected, fresh.neutral)
            lines.append("EVERUP_CALLS=" + ",".join(map(str, counts)))
            if (p99_s := fresh.p99_s) is not None:
                lines.append(f"EVERUP_P99_MS={p99_s * 1000:.6g}")
        elif not changed:
            it.calls_at = now
            return
        it.calls_at = now
        if changed:
            it.state_at = now
        if self._send("\n".join(lines).encode()):
            it.told, it.before = state, shot

    def _send(self, data: bytes) -> bool:
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            self._socket.sendto(data, self._address)
        except (OSError, ValueError):  # nobody there, its queue full; an address that is none
            self.dropped += 1
            return False
        self.sent += 1
        return True

    def _forked(self) -> None:
        """In the child: locks may be held by threads that are not here; the parent tells its
        calls itself."""
        self._lock = Lock()
        self._stop = Gate()
        self._runner = None
        for it in self._dependencies:
            if it.meter is not None:
                it.before = it.meter.snapshot()


def _dependency(source: Meter | Policy, now: float) -> _Dependency:
    if not _NAME.fullmatch(source.name):
        raise ValueError(
            f"{source.name!r} cannot name a dependency: it takes 1 to 63 of A-Z a-z 0-9 _ . -"
        )
    made = _Dependency(source, now)
    if made.meter is None and not made.breakers:
        raise TypeError(f"{source.name} has neither calls nor a state to tell of")
    return made


def _running_loop() -> "asyncio.AbstractEventLoop | None":
    if "asyncio" not in sys.modules:  # it costs much, and without it no loop runs
        return None
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_living: WeakSet[EverupSink] = WeakSet()


def _after_fork() -> None:
    for sink in list(_living):
        sink._forked()


register(_after_fork)
