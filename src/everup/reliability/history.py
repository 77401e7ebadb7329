"""The history: the journal folded into when each instance was up, down, or out of service.

A fold: entries in, in order, state out; it can stop anywhere and go on later, and its state is
JSON. Details (outages, stretches) are kept for 400 days and up to a number; what is older becomes
counts by day, so the state is bounded however long the journal was.

What an instance is at any moment (and a service, by its instances):

- **up**: ready. A service is up while any instance is; degraded while another one is down.
- **down**: it should be ready and is not, because something failed.
- **planned**: stopped, restarted, deployed, scaled or not yet started, on purpose; also everup
  itself taken down. It is no part of the valid time.
- **unknown**: the machine or everup was off, and what ran did not outlive that.

Durations go by the monotonic clock, so a step of the wall clock makes no outage. Across boots only
the wall clock is left; where it went backwards, the time between counts as nothing.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, Final

from everup.model.journal import Kind
from everup.reliability._history_line import DAY_US, DOWN, PLANNED, UNKNOWN, UP, Span
from everup.reliability._history_slot import REASONS, SLOT_HANDLERS, set_aside
from everup.reliability._history_state import DETAIL_US, Deploy, Service, Slot

__all__ = ["CALLS", "KINDS", "REASONS", "History", "Row"]

Row = tuple[int, float, float, str, str, str, Mapping[str, Any]]
"""seq, time, mono, boot, kind, subject, payload: an ``Entry`` is one."""
CALLS: Final = "dependency.calls"
"""Calls of a service as its callers counted them."""
_OUTCOMES = ("ok", "failed", "rejected")
_VERSION = 2
_STEP_US = 1_000_000
"""The wall clock was set if it moved by more than this against the monotonic one."""
_MAX_MARKS = 1_000
_SERVES = frozenset(
    (
        Kind.SUSPECTED.value, Kind.CLEARED.value, Kind.UNHEALTHY.value, Kind.DRAINING.value,
        Kind.EXITED.value, Kind.STOPPING.value,
    )
)  # fmt: skip
"""If one of these comes first, the instance was up before it."""


class History:
    """The state of the fold. Not thread-safe."""

    __slots__ = (
        "_base", "_boot", "_offset", "_removed", "_tomorrow", "at", "lost_events", "marks",
        "offs", "seq", "services", "slots", "stopped", "wall_us",
    )  # fmt: skip

    def __init__(self) -> None:
        self.seq = 0
        """Number of the last entry that was taken."""
        self.at = -1
        """The moment of the last entry on the history's clock, microseconds; -1: none yet."""
        self.wall_us = 0
        """The wall clock at that moment."""
        self.services: dict[str, Service] = {}
        self.slots: dict[str, Slot] = {}
        self.offs: list[Span] = []
        """When everup was not running: from, to, and PLANNED or UNKNOWN."""
        self.marks: list[tuple[int, int]] = []
        """From when on how much is to be added to get to the wall clock."""
        self.lost_events = 0
        self.stopped = False
        """everup was told to end."""
        self._boot = ""
        self._base = 0  # what is added to the monotonic clock of this boot
        self._offset = 0  # of the last mark
        self._tomorrow = 0
        self._removed: list[str] = []  # services that a reload takes away

    # -- taking entries

    def feed(self, rows: Iterable[Row]) -> None:
        """Take entries, in the order of their numbers; kinds that do not matter are passed over."""
        slot_handlers, handlers, slots = SLOT_HANDLERS, _HANDLERS, self.slots
        for seq, time, mono, boot, kind, subject, payload in rows:
            handler = slot_handlers.get(kind)
            if handler is not None:
                now = self._clock(time, mono, boot, kind)
                self.seq = seq
                slot = slots.get(subject) or self._new_slot(subject, now)
                if slot is not None:
                    handler(slot, now, seq, payload)
                continue
            self.seq = seq
            other = handlers.get(kind)
            if other is not None:
                before = self.at
                other(self, self._clock(time, mono, boot, kind), before, subject, payload)

    def _clock(self, time: float, mono: float, boot: str, kind: str) -> int:
        """This moment on the history's clock."""
        wall = int(time * 1e6)
        # An unknown boot is equal to no other, but one engine's entries compare.
        if boot == self._boot and self.at >= 0 and (boot or kind != Kind.ENGINE_STARTED.value):
            now = self._base + int(mono * 1e6)
            if now < self.at:
                now = self.at
        else:
            now = wall if self.at < 0 else self.at + max(0, wall - self.wall_us)
            self._base = now - int(mono * 1e6)
            self._boot = boot
        self.at, self.wall_us = now, wall
        if not -_STEP_US < wall - now - self._offset < _STEP_US or not self.marks:
            self._offset = wall - now
            self.marks.append((now, self._offset))
            del self.marks[:-_MAX_MARKS]
        if now >= self._tomorrow:
            self._tomorrow = (now // DAY_US + 1) * DAY_US
            for service in self.services.values():
                service.bound(now)
            self.offs = [off for off in self.offs[-_MAX_MARKS:] if off[1] > now - DETAIL_US]
        return now

    def service(self, name: str, now: int) -> Service:
        if name not in self.services:
            self.services[name] = Service(name, now)
        return self.services[name]

    def _new_slot(self, subject: str, now: int) -> Slot | None:
        name, _, number = subject.rpartition(".")
        if not name or not number.isdigit():
            return None
        service = self.service(name, now)
        slot = self.slots[subject] = service.slots[subject] = Slot(subject, service, now)
        return slot

    # -- a journal whose beginning is gone

    def seed(self, row: Row, latest: Iterable[Row], first: Mapping[str, str]) -> None:
        """Begin anew in the middle: entries before ``row`` are gone, but for the last of each kind
        for each subject (``latest``). ``first``: subject -> kind of its first entry from ``row``
        on. What was known before stays; the time between is unknown."""
        before, known = self.at, set(self.slots)
        left = History()
        left.feed(latest)
        now = self._clock(row[1], row[2], row[3], Kind.ENGINE_STARTED.value if self.seq else "")
        for name in known:
            set_aside(self.slots[name], before, self.seq)
            self.slots[name].line.change(before, UNKNOWN)
        for name in dict.fromkeys((*left.slots, *first)):
            slot = self.slots.get(name) or self._new_slot(name, now)
            if slot is None:
                continue
            old, kind = left.slots.get(name), first.get(name)
            slot.leaving, slot.ready, slot.alive = [], [], {}
            if kind is not None:
                cls = UP if kind in _SERVES else PLANNED
            else:  # it has no entry since: these are its last
                cls = PLANNED if old is None or old.line.cls == DOWN else old.line.cls
                slot.ready = [] if old is None else list(old.ready)
                slot.alive = dict.fromkeys(slot.ready, now)
            slot.line.change(now, cls)
        if known:
            self.offs.append((before, now, UNKNOWN))
        self.stopped = left.stopped and not first

    # -- times

    def moment(self, time: float, mono: float, boot: str) -> int:
        """Where these clocks stand on the history's one; not before the last entry."""
        if self.at < 0:
            return int(time * 1e6)
        if boot and boot == self._boot:
            return max(self.at, self._base + int(mono * 1e6))
        return self.at + max(0, int(time * 1e6) - self.wall_us)

    def of_wall(self, time: float) -> int:
        """The moment that the wall clock called so, as far as one did."""
        wall, found = int(time * 1e6), None
        for since, offset in self.marks:
            if found is None or since + offset <= wall:
                found = wall - offset
        return int(time * 1e6) if found is None else found

    def wall(self, moment: int) -> float:
        """What the wall clock showed then, seconds since the epoch."""
        marks = self.marks
        if not marks or moment >= marks[-1][0]:
            return (moment + self._offset) / 1e6
        number = max(0, bisect_right(marks, moment, key=itemgetter(0)) - 1)
        return (moment + marks[number][1]) / 1e6

    def close(self, now: int, *, running: bool) -> None:
        """Bring all lines to ``now``. Without everup running nothing is known since the last
        entry. The state is for a report from then on, and no longer to be fed."""
        if not running and now > self.at:
            self.offs.append((self.at, now, PLANNED if self.stopped else UNKNOWN))
            for slot in self.slots.values():
                if slot.line.cls != PLANNED:
                    slot.line.change(self.at, UNKNOWN)
        self.at = max(self.at, now)

    # -- state

    def to_json(self) -> dict[str, Any]:
        """All of it; ``json`` can write it."""
        return {
            "version": _VERSION,
            "seq": self.seq,
            "clock": [self.at, self.wall_us, self._boot, self._base, self._tomorrow],
            "marks": self.marks,
            "offs": self.offs,
            "lost_events": self.lost_events,
            "stopped": self.stopped,
            "removed": self._removed,
            "services": {name: s.to_json() for name, s in self.services.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "History":
        """Raises ``ValueError``, ``KeyError`` or ``TypeError`` where it is not of ``to_json``."""
        if data["version"] != _VERSION:
            raise ValueError(f"version {data['version']}: expected {_VERSION}")
        history = cls()
        history.seq = data["seq"]
        history.at, history.wall_us, history._boot, history._base, history._tomorrow = data["clock"]
        history.marks = [(since, by) for since, by in data["marks"]]
        history._offset = history.marks[-1][1] if history.marks else 0
        history.offs = [(a, b, c) for a, b, c in data["offs"]]
        history.lost_events, history.stopped = data["lost_events"], data["stopped"]
        history._removed = list(data["removed"])
        for name, item in data["services"].items():
            service = history.services[name] = Service.from_json(name, item)
            history.slots |= service.slots
        return history


# -- entries that are about more than one instance

_Payload = Mapping[str, Any]


def _engine_started(history: History, now: int, before: int, _s: str, payload: _Payload) -> None:
    if before < 0:
        return
    if history.stopped:
        history.stopped = False
        if now > before:
            history.offs.append((before, now, PLANNED))
        for slot in history.slots.values():
            set_aside(slot, before, history.seq)
        return
    if payload.get("takeover"):
        return
    history.offs.append((before, now, UNKNOWN))
    for slot in history.slots.values():
        if slot.line.cls == UP:
            slot.gap = before
            slot.line.change(before, UNKNOWN)  # until it turns out that it went on
        elif slot.line.cls == DOWN:
            slot.line.change(before, UNKNOWN)
            slot.line.change(now, DOWN)
            if slot.outage is not None:
                slot.outage.blind = True


def _engine_stopping(history: History, now: int, _b: int, _s: str, _p: _Payload) -> None:
    history.stopped = True
    for slot in history.slots.values():
        if not slot.ready:
            set_aside(slot, now, history.seq)


def _engine_stopped(history: History, now: int, _b: int, _s: str, _p: _Payload) -> None:
    history.stopped = True
    for slot in history.slots.values():
        set_aside(slot, now, history.seq)
        slot.alive.clear()


def _scaled(history: History, now: int, _b: int, subject: str, payload: _Payload) -> None:
    """Instances that are scaled away while they wait leave no entry of their own."""
    service = history.service(subject, now)
    numbers = {name: int(name.rpartition(".")[2]) for name in service.slots}
    replicas, before = int(payload["replicas"]), int(payload.get("before", 0))
    standby = max(0, max(numbers.values(), default=0) - before)
    for name, slot in service.slots.items():
        if numbers[name] > replicas + standby and not slot.alive:
            set_aside(slot, now, history.seq)


def _rollout(history: History, now: int, _b: int, subject: str, payload: _Payload) -> None:
    if payload.get("how") != "verdict":  # that one is a response to a failure
        history.service(subject, now).rolling = (now, str(payload.get("how", "")))


def _rolled(ok: bool) -> Callable[[History, int, int, str, _Payload], None]:
    def ended(history: History, now: int, _b: int, subject: str, _p: _Payload) -> None:
        service = history.service(subject, now)
        if service.rolling is not None:
            since, how = service.rolling
            service.deploys.append(Deploy(since, now, how, ok))
            service.rolling = None

    return ended


def _group(history: History, _n: int, _b: int, _s: str, payload: _Payload) -> None:
    for name in payload.get("members", ()):
        if name in history.slots and name != payload.get("crashed"):
            history.slots[name].grouped = True


def _reloading(history: History, _n: int, _b: int, _s: str, payload: _Payload) -> None:
    history._removed = [str(name) for name in payload.get("removed", ())]


def _reloaded(history: History, now: int, _b: int, _s: str, _p: _Payload) -> None:
    for name in history._removed:
        if name in history.services:
            for slot in history.services[name].slots.values():
                if not slot.alive:
                    set_aside(slot, now, history.seq)
    history._removed = []


def _alive(_h: History, _n: int, _b: int, _s: str, _p: _Payload) -> None:
    """Its time is all that it has to tell."""


def _degraded(history: History, _n: int, _b: int, _s: str, payload: _Payload) -> None:
    history.lost_events += int(payload.get("lost_events", 0))


def _calls(history: History, now: int, _b: int, _s: str, payload: _Payload) -> None:
    """What a process says of its calls since it said so last; the time is that of the telling.
    Names are the program's own: those of no service are passed over."""
    dependencies = payload.get("dependencies")
    if not isinstance(dependencies, dict):
        return
    for name, counts in dependencies.items():
        service = history.services.get(name)
        if service is not None and isinstance(counts, dict):
            ok, failed, rejected = (max(0, int(counts.get(key, 0))) for key in _OUTCOMES)
            service.called(now, (ok, failed, rejected))


_HANDLERS: dict[str, Callable[[History, int, int, str, _Payload], None]] = {
    Kind.ENGINE_STARTED.value: _engine_started,
    Kind.ENGINE_STOPPING.value: _engine_stopping,
    Kind.ENGINE_STOPPED.value: _engine_stopped,
    Kind.SCALED.value: _scaled,
    Kind.ROLLOUT.value: _rollout,
    Kind.ROLLOUT_DONE.value: _rolled(True),
    Kind.ROLLOUT_STOPPED.value: _rolled(False),
    Kind.GROUP.value: _group,
    Kind.RELOADING.value: _reloading,
    Kind.RELOADED.value: _reloaded,
    Kind.JOURNAL_DEGRADED.value: _degraded,
    Kind.ENGINE_ALIVE.value: _alive,
    CALLS: _calls,
}
KINDS: Final = (*SLOT_HANDLERS, *_HANDLERS)
"""The kinds that the fold needs."""
