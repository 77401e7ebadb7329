"""Events: what reaches the engine from the world and from operators."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from everup.model.instance import BreakerState, ExitCause, Slot, State
from everup.model.signal import ProbeResult
from everup.model.spec import Spec


class Hook(StrEnum):
    PRE_START = "pre_start"
    POST_START = "post_start"
    PRE_STOP = "pre_stop"
    POST_STOP = "post_stop"


@dataclass(frozen=True, slots=True)
class Spawned:
    slot: Slot
    run: int
    pid: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What identifies the process beyond its pid; goes into the journal."""


@dataclass(frozen=True, slots=True)
class SpawnFailed:
    slot: Slot
    run: int
    detail: str


@dataclass(frozen=True, slots=True)
class Exited:
    slot: Slot
    run: int
    cause: ExitCause
    asked_at: float | None = None
    """Since when a probe of it has waited for an answer, monotonic seconds; None: none does."""


@dataclass(frozen=True, slots=True)
class Left:
    """The main process has ended as it was asked to, and others of the instance have not: they
    have their stop signal by now. Their end is that of the instance (``Exited``)."""

    slot: Slot
    run: int
    cause: ExitCause
    names: tuple[str, ...] = ()
    """Of those that are left, for people: ``python3 (pid 12)``."""


@dataclass(frozen=True, slots=True)
class HookDone:
    slot: Slot
    run: int
    hook: Hook
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Probed:
    result: ProbeResult


@dataclass(frozen=True, slots=True)
class Notified:
    """One sd_notify message, already matched to the process that sent it."""

    slot: Slot
    fields: tuple[tuple[str, str], ...]
    run: int | None = None
    """None: of the present incarnation."""
    main: Mapping[str, Any] = field(default_factory=dict)
    """What identifies a new main process (MAINPID)."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What an instance says of something that it depends on."""

    slot: Slot
    dependency: str
    """Its own name for it, not checked against the config."""
    breaker: BreakerState | None = None
    """None: not said."""
    calls: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Those ok, failed, rejected and neutral since it spoke last."""
    p99_ms: float | None = None
    """Of the same calls; None: not said."""
    run: int | None = None
    """None: of the present incarnation."""
    voice: int = 0
    """Which of its processes speaks: a server may have several workers, each with a breaker."""


@dataclass(frozen=True, slots=True)
class Drained:
    """The last open connection of a draining instance has ended."""

    slot: Slot
    run: int


@dataclass(frozen=True, slots=True)
class SocketsLost:
    """Somebody shut listening sockets of a service down, or removed their Unix paths."""

    service: str
    lost: tuple[str, ...]
    """What, in words."""
    anew: bool = False
    """They can't be put back: others must take their place."""


@dataclass(frozen=True, slots=True)
class SocketsMoved:
    """The sockets of a service are back, in another order than before."""

    service: str


@dataclass(frozen=True, slots=True)
class Stranger:
    """Somebody beside everup who listens on a port of a service."""

    detail: str
    slot: Slot | None = None
    """The instance that it is."""
    run: int = 0


@dataclass(frozen=True, slots=True)
class Strangers:
    """All of them, for one service; they have changed."""

    service: str
    strangers: tuple[Stranger, ...]


@dataclass(frozen=True, slots=True)
class Lag:
    """How late everup's own loop was, and the CPU pressure of the machine (PSI, percent)."""

    lag_s: float
    psi: float = 0.0
    deaf: bool = False
    """The notify socket was full: what services said may be lost."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: fire what is due."""


@dataclass(frozen=True, slots=True)
class Adopted:
    """A process of an earlier engine that goes on running."""

    slot: Slot
    run: int
    pid: int
    state: State
    spawned_at: float
    restarts: int = 0
    signalled: bool = False
    """It is stopping and has had its stop signal."""
    lane: int = 0
    gen: int = 0
    since: float | None = None
    """Since when it is in that state, where that is known."""
    outgoing: bool = False
    """Another process has taken its place, or is about to."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    heard: Mapping[str, Any] = field(default_factory=dict)
    """What it had said of its dependencies, as the journal has it; see ``rooms.dependencies``."""
    said_ready: bool = False
    """It had sent READY=1."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A rollout that the engine before did not see the end of."""

    service: str
    gen: int
    slots: tuple[Slot, ...]
    how: str
    by: str = ""
    overlap: bool = True


