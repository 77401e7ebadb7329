"""What the API shows: the engine's state as plain data."""

import os
import time
from datetime import UTC, datetime
from typing import Any

from everup import __version__
from everup.adapters.metrics import machine, usage_payload
from everup.api.backend import Backend
from everup.engine import leasing
from everup.engine.core import Engine
from everup.engine.records import How
from everup.model.event import Hook
from everup.model.instance import State
from everup.model.journal import Entry
from everup.model.record import Instance
from everup.model.signal import ProbeKind
from everup.model.spec import Service
from everup.rooms.dependencies.room import Dependencies

FRESH_S = 1.0
"""A usage sample older than this is taken again when somebody looks."""


def utc(seconds: float) -> str:
    """RFC 3339, UTC, with milliseconds."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def entry(entry: Entry) -> dict[str, Any]:
    """One journal event."""
    return {
        "seq": entry.seq,
        "time": utc(entry.time),
        "mono": entry.mono,
        "kind": entry.kind,
        "subject": entry.subject,
        **entry.payload,
    }


def status(backend: Backend) -> dict[str, Any]:
    """Everything of now."""
    if time.monotonic() - backend.metrics.sampled_at > FRESH_S:
        backend.sample()
    engine = backend.engine
    return {
        "version": __version__,
        "config": backend.place.config,
        "state_dir": backend.place.state_dir,
        "started": utc(backend.started_at),
        "stopping": engine.quitting,
        "reloading": _reloading(engine),
        "journal_degraded": backend.journal.degraded,
        "journal_degraded_reason": backend.journal.reason,
        "last_seq": backend.journal.last_seq,
        "keeper": {"pid": backend.keeper_pid},
        "engine": {"pid": os.getpid()},
        "machine": machine(),
        "services": [service(backend, s) for s in engine.services.values()],
    }


def _reloading(engine: Engine) -> dict[str, Any] | None:
    """A reload under way."""
    reloading = engine.reloading
    if reloading is None:
        return None
    coming = [name for name in reloading.deadlines if name in engine.services]
    rolling = [name for name, it in engine.rolling.items() if it.how is not How.RESTART]
    return {
        "by": reloading.by,
        "since_s": round(max(0.0, time.monotonic() - reloading.began), 3),
        "left": [] if reloading.failed else [*coming, *rolling, *reloading.todo],
        "rolling_back": reloading.failed or None,
    }


def service(backend: Backend, spec: Service) -> dict[str, Any]:
    """One service with its instances."""
    engine = backend.engine
    instances = engine.of(spec.name)
    ready = sum(i.state is State.READY for i in instances)
    return {
        "name": spec.name,
        "type": spec.type,
        "replicas": spec.replicas,
        "configured_replicas": _configured(engine, spec),
        "standby": spec.standby,
        "ready": ready,
        "addresses": [listener.address for listener in spec.listen],
        "depends_on": list(spec.depends_on),
        "active": list(engine.active.get(spec.name, ())),
        "instances": [instance(backend, spec, i) for i in instances],
        "outgoing": [
            instance(backend, spec, i)
            for i in engine.outgoing.values()
            if i.slot.service == spec.name
        ],
        "rollout": _rollout(engine, spec.name),
    }


def _configured(engine: Engine, spec: Service) -> int:
    """The number of replicas in the config, without what operators scaled since."""
    return engine.spec.service.get(spec.name, spec).replicas


def _rollout(engine: Engine, name: str) -> dict[str, Any] | None:
    """A rollout under way."""
    rollout = engine.rolling.get(name)
    if rollout is None:
        return None
    left = [*(turn.slot for turn in rollout.turns), *rollout.waiting]
    return {
        "how": rollout.how.value,
        "gen": rollout.gen,
        "slots": [str(slot) for slot in rollout.slots],
        "now": [str(turn.slot) for turn in rollout.turns],
        "left": [str(slot) for slot in left],
    }


def doing(spec: Service, it: Instance) -> str:
    """What its state waits for, in words; empty where nothing is under way."""
    if it.phase in tuple(Hook):
        command = (getattr(spec.hooks, it.phase) or ("",))[0]
        return f"its {it.phase} hook runs ({command})"
    match it.state:
        case State.STARTING if it.phase:
            return "its process is being started"
        case State.STARTING if spec.notify:
            return "it has not sent READY=1 yet"
        case State.STARTING:
            return "its startup probe has not succeeded yet"
        case State.RUNNING:
            return "its readiness probe has not succeeded yet"
        case State.DRAINING:
            return "its open connections are ending"
        case State.STOPPING:
            return f"it was sent {spec.stop_signal}" if not it.phase else "its processes are ending"
        case _:
            return ""


def instance(backend: Backend, spec: Service, it: Instance) -> dict[str, Any]:
    """One instance."""
    now, wall = time.monotonic(), time.time()
    since_s = max(0.0, now - it.since)
    active = backend.engine.active.get(spec.name, ())
    out: dict[str, Any] = {
        "slot": str(it.slot),
        "state": it.state.value,
        "since": utc(wall - since_s),
        "since_s": round(since_s, 3),
        "want": it.want,
        "pid": it.pid or None,
        "run": it.run,
        "restarts": it.restarts,
        "attempt": it.attempt,
        "done": it.done,
        "elsewhere": leasing.is_elsewhere(backend.engine, it, now),
        "suspected": it.suspected,
        "reason": it.reason if it.outgoing else backend.engine.waiting.get(it.slot, it.reason),
        "doing": doing(spec, it),
        "status_text": it.status_text,
        "last_exit": None if it.last_exit is None else str(it.last_exit),
        "usage": None if it.outgoing else usage_payload(backend.metrics.get(it.slot)),
        "probes": _probes(backend, it),
        "dependencies": backend.engine.room(Dependencies).of(it),
    }
    if spec.listen:
        out["in_balance"] = it.lane in active
        out["standby"] = (
            it.state is State.READY
            and it.lane not in active
            and spec.standby > 0
            and not backend.engine.rolling.get(spec.name)
        )
    if it.state in (State.BACKOFF, State.PARKED) and it.deadline is not None:
        out["retry_in_s"] = round(max(0.0, it.deadline - now), 3)
    return out


def _probes(backend: Backend, it: Instance) -> dict[str, Any]:
    out = {}
    for kind in ProbeKind:
        state = backend.engine.probes.get((it.slot, it.run, kind))
        if state is not None and state.last is not None:
            out[kind.value] = {
                "ok": state.last.ok,
                "detail": state.last.detail,
                "latency_s": round(state.last.latency_s, 6),
                "failures": state.failures,
            }
    return out
