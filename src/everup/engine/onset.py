"""Since when an instance has not served, or has again: bounds from its probes and its pings.

A probe that fails after two seconds began two seconds before, and it is the beginning of a probe
that its outcome tells of. So a failure lies between the beginning of the last probe that was
answered and that of the first that was not, and on average in the middle; its end likewise. The
entries of the journal carry both distances, never this module's guess:

- a failure: ``failed_s``, how long before the entry the first probe that failed began, and
  ``ok_ago_s``, how long before that one the last that was answered began;
- the end of one: ``ok_s``, how long before the entry the first probe that was answered again
  began, and ``failed_ago_s``, how long before that one the last failure was known.

Pure: times come with the results.
"""

from typing import Final

from everup.engine.signs import PATIENCE_S, Evidence, Sign, took
from everup.engine.state import Supervised
from everup.model.instance import Slot, State
from everup.model.record import Instance
from everup.model.signal import ProbeKind, ProbeResult

WATCHDOG: Final = "watchdog"
"""Beside the kinds of probes: the pings of the process."""
_UNKNOWN: Final = Sign()


def probed(engine: Supervised, result: ProbeResult, now: float) -> None:
    """Remember one result of a process."""
    key = (result.slot, result.run)
    signs = engine.signs.get(key)
    if signs is None:
        signs = engine.signs[key] = {}
    signs[result.kind] = took(signs.get(result.kind, _UNKNOWN), result, now)


def pinged(engine: Supervised, instance: Instance, now: float) -> None:
    """Remember a sign of life that the process sent by itself."""
    signs = engine.signs.setdefault((instance.slot, instance.run), {})
    before = signs.get(WATCHDOG, _UNKNOWN)
    every_s = 0.0 if before.ok_at is None else now - before.ok_at
    signs[WATCHDOG] = before._replace(ok_at=now, every_s=every_s)


def failed(engine: Supervised, instance: Instance, kind: str, now: float) -> Evidence:
    """What is known of when it began to fail, at a verdict (or suspicion) by this kind of sign."""
    signs = dict(engine.signs.get((instance.slot, instance.run), {}))
    if kind == WATCHDOG:
        signs[WATCHDOG] = _silent(instance, signs.get(WATCHDOG, _UNKNOWN))
    sign = signs.get(kind)
    if sign is None or sign.failed_at is None:
        return {}
    failing = [s for s in signs.values() if s.failed_at is not None]
    failed_at = min(s.failed_at for s in failing if s.failed_at is not None)
    ready = signs.get(ProbeKind.READINESS)
    if kind != ProbeKind.READINESS and ready is not None and ready.failed_at is None:
        if ready.ok_at is not None and ready.ok_at >= failed_at:
            return {"failed_s": 0.0}  # it was ready all the time: it is down from the kill on
        failing.append(ready)
    return _told(failing, failed_at, now)


def ended(engine: Supervised, slot: Slot, run: int, asked_at: float | None, now: float) -> Evidence:
    """The same, at the end of its process. ``asked_at``: since when a probe of it has waited for
    an answer. One that has waited no longer than usual says nothing: it served to the end."""
    signs = engine.signs.get((slot, run), {})
    failing = [s for s in signs.values() if s.failed_at is not None]
    begun = [s.failed_at for s in failing if s.failed_at is not None]
    if asked_at is not None:
        begun.append(asked_at)
    slow_s = max((s.slow_s for s in signs.values()), default=PATIENCE_S)
    if not begun or now - min(begun) <= slow_s:
        return {}
    return _told(failing or list(signs.values()), min(begun), now)


def serves(engine: Supervised, instance: Instance, now: float) -> Evidence:
    """What is known of when it began to serve, at the moment it becomes ready. Told once: what
    failed before is no evidence of the next time."""
    signs = engine.signs.get((instance.slot, instance.run), {})
    good = {k: s.good_since for k, s in signs.items() if s.good_since is not None}
    bad = {k: s.failed_until for k, s in signs.items() if s.failed_until is not None and k in good}
    for kind in bad:
        signs[kind] = signs[kind]._replace(failed_until=None)
    if bad:
        since, until = max(good[kind] for kind in bad), max(bad.values())
    elif good and instance.spawned_at is not None and _is_first(instance):
        since, until = min(good.values()), instance.spawned_at  # the first it was asked
    else:
        return {}
    return {
        "ok_s": round(max(0.0, now - since), 4),
        "failed_ago_s": round(max(0.0, since - until), 4),
    }


def _is_first(instance: Instance) -> bool:
    """It has not been ready since its process was started."""
    return instance.state is State.STARTING or instance.since == instance.up_at


def _silent(instance: Instance, sign: Sign) -> Sign:
    """The ping that did not come was due one distance after the last; of a service that sent less
    than two, half of the interval, as sd_watchdog_enabled(3) asks for."""
    ok_at = instance.up_at if sign.ok_at is None else sign.ok_at
    if ok_at is None:
        return sign
    every_s = sign.every_s or instance.watchdog_s / 2
    return sign._replace(ok_at=ok_at, failed_at=ok_at + min(every_s, instance.watchdog_s))


def _told(failing: list[Sign], failed_at: float, now: float) -> Evidence:
    told = {"failed_s": round(max(0.0, now - failed_at), 4)}
    ok_at = max(
        (s.ok_at for s in failing if s.ok_at is not None and s.ok_at < failed_at), default=None
    )
    if ok_at is not None:
        told["ok_ago_s"] = round(failed_at - ok_at, 4)
    return told
