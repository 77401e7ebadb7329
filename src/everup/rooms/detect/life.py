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
    asked: set[int] = field(default_factory=set)
    """The processes whose end was asked for, by an operator, a rollout or everup going down."""
    stopped: bool = False
    """Nobody wants it to run now, or it has done its work."""
    failed: bool = False
    """It ended unasked, was condemned or could not start, and has not been ready since."""
    runs: set[int] = field(default_factory=set)
    """The processes that are ready: for a while there may be two."""
    ready_at: float = 0.0
    failed_at: float = 0.0
    ends: deque[float] = field(default_factory=lambda: deque(maxlen=LOOP_ENDS))
    why: str = ""
    """How it failed last."""
    state: str = ""
    run: int = 0

    @property
    def service(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def ready(self) -> bool:
        return bool(self.runs)

    @property
    def number(self) -> int:
        return int(self.name.rpartition(".")[2])

    def take(self, entry: Entry) -> None:
        """Learn from one entry about this instance."""
        kind, payload = entry.kind.removeprefix("instance."), entry.payload
        run = payload.get("run")
        run = run if isinstance(run, int) else self.run
        self.run = max(self.run, run)
        match kind:
            case "starting":
                self.stopped = False
                self.state = "is starting"
            case "adopted" if payload.get("state") == "ready":
                self._ready(run, entry.time)
            case "ready":
                self._ready(run, entry.time)
            case "running" if run in self.runs:
                self.runs.discard(run)
                self.state = "runs and is not ready"
                self._fail(entry, "its readiness probe fails")
            case "outgoing" if payload.get("state") == "ready":
                self._ready(run, entry.time)
                self.asked.add(run)
            case "stopping" | "draining" | "outgoing":
                self.asked.add(run)
            case "unhealthy":
                self.runs.discard(run)
                self._fail(entry, str(payload.get("reason") or "a verdict of failure"))
            case "exited" | "lost":
                self._exited(entry, payload, run)
            case "stopped":
                self.stopped, self.failed = True, False
                self.runs.clear()
                self.asked.clear()
                self.ends.clear()
            case "failed" | "parked" | "backoff":
                self._fail(entry, str(payload.get("reason") or self.why or "it failed"))
                self.state = {"failed": "has failed", "parked": "is parked"}.get(kind, "waits")
            case "waiting":
                # Of one that has not failed, what it waits for is the one to tell of.
                self.state = str(payload.get("reason") or "waits")

    def _ready(self, run: int, at: float) -> None:
        if not self.runs:
            self.ready_at = at
        self.runs.add(run)
        self.failed, self.state = False, "is ready"

    def _exited(self, entry: Entry, payload: dict[str, Any], run: int) -> None:
        self.runs.discard(run)
        asked = run in self.asked
        self.asked.discard(run)
        if asked and not payload.get("killed_for"):
            return
        self.ends.append(entry.time)
        self._fail(entry, str(payload.get("cause") or "it ended"))

    def _fail(self, entry: Entry, why: str) -> None:
        if self.runs:
            return  # another process of it serves
        if not self.failed:
            ago = entry.payload.get("failed_s")
            self.failed_at = entry.time - (ago if isinstance(ago, int | float) else 0.0)
        self.failed, self.why = True, why

    def loops(self) -> bool:
        """Tell whether it ended so often that it crash-loops."""
        return len(self.ends) == LOOP_ENDS and self.ends[-1] - self.ends[0] <= LOOP_S
