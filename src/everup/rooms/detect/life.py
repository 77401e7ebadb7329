"""What the journal tells of an instance's life, as far as conditions go by it."""

from collections import deque
from dataclasses import dataclass, field
from typing import Any, Final

from everup.model.journal import Entry

LOOP_ENDS: Final = 3
LOOP_S: Final = 60.0


@dataclass(slots=True)
class Life:
    """One instance."""

    name: str
    asked: bool = False
    """Its end was asked for, by an operator, a rollout or everup going down."""
    stopped: bool = False
    """Nobody wants it to run now, or it has done its work."""
    failed: bool = False
    """It ended unasked, was condemned or could not start, and has not been ready since."""
    ready: bool = False
    ready_at: float = 0.0
    failed_at: float = 0.0
    ends: deque[float] = field(default_factory=lambda: deque(maxlen=LOOP_ENDS))
    why: str = ""
    """How it failed last."""
    state: str = ""

    @property
    def service(self) -> str:
        return self.name.rpartition(".")[0]

    def take(self, entry: Entry) -> None:
        """Learn from one entry about this instance."""
        kind, payload = entry.kind.removeprefix("instance."), entry.payload
        match kind:
            case "starting":
                self.asked = self.stopped = self.ready = False
                self.state = "is starting"
            case "ready":
                self.ready, self.failed, self.ready_at = True, False, entry.time
                self.state = "is ready"
            case "running":
                was = self.ready
                self.ready = False
                if was:
                    self._fail(entry, "its readiness probe fails")
                self.state = "runs and is not ready"
            case "stopping" | "draining" | "outgoing":
                self.asked = True
            case "unhealthy":
                self.ready = False
                self._fail(entry, str(payload.get("reason") or "a verdict of failure"))
            case "exited" | "lost":
                self._exited(entry, payload)
            case "stopped":
                self.stopped, self.ready, self.failed = True, False, False
                self.ends.clear()
            case "failed" | "parked" | "backoff":
                self._fail(entry, str(payload.get("reason") or self.why or "it failed"))
                self.state = {"failed": "has failed", "parked": "is parked"}.get(kind, "waits")
            case "waiting":
                # Of one that has not failed, what it waits for is the one to tell of.
                self.ready, self.state = False, str(payload.get("reason") or "waits")

    def _exited(self, entry: Entry, payload: dict[str, Any]) -> None:
        self.ready = False
        if self.asked and not payload.get("killed_for"):
            self.asked = False
            return
        if payload.get("exit_kind") == "code" and payload.get("value") == 0 and self.asked:
            return
        self.ends.append(entry.time)
        self._fail(entry, str(payload.get("cause") or "it ended"))

    def _fail(self, entry: Entry, why: str) -> None:
        if not self.failed:
            ago = entry.payload.get("failed_s")
            self.failed_at = entry.time - (ago if isinstance(ago, int | float) else 0.0)
        self.failed, self.why = True, why

    def loops(self) -> bool:
        """Tell whether it ended so often that it crash-loops."""
        return len(self.ends) == LOOP_ENDS and self.ends[-1] - self.ends[0] <= LOOP_S
