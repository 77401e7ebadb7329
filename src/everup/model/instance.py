"""Instances: one running copy of a service, its states, and why it ended."""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Slot(NamedTuple):
    """The place of one replica: ``web.1``. It outlives the processes that fill it."""

    service: str
    replica: int

    def __str__(self) -> str:
        return f"{self.service}.{self.replica}"

    @classmethod
    def parse(cls, text: str) -> "Slot":
        service, _, replica = text.rpartition(".")
        if not service or not replica.isdigit():
            raise ValueError(f"{text!r} is no instance; expected SERVICE.REPLICA, like web.1")
        return cls(service, int(replica))


class State(StrEnum):
    """Where an instance is in its life (design, section 6)."""

    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    PARKED = "parked"
    FAILED = "failed"

    @property
    def alive(self) -> bool:
        """Whether a process may exist in this state."""
        return self in _ALIVE


_ALIVE = frozenset({State.STARTING, State.RUNNING, State.READY, State.DRAINING, State.STOPPING})


class BreakerState(StrEnum):
    """What an instance says of its circuit breaker for something that it depends on."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    ISOLATED = "isolated"


class ExitKind(StrEnum):
    """What ended a process."""

    CODE = "code"
    SIGNAL = "signal"
    OOM = "oom"
    SPAWN = "spawn"
    """It never ran: the command, user or directory was refused."""
    HOOK = "hook"
    """Its pre_start hook failed."""
    LOST = "lost"
    """It ended while nobody watched; the status is not known."""


@dataclass(frozen=True, slots=True)
class ExitCause:
    """Why a process ended. ``killed_for`` is set when everup killed it, with the reason."""

    kind: ExitKind
    value: int = 0
    """Exit code, signal number or errno."""
    detail: str = ""
    killed_for: str = ""

    def __str__(self) -> str:
        match self.kind:
            case ExitKind.CODE:
                text = f"exit {self.value}"
            case ExitKind.SIGNAL:
                text = self.detail or f"signal {self.value}"
            case ExitKind.OOM:
                text = "out of memory"
            case ExitKind.SPAWN | ExitKind.HOOK:
                text = self.detail
            case ExitKind.LOST:
                text = "ended unseen"
        return f"{text} ({self.killed_for})" if self.killed_for else text