@dataclass(frozen=True, slots=True)
class Pending:
    """A reload that the engine before did not see the end of."""

    spec: Spec
    by: str = ""
    failed: str = ""
    """It was being rolled back, for this reason."""
    gens: tuple[tuple[str, int], ...] = ()
    """The generation that each service got by it, for those whose turn has come."""
    overlap: bool = True


@dataclass(frozen=True, slots=True)
class Up:
    """everup starts: bring up what should run."""

    wanted: tuple[tuple[Slot, bool], ...] = ()
    """What operators said earlier; where they said nothing, ``autostart`` decides."""
    adopted: tuple[Adopted, ...] = ()
    runs: tuple[tuple[Slot, int], ...] = ()
    """The last incarnation of slots that have no process, so that numbers go on."""
    done: tuple[Slot, ...] = ()
    """Oneshots that succeeded under the same keeper."""
    active: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Who was in the balance of each service: a standby that took over stays in."""
    quitting: bool = False
    """The engine before died while it took everything down: go on with that."""
    gens: tuple[tuple[str, int], ...] = ()
    """The last generation of each service."""
    crashes: tuple[tuple[Slot, int, bool], ...] = ()
    """Slots that were failing: how often in a row, and whether they were parked for it."""
    lost: tuple[tuple[Slot, int], ...] = ()
    """Incarnations that were started and are not there, though nobody saw them end."""
    rollouts: tuple[Unfinished, ...] = ()
    reload: Pending | None = None
    burning: tuple[tuple[str, tuple[float, ...]], ...] = ()
    """Alerts on error budgets that were on, by service: their windows in seconds."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """When services were up and down before this engine, as the journal tells it."""

    spans: tuple[tuple[str, tuple[tuple[float, float, bool], ...]], ...]
    """By service: (from, until, up), monotonic seconds, in order; other time does not count."""


@dataclass(frozen=True, slots=True)
class Down:
    """everup ends: stop everything in order, then quit."""

    by: str = ""


@dataclass(frozen=True, slots=True)
class Start:
    slots: tuple[Slot, ...]
    by: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    slots: tuple[Slot, ...]
    by: str = ""


@dataclass(frozen=True, slots=True)
class Restart:
    slots: tuple[Slot, ...]
    by: str = ""
    overlap: bool = True
    """False: this once no successor starts before the old process has ended."""


@dataclass(frozen=True, slots=True)
class Scale:
    service: str
    replicas: int
    by: str = ""


@dataclass(frozen=True, slots=True)
class Reload:
    """Apply a changed config."""

    spec: Spec
    by: str = ""
    overlap: bool = True
    """False: this once no successor starts before the old process has ended."""


@dataclass(frozen=True, slots=True)
class SendSignal:
    slots: tuple[Slot, ...]
    signal: str
    by: str = ""


@dataclass(frozen=True, slots=True)
class Leased:
    """What the cluster says of a singleton. Times are monotonic seconds but for ``boot_until``."""

    service: str
    token: int
    """0: it is not this machine's."""
    until: float
    """Its process is killed then, unless this is said again."""
    boot_until: float
    """The same by CLOCK_BOOTTIME, which counts the time that the machine sleeps."""
    stop_at: float
    """By then it is asked to stop."""
    yields: bool = False
    """It stops, and does not start by this token again."""


Operator = Up | Down | Start | Stop | Restart | Scale | Reload | SendSignal
World = (
    Spawned
    | SpawnFailed
    | Exited
    | Left
    | HookDone
    | Probed
    | Notified
    | Heard
    | Drained
    | SocketsLost
    | SocketsMoved
    | Strangers
    | Lag
    | Remembered
    | Leased
    | Tick
)
Event = Operator | World
