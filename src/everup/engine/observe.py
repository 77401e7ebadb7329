"""Observations of running instances: probe results, sd_notify messages, the watchdog."""

from collections.abc import Mapping

from everup.detect import probes, starvation
from everup.detect.probes import ProbeState, Verdict
from everup.engine import onset, spare, starting
from everup.engine.state import Supervised
from everup.model.action import MainPid, Unwatch
from everup.model.event import Left, Notified
from everup.model.instance import Slot, State
from everup.model.journal import Kind
from everup.model.record import Instance
from everup.model.replacing import replace
from everup.model.signal import ProbeKind, ProbeResult
from everup.model.spec import Probe, Service
from everup.supervise.lifecycle import Happening, On

# Looked up once: a member of an enumeration costs 0.1 us each time in Python 3.11, and these are
# asked for with each result of each probe.
_STARTUP, _READINESS, _LIVENESS = ProbeKind.STARTUP, ProbeKind.READINESS, ProbeKind.LIVENESS
_HEALTHY, _NEUTRAL = Verdict.HEALTHY, Verdict.NEUTRAL
_RUNNING, _STARTING = State.RUNNING, (State.STARTING,)
_UP = (State.RUNNING, State.READY)
_UNTRIED = ProbeState()
_USEC = 1e-6
_MOST_EARLY = 16
_MAX_EXTENSION_S = 86400.0
_DEAF = "the notify socket was full: what it said may have been lost"


def probe_of(service: Service, kind: ProbeKind) -> Probe | None:
    if kind is _READINESS:
        return service.probe.readiness
    return service.startup if kind is _STARTUP else service.probe.liveness


def probed(engine: Supervised, result: ProbeResult, now: float) -> None:
    """Count a result and act on the verdict."""
    instance = engine.process(result.slot, result.run)
    if instance is None or instance.spawned_at is None:
        return
    expected = _STARTING if result.kind is _STARTUP else _UP
    probe = probe_of(engine.definition(instance), result.kind)
    if instance.state not in expected or probe is None:
        return
    key = (result.slot, result.run, result.kind)
    state = engine.probes.get(key, _UNTRIED)
    lag_limit_s = engine.spec.everup.starvation_lag
    state, verdict = probes.step(state, probe, result, now - instance.spawned_at, lag_limit_s)
    engine.probes[key] = state
    if verdict is not _NEUTRAL:
        onset.probed(engine, result, now)
    if result.ok:
        engine.answered[result.slot] = now
    if verdict is _HEALTHY:
        if result.kind is _LIVENESS:
            engine.spared.pop((result.slot, result.run), None)
        _healthy(engine, instance, result.kind, now)
    elif verdict is Verdict.SUSPECT:
        _suspect(engine, instance, result, now)
    elif verdict is Verdict.FAILED:
        _failed(engine, instance, probe, result, state, now)


def _healthy(engine: Supervised, instance: Instance, kind: ProbeKind, now: float) -> None:
    if kind is _STARTUP:
        engine.emit(Unwatch(instance.slot, instance.run))
        starting.proven(engine, instance, now)
        return
    if kind is _READINESS and instance.state is _RUNNING:
        ready = Happening(On.READY, evidence=onset.serves(engine, instance, now))
        engine.happen(instance.slot, ready, now, instance.run)
        instance = engine.process(instance.slot, instance.run) or instance
    _clear(engine, instance, now)


def _clear(engine: Supervised, instance: Instance, now: float) -> None:
    """Back into the balance, if nothing is against it any more."""
    if instance.suspected and instance.reloads_until is None and not _failing(engine, instance):
        engine.put(replace(instance, suspected=False, reason=""), now)


def _failing(engine: Supervised, instance: Instance) -> bool:
    return any(_failures(engine, instance, k) for k in (ProbeKind.READINESS, ProbeKind.LIVENESS))


def _failures(engine: Supervised, instance: Instance, kind: ProbeKind) -> int:
    state = engine.probes.get((instance.slot, instance.run, kind))
    return 0 if state is None else state.failures


def _suspect(engine: Supervised, instance: Instance, result: ProbeResult, now: float) -> None:
    if instance.state is State.READY and not instance.suspected:
        reason = f"{result.kind.value} probe: {result.detail}"
        evidence = onset.failed(engine, instance, result.kind, now)
        engine.put(replace(instance, suspected=True, reason=reason), now, evidence)


