"""What the supervisor keeps about rollouts and reloads that are under way. Data only."""

from dataclasses import dataclass, field
from enum import StrEnum

from everup.model.instance import Slot
from everup.model.spec import Service, Spec


class CannotChangeError(Exception):
    """The change needs ``everup down`` and ``everup up``; the text says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """One service that is in both configs and not the same."""

    service: str
    keys: tuple[str, ...]
    """The keys that differ."""
    restart: bool
    cold: bool
    """Its sockets change: all its replicas stop before the first starts again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole difference."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[Change, ...] = ()
    settings: tuple[str, ...] = ()
    """Keys of [everup] that differ, and groups (``group.NAME``)."""

    @property
    def restarted(self) -> tuple[str, ...]:
        return tuple(change.service for change in self.changed if change.restart)

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.settings)


class How(StrEnum):
    """Why there is a rollout."""

    RESTART = "restart"
    RELOAD = "reload"
    ROLLBACK = "rollback"
    VERDICT = "verdict"


@dataclass(frozen=True, slots=True)
class Turn:
    """One slot whose process is being replaced."""

    slot: Slot
    before: int
    """The incarnation that is replaced."""
    deadline: float
    """By then the successor must be ready."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """One service on its way to a generation."""

    gen: int
    how: How
    slots: tuple[Slot, ...]
    waiting: tuple[Slot, ...]
    former: Service
    target: Service
    began: float
    by: str = ""
    cold: bool = False
    """All stop before the first one starts again: the sockets change."""
    turns: tuple[Turn, ...] = ()
    not_before: float = 0.0
    """The pause between two batches."""
    overlap: bool = True
    """False: somebody asked for one without, whatever the definition says."""


@dataclass(frozen=True, slots=True)
class Reloading:
    """A reload under way."""

    spec: Spec
    """The new one."""
    former: Spec
    plan: Plan
    todo: tuple[str, ...]
    """Services that are still to be rolled over, in order."""
    began: float
    deadlines: dict[str, float] = field(default_factory=dict)
    """By when what was added has to be ready."""
    by: str = ""
    failed: str = ""
    """Why all of it goes back."""
    undoing: bool = False
    overlap: bool = True
    """False: no successor starts before the old process has ended."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Until when a singleton is this machine's. Times are monotonic seconds."""

    token: int
    until: float
    boot_until: float
    """By CLOCK_BOOTTIME; 0: the keeper knows."""
    stop_at: float
    yields: bool = False
