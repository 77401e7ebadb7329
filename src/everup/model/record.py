"""The record of one instance: all that the deciders know of it. Replaced, never changed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from everup.model.instance import ExitCause, Slot, State
from everup.model.spec import Service


@dataclass(frozen=True, slots=True)
class Instance:
    """Times are monotonic seconds."""

    slot: Slot
    state: State = State.STOPPED
    since: float = 0.0
    want: bool = False
    """Should run: the operator's or the config's wish."""
    run: int = 0
    """Incarnation: counts the processes that this slot has had."""
    spent: int = 0
    """The highest incarnation used up: a successor that failed leaves its number unused."""
    lane: int = 0
    """Which socket of the service's groups its process has, from 1; 0: none yet."""
    gen: int = 0
    """Generation of the service that it belongs to: each rollout begins a new one."""
    service: Service | None = None
    """What its process was started with, while that is not what the service is by now."""
    outgoing: bool = False
    """A successor of it is on its way, or has taken over already."""
    pid: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What identifies the process beyond its pid, for whoever takes over."""
    phase: str = ""
    """Part of a state: the name of the hook that runs, or ``spawn``."""
    said_ready: bool = False
    """It has sent READY=1."""
    proven: bool = False
    """Its startup probe has succeeded, or it has accepted a connection."""
    spawned_at: float | None = None
    up_at: float | None = None
    """Since when it counts as started."""
    deadline: float | None = None
    """When the state's own time is over: start, stop or drain timeout, backoff, stability."""
    watchdog_at: float | None = None
    watchdog_s: float = 0.0
    attempt: int = 0
    """Failures in a row; the backoff grows with it."""
    crashes: tuple[float, ...] = ()
    """Times of the crashes inside the intensity window."""
    parked: bool = False
    """Too many crashes: until it has been stable, each further one parks it again."""
    restarts: int = 0
    last_exit: ExitCause | None = None
    verdict: str = ""
    """Why everup itself ends the process as failed; its end then counts as a crash."""
    asked: bool = False
    """Its stop was asked for (by an operator, a restart, a group): its end is no crash."""
    reason: str = ""
    """Why it is where it is, for people."""
    done: bool = False
    """A oneshot that has succeeded."""
    is_ready: bool = True
    """The last word of the readiness probe."""
    suspected: bool = False
    reloads_until: float | None = None
    """It has said RELOADING=1, and is out of the balance until it says READY=1, or until then."""
    status_text: str = ""
    """What the service says of itself (sd_notify STATUS)."""

    @property
    def has_process(self) -> bool:
        return self.pid > 0

    def next_deadline(self) -> float | None:
        times = (self.deadline, self.watchdog_at, self.reloads_until)
        return min((at for at in times if at is not None), default=None)