def _failed(
    engine: Supervised,
    instance: Instance,
    probe: Probe,
    result: ProbeResult,
    state: ProbeState,
    now: float,
) -> None:
    reason = f"{result.kind.value} probe: {result.detail}"
    if result.kind is ProbeKind.READINESS:
        if instance.state is State.READY:
            evidence = onset.failed(engine, instance, result.kind, now)
            unready = Happening(On.UNREADY, reason, evidence=evidence)
            engine.happen(instance.slot, unready, now, instance.run)
        return
    if result.kind is ProbeKind.STARTUP and engine.definition(instance).probe.startup is None:
        return  # nobody asked for it; ``start_timeout`` and rollouts have their own bounds
    _suspect(engine, instance, result, now)
    key = (result.slot, result.run, result.kind)
    if spare.spared(engine, instance, reason, now):
        engine.probes[key] = state._replace(failures=0)
        return
    since = state.postponed_since
    window_s = probe.interval + probe.timeout
    others = any(
        slot != result.slot and now - at < window_s for slot, at in engine.answered.items()
    )
    settings = engine.spec.everup
    if starvation.may_postpone(engine.guard, since, settings, now, others_answer=others):
        if since is None:
            _postpone(engine, instance.slot, reason, engine.guard.sign)
            engine.probes[key] = state._replace(postponed_since=now)
        return
    evidence = onset.failed(engine, instance, result.kind, now)
    engine.happen(
        instance.slot, Happening(On.UNHEALTHY, reason, evidence=evidence), now, instance.run
    )


def _postpone(engine: Supervised, slot: Slot, reason: str, sign: str) -> None:
    engine.record(Kind.POSTPONED, str(slot), verdict=reason, sign=sign)


def watchdog_missed(engine: Supervised, instance: Instance, now: float) -> None:
    """The service was silent for longer than its watchdog interval."""
    reason = f"watchdog: no WATCHDOG=1 for {instance.watchdog_s:g} s"
    assert instance.watchdog_at is not None
    # watchdog_at moves on with each postponement, by less than watchdog_s; the first one is
    # the only one that starts from a whole interval of silence, and only it is journaled.
    due = instance.watchdog_at
    key = (instance.slot, instance.run, ProbeKind.LIVENESS)
    later = now + min(1.0, instance.watchdog_s)
    if spare.spared(engine, instance, reason, now):
        engine.put(replace(instance, watchdog_at=later), now)
        return
    state = engine.probes.get(key, _UNTRIED)
    since, settings = state.postponed_since, engine.spec.everup
    deaf = engine.guard.deaf(now, instance.watchdog_s)
    if deaf or starvation.may_postpone(engine.guard, since, settings, now):
        if since is None:
            _postpone(engine, instance.slot, reason, _DEAF if deaf else engine.guard.sign)
            engine.probes[key] = state._replace(postponed_since=due)
        engine.put(replace(instance, watchdog_at=later), now)
        return
    evidence = onset.failed(engine, instance, onset.WATCHDOG, now)
    engine.happen(
        instance.slot, Happening(On.UNHEALTHY, reason, evidence=evidence), now, instance.run
    )


def left(engine: Supervised, event: Left, now: float) -> None:
    """The main process has ended as asked, others are still to end."""
    instance = engine.process(event.slot, event.run)
    if instance is None:
        return
    stop_signal = engine.definition(instance).stop_signal
    engine.record(
        Kind.LINGERING, str(event.slot), run=event.run, cause=str(event.cause),
        left=list(event.names), signal=stop_signal,
    )  # fmt: skip
    engine.happen(event.slot, Happening(On.LEFT, cause=event.cause), now, event.run)


