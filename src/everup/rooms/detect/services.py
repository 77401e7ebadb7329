"""Conditions of services and instances, from what the journal tells of their lives."""

from collections.abc import Callable
from typing import Final

from everup.model.journal import Entry
from everup.rooms.detect.board import Begin, End
from everup.rooms.detect.life import LOOP_S, Life

HOLD_S: Final = 1.0
"""A service that is ready again sooner has restarted, and was not down."""
WELL_S: Final = 5.0
STABLE_S: Final = 10.0
Wake = Callable[[str, float], None]


class Services:
    """Follows lives. ``begin`` and ``end`` take conditions, which may be active already, or not;
    ``wake`` asks for a service to be looked at after so many seconds."""

    def __init__(self, begin: Begin, end: End, wake: Wake) -> None:
        self._begin, self._end, self._wake = begin, end, wake
        self.lives: dict[str, Life] = {}

    def take(self, entry: Entry) -> None:
        """Learn from an entry about an instance."""
        life = self.lives.get(entry.subject)
        if life is None:
            life = self.lives[entry.subject] = Life(entry.subject)
        before = life.failed, len(life.ends)
        life.take(entry)
        if life.failed and (not before[0] or entry.kind == "instance.exited"):
            self._failed(life, entry)
        if entry.kind == "instance.parked":
            text = f"is parked: {life.why}"
            self._begin("parked", life.name, text, entry.time, (f"journal: {text}",))
        if entry.kind == "instance.unhealthy":
            text = f"lives and does not serve: {life.why}"
            self._begin("hung", life.name, text, life.failed_at, (f"verdict: {life.why}",))

    def _failed(self, life: Life, entry: Entry) -> None:
        if entry.kind != "instance.waiting":
            text = f"failed: {life.why}"
            self._begin("crashed", life.name, text, life.failed_at, (f"journal: {entry.kind}",))
        if life.loops():
            text = f"ended {len(life.ends)} times in {life.ends[-1] - life.ends[0]:.0f} s"
            self._begin("crash_looping", life.name, text, life.ends[0], (f"last: {life.why}",))

    def look(self, service: str, now: float) -> None:
        """Look at a service as it is at that time, in seconds since the epoch."""
        lives = [life for life in self.lives.values() if life.service == service]
        for life in lives:
            self._look_at(life, now)
        wanted = [life for life in lives if not life.stopped]
        ready = [life for life in wanted if life.ready]
        failed = [life for life in wanted if life.failed and not life.ready]
        ago = [now - life.failed_at for life in failed]
        if failed and max(ago) < HOLD_S:
            self._wake(service, HOLD_S - max(ago))
        elif failed and not ready:
            first = min(failed, key=lambda life: life.failed_at)
            seen = tuple(f"{life.name} {life.state}: {life.why}" for life in failed[:8])
            text = "has no instance that is ready"
            self._end("degraded", service, "none is ready")
            self._begin("down", service, text, first.failed_at, seen)
        elif failed:
            seen = tuple(f"{life.name} {life.state}: {life.why}" for life in failed[:8])
            text = f"has {len(ready)} of {len(wanted)} instances ready"
            self._begin("degraded", service, text, min(x.failed_at for x in failed), seen)
        self._over(service, wanted, ready, now)

    def _over(self, service: str, wanted: list[Life], ready: list[Life], now: float) -> None:
        if not wanted:
            self._end("down", service, "it is stopped")
            self._end("degraded", service, "it is stopped")
            return
        well = [life for life in ready if now - life.ready_at >= WELL_S]
        if well:
            self._end("down", service, f"{well[0].name} is ready")
        if len(well) == len(wanted):
            self._end("degraded", service, "all of them are ready")
        elif ready:
            self._wake(service, WELL_S - min(now - life.ready_at for life in ready))

    def _look_at(self, life: Life, now: float) -> None:
        if life.stopped:
            for kind in ("crashed", "crash_looping", "parked", "hung"):
                self._end(kind, life.name, "it is stopped")
        if not life.ready:
            return
        for_s = now - life.ready_at
        self._end("hung", life.name, "another process of it is ready")
        waits = [s - for_s for s in (STABLE_S, LOOP_S) if s > for_s]
        if for_s >= STABLE_S:
            self._end("crashed", life.name, f"it has been ready for {STABLE_S:.0f} s")
            self._end("parked", life.name, "it is ready")
        if for_s >= LOOP_S:
            life.ends.clear()
            self._end("crash_looping", life.name, f"it has been ready for {LOOP_S:.0f} s")
        if waits:
            self._wake(life.service, min(waits))

    def scaled(self, entry: Entry) -> None:
        """Forget the instances that a service has no more."""
        replicas = entry.payload.get("replicas")
        if isinstance(replicas, int):
            gone = entry.subject
            self.forget(lambda life: life.service != gone or life.number <= replicas)

    def forget(self, keep: Callable[[Life], bool]) -> None:
        """Forget instances that are there no more."""
        for name in [name for name, life in self.lives.items() if not keep(life)]:
            for kind in ("crashed", "crash_looping", "parked", "hung"):
                self._end(kind, name, "its service is gone")
            self._end("down", self.lives[name].service, "it is gone")
            self._end("degraded", self.lives[name].service, "it is gone")
            del self.lives[name]
