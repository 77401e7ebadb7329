"""What each kind of entry means for one instance."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from everup.model.journal import Kind
from everup.reliability._history_line import DOWN, PLANNED, UNKNOWN, UP
from everup.reliability._history_state import RELAPSE_US, Life, Opened, Outage, Slot

Payload = Mapping[str, Any]
DONE: Final = "done"
MAX_CAUSE: Final = 160

REASONS: Final = {
    "exit": "the process ended with an exit code",
    "signal": "the process was killed by a signal, not by everup",
    "oom": "the process was killed for lack of memory",
    "spawn": "the process could not be started",
    "hook": "its pre_start hook failed",
    "lost": "it ended while nobody watched",
    "startup": "it did not start in time",
    "liveness": "its liveness probe failed; everup killed it",
    "watchdog": "it sent no sign of life; everup killed it",
    "readiness": "its readiness probe failed; it went on running",
    "group": "another member of its group failed",
    "verdict": "everup killed it as failed",
}
"""The kinds of failure."""
_OF_EXIT = {"code": "exit"}
_OF_VERDICT = (
    ("liveness", "liveness"),
    ("startup", "startup"),
    ("not started", "startup"),
    ("watchdog", "watchdog"),
    ("readiness", "readiness"),
)
_RELOADS = "it reloads"
_NEW = tuple.__new__  # half the time of the constructor, a hundred thousand times


def _kind_of(verdict: str) -> str:
    return next((kind for word, kind in _OF_VERDICT if verdict.startswith(word)), "verdict")


# -- outages


def _fail(slot: Slot, now: int, seq: int, kind: str, cause: str, start: int) -> None:
    """It is down from ``start`` on; a failure within an outage is part of that."""
    if slot.outage is None:
        line = slot.line
        start = max(start, line.since)
        if line.cls == PLANNED:  # on its way up: it was not up before
            start = now
        out = slot.outage = Opened(kind, cause[:MAX_CAUSE], start, now, seq)
        out.relapse = start - slot.mended < RELAPSE_US
        line.change(start, DOWN)
    slot.suspect = -1


def _end(slot: Slot, now: int, seq: int, ended: str) -> None:
    out = slot.outage
    if out is None:
        return
    slot.outage = None
    fields = (
        slot.name, out.kind, out.cause, out.start, out.detected, out.starting, now, ended,
        out.first_seq, seq, out.restarts, out.blind, out.relapse,
    )  # fmt: skip
    if ended == "ready":
        slot.mended = now
    slot.service.outages.append(_NEW(Outage, fields))


def set_aside(slot: Slot, now: int, seq: int) -> None:
    """Somebody wants it down: from now on it is out of service on purpose."""
    _end(slot, now, seq, "stopped")
    slot.line.change(now, PLANNED)
    slot.ready.clear()
    slot.suspect = slot.gap = -1


def _began(slot: Slot, now: int, payload: Payload) -> int:
    """When a failure that a probe found began: halfway between the last probe that was answered
    and the first that was not, by their beginnings, which is right on average; the latter, where
    the entries do not tell. Journals of earlier versions lack ``failed_s``."""
    if "failed_s" not in payload and slot.suspect >= 0:
        return slot.suspect
    return _back(now, payload, "failed_s", "ok_ago_s")


def _back(now: int, payload: Payload, sure: str, between: str) -> int:
    """So long before an entry: the whole of one distance, and half of another."""
    whole, half = (max(0.0, float(payload.get(name, 0.0))) for name in (sure, between))
    return now - int(whole * 1e6 + half * 5e5)


# -- kinds


def _starting(slot: Slot, now: int, seq: int, payload: Payload) -> None:
    run = payload.get("run", 0)
    slot.alive[run] = now
    if len(slot.alive) > 4:  # entries were lost
        del slot.alive[min(slot.alive)]
    slot.grouped = False
    out = slot.outage
    if out is not None:
        out.restarts += 1
        if out.starting < 0:
            out.starting = now
    elif slot.line.cls == UNKNOWN:  # it did not outlive the time that nobody saw
        _fail(slot, now, seq, "lost", "ended unseen", now)


def _running(slot: Slot, now: int, seq: int, payload: Payload) -> None:
    run = payload.get("run", 0)
    if run not in slot.ready:
        return
    slot.ready.remove(run)
    if not slot.ready and run not in slot.leaving:
        start = _began(slot, now, payload)
        _fail(slot, now, seq, "readiness", str(payload.get("reason", "")), start)


def _ready(slot: Slot, now: int, seq: int, payload: Payload) -> None:
    run = payload.get("run", 0)
    if run not in slot.ready:
        slot.ready = [*slot.ready[-1:], run]
    slot.alive.setdefault(run, now)
    slot.suspect = slot.gap = -1
    since = max(_back(now, payload, "ok_s", "failed_ago_s"), slot.line.since)
    if (out := slot.outage) is not None:
        since = max(since, out.detected, out.starting)
        _end(slot, since, seq, "ready")
    slot.line.change(since, UP)


def _suspected(slot: Slot, now: int, _seq: int, payload: Payload) -> None:
    _serves(slot, payload)
    if payload.get("reason") != _RELOADS:
        slot.suspect = _began(slot, now, payload)


def _cleared(slot: Slot, _now: int, _seq: int, payload: Payload) -> None:
    _serves(slot, payload)
    slot.suspect = -1


def _serves(slot: Slot, payload: Payload) -> None:
    """It is ready, though the history does not go back to when it became so."""
    if not slot.ready and slot.line.cls == UP:
        slot.ready = [payload.get("run", 0)]


def _unhealthy(slot: Slot, now: int, seq: int, payload: Payload) -> None:
    _serves(slot, payload)
    run = slot.condemned = payload.get("run", 0)
    if run in slot.ready:
        slot.ready.remove(run)
    if not slot.ready:
        verdict = str(payload.get("reason", ""))
        _fail(slot, now, seq, _kind_of(verdict), verdict, _began(slot, now, payload))


def _leaving(slot: Slot, now: int, seq: int, payload: Payload) -> None:
    """It drains or is told to stop."""
    _serves(slot, payload)
    run = payload.get("run", 0)
    if run == slot.condemned or (run not in slot.alive and run not in slot.ready):
        return  # a verdict, or the hook after its end
    if run not in slot.leaving:
        slot.leaving = [*slot.leaving[-1:], run]
    if run in slot.ready:
        slot.ready.remove(run)
    if slot.ready or slot.outage is not None:
        return
    if slot.grouped:
        _fail(slot, now, seq, "group", str(payload.get("reason", "")), now)
    else:
        slot.line.change(now, PLANNED)
        slot.suspect = -1


def _exited(slot: Slot, now: int, seq: int, payload: Payload) -> None:
    _serves(slot, payload)
    run = payload.get("run", 0)
    kind, verdict = str(payload.get("exit_kind", "code")), str(payload.get("killed_for", ""))
    planned = run in slot.leaving and not verdict
    started = slot.alive.pop(run, None)
    if kind not in ("spawn", "hook"):
        up_s = payload.get("up_s")
        if up_s is not None or started is not None:
            lived = int(up_s * 1e6) if up_s is not None else now - (started or now)
            slot.service.lives.append(_NEW(Life, (now, lived, not planned)))
    if run in slot.leaving:
        slot.leaving.remove(run)
    if run in slot.ready:
        slot.ready.remove(run)
    if slot.ready or planned:
        return
    kind = _kind_of(verdict) if verdict else _OF_EXIT.get(kind, kind)
    start = _began(slot, now, payload) if "failed_s" in payload else now
    _fail(slot, now, seq, kind, str(payload.get("cause", "")), start)


def _lost(slot: Slot, now: int, seq: int, payload: Payload) -> None:
    run = payload.get("run", 0)
    started = slot.alive.pop(run, None)
    if started is not None:
        end = slot.gap if slot.gap >= 0 else now
        slot.service.lives.append(Life(end, max(0, end - started), False))
    planned = run in slot.leaving
    for runs in (slot.leaving, slot.ready):
        if run in runs:
            runs.remove(run)
    slot.gap = -1
    if slot.ready:
        return
    if planned:
        slot.line.change(now, PLANNED)
    elif slot.outage is None:
        _fail(slot, now, seq, "lost", "ended unseen", now)
        if slot.outage is not None:
            slot.outage.detected = -1


def _adopted(slot: Slot, now: int, seq: int, payload: Payload) -> None:
    run, state, line = payload.get("run", 0), payload.get("state", ""), slot.line
    slot.alive.setdefault(run, now)
    if state == "ready":
        if slot.gap >= 0 and run in slot.ready and line.cls == UNKNOWN and line.since == slot.gap:
            line.amend(UP)  # it went on all the time
        _ready(slot, now, seq, payload)
    elif state in ("draining", "stopping") and run not in slot.leaving:
        slot.leaving = [*slot.leaving[-1:], run]


def _stopped(slot: Slot, now: int, seq: int, payload: Payload) -> None:
    run = payload.get("run", 0)
    slot.alive.pop(run, None)
    for runs in (slot.leaving, slot.ready):
        if run in runs:
            runs.remove(run)
    if slot.ready:
        return
    out, line = slot.outage, slot.line
    if payload.get(DONE) and out is not None and out.kind == "exit" and not out.restarts:
        slot.outage = None  # it ended because its work was done
        if line.cls == DOWN and line.since == out.start:
            line.amend(PLANNED)
    else:
        _end(slot, now, seq, DONE if payload.get(DONE) else "stopped")
    line.change(now, PLANNED)


def _wanted(slot: Slot, now: int, seq: int, payload: Payload) -> None:
    if not payload.get("want") and not slot.ready:
        _end(slot, now, seq, "stopped")
        if slot.line.cls != UP:
            slot.line.change(now, PLANNED)


SLOT_HANDLERS: Final[dict[str, Callable[[Slot, int, int, Payload], None]]] = {
    Kind.STARTING.value: _starting,
    Kind.RUNNING.value: _running,
    Kind.READY.value: _ready,
    Kind.SUSPECTED.value: _suspected,
    Kind.CLEARED.value: _cleared,
    Kind.UNHEALTHY.value: _unhealthy,
    Kind.DRAINING.value: _leaving,
    Kind.STOPPING.value: _leaving,
    Kind.EXITED.value: _exited,
    Kind.LOST.value: _lost,
    Kind.ADOPTED.value: _adopted,
    Kind.STOPPED.value: _stopped,
    Kind.WANTED.value: _wanted,
}