def notified(engine: Supervised, event: Notified, now: float) -> None:
    """One sd_notify message of a process of this instance."""
    slot, fields = event.slot, dict(event.fields)
    instance = engine.process(slot, event.run)
    if instance is None:
        return
    if not instance.has_process:
        if instance.state is State.STARTING and instance.phase == "spawn":
            _keep(engine, event)
        return
    run = instance.run
    if "STATUS" in fields:
        instance = _put(engine, replace(instance, status_text=fields["STATUS"][:500]), now)
    if (main := _number(fields.get("MAINPID"))) and main != instance.pid:
        facts = dict(instance.facts) | dict(event.main)
        engine.record(Kind.MAIN, str(slot), **facts, run=run, pid=main)
        engine.emit(MainPid(slot, run, main))
        instance = _put(engine, replace(instance, pid=main, facts=facts), now)
    instance = _timing(engine, instance, fields, now)
    if fields.get("RESTART_RESET") == "1":
        instance = _put(engine, replace(instance, attempt=0, crashes=(), parked=False), now)
    if fields.get("RELOADING") == "1" and instance.state is State.READY:
        _reloading(engine, instance, fields, now)
    if fields.get("STOPPING") == "1" and instance.state is State.READY:
        engine.happen(slot, Happening(On.UNREADY, "it says that it stops"), now, run)
    if fields.get("READY") == "1":
        if instance.state is State.STARTING and engine.definition(instance).notify:
            starting.said_ready(engine, instance, now)
        elif instance.state in _UP and "RELOADING" not in fields:
            _clear(engine, _put(engine, replace(instance, reloads_until=None), now), now)
    if fields.get("WATCHDOG") == "trigger" and instance.state in _UP:
        engine.happen(slot, Happening(On.UNHEALTHY, "watchdog: it reported itself"), now, run)


def _keep(engine: Supervised, event: Notified) -> None:
    """It says something before its start was told: its word has overtaken the keeper's."""
    kept = [e for e in engine.early.get(event.slot, ()) if e.run == event.run]
    engine.early[event.slot] = [*kept, event][-_MOST_EARLY:]


def spawned(engine: Supervised, slot: Slot, run: int, now: float) -> None:
    """Hear what the process of that run has said already."""
    for event in engine.early.pop(slot, ()):
        if event.run in (None, run):
            notified(engine, event, now)


def _reloading(
    engine: Supervised, instance: Instance, fields: Mapping[str, str], now: float
) -> None:
    """Out of the balance until READY=1, for as long as a start may take. MONOTONIC_USEC (systemd
    257) says when it began: what was said before this process was is not meant for now."""
    stamp = _number(fields.get("MONOTONIC_USEC"))
    began = now if stamp is None else min(now, stamp * _USEC)
    if began < (instance.spawned_at or began):
        return
    until = began + engine.definition(instance).start_timeout
    reason = "it reloads"
    engine.put(replace(instance, suspected=True, reason=reason, reloads_until=until), now)


def reload_overdue(engine: Supervised, instance: Instance, now: float) -> None:
    """It has reloaded for longer than a start may take: probes decide again, if there are any."""
    instance = _put(engine, replace(instance, reloads_until=None), now)
    if probe_of(engine.definition(instance), ProbeKind.READINESS) is None:
        _clear(engine, instance, now)


def _put(engine: Supervised, instance: Instance, now: float) -> Instance:
    engine.put(instance, now)
    return instance


def _timing(
    engine: Supervised, before: Instance, fields: Mapping[str, str], now: float
) -> Instance:
    instance = before
    if usec := _number(fields.get("WATCHDOG_USEC")):
        instance = replace(instance, watchdog_s=min(usec * _USEC, _MAX_EXTENSION_S))
        if instance.state in _UP:
            instance = replace(instance, watchdog_at=now + instance.watchdog_s)
    if fields.get("WATCHDOG") == "1" and instance.watchdog_at is not None:
        onset.pinged(engine, instance, now)
        instance = replace(instance, watchdog_at=now + instance.watchdog_s)
        engine.spared.pop((instance.slot, instance.run), None)
        key = (instance.slot, instance.run, ProbeKind.LIVENESS)
        if (state := engine.probes.get(key)) and state.postponed_since and not state.failures:
            engine.probes[key] = state._replace(postponed_since=None)
    extend = _number(fields.get("EXTEND_TIMEOUT_USEC"))
    waiting = instance.state in (State.STARTING, State.STOPPING) and not instance.verdict
    if extend and waiting and instance.deadline is not None:
        until = now + min(extend * _USEC, _MAX_EXTENSION_S)
        instance = replace(instance, deadline=max(instance.deadline, until))
    return instance if instance is before else _put(engine, instance, now)


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 20 else None
