"""Actions: what the engine wants done. The order of a list of them is the order to do them in."""

from dataclasses import dataclass, field
from typing import Any

from everup.model.entry import EntryKind
from everup.model.event import Hook
from everup.model.instance import Slot
from everup.model.journal import Kind
from everup.model.spec import Listener


@dataclass(frozen=True, slots=True)
class Record:
    """Write this to the journal. Stands before the action that it announces."""

    kind: Kind | EntryKind[Any]
    subject: str
    payload: dict[str, Any] = field(default_factory=dict)
    durable: bool = False
    """Must outlive a power cut (an operator's word), not only the death of everup."""


@dataclass(frozen=True, slots=True)
class Spawn:
    slot: Slot
    run: int
    lane: int = 0
    fence: int = 0
    """For a singleton: the token by which it is this machine's."""
    until: float = 0.0
    """When the keeper kills it, by CLOCK_BOOTTIME; 0: never."""


@dataclass(frozen=True, slots=True)
class Bound:
    """The keeper kills everything of this process at ``until``, by CLOCK_BOOTTIME, whoever else is
    dead by then; unless another time is said before."""

    slot: Slot
    run: int
    until: float


@dataclass(frozen=True, slots=True)
class RunHook:
    slot: Slot
    run: int
    hook: Hook


@dataclass(frozen=True, slots=True)
class Signal:
    """``scope``: the ``main`` process, or ``all`` of the instance."""

    slot: Slot
    run: int
    signal: str
    scope: str = "main"


@dataclass(frozen=True, slots=True)
class GiveTime:
    """The process is about to be stopped: when its main process has ended, what is left of the
    instance gets this signal and time to end, and not SIGKILL at once as after a crash."""

    slot: Slot
    run: int
    signal: str


@dataclass(frozen=True, slots=True)
class MainPid:
    """The service handed over to another main process."""

    slot: Slot
    run: int
    pid: int


@dataclass(frozen=True, slots=True)
class Watch:
    """Run the probes of this process: only the startup probe, or the others."""

    slot: Slot
    run: int
    startup: bool


@dataclass(frozen=True, slots=True)
class Unwatch:
    slot: Slot
    run: int


@dataclass(frozen=True, slots=True)
class WatchDrain:
    """Report ``Drained`` once no client connection is open."""

    slot: Slot
    run: int


@dataclass(frozen=True, slots=True)
class OpenSockets:
    """Open what is missing of the lanes 1 to ``lanes``."""

    service: str
    lanes: int


@dataclass(frozen=True, slots=True)
class MendSockets:
    """Make the sockets of a service listen again, and give them their paths back; ``anew``: open
    others in the place of those that can't be had back."""

    service: str
    anew: bool = False


@dataclass(frozen=True, slots=True)
class EmptyQueue:
    """Nobody serves this lane any more: end the connections that wait on its socket, so that
    their clients need not find out by a time-out."""

    service: str
    lane: int


@dataclass(frozen=True, slots=True)
class CloseSockets:
    service: str
    listen: tuple[Listener, ...] = ()
    kept: tuple[str, ...] = ()
    """Names of those that stay open, with the clients that wait there."""


@dataclass(frozen=True, slots=True)
class SetBalance:
    """New connections go to these lanes (numbers from 1), in equal parts."""

    service: str
    lanes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Forget:
    """The slot was scaled away."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Configure:
    """Settings of the service that its processes need not know have changed."""

    service: str


@dataclass(frozen=True, slots=True)
class Commit:
    """The reload has succeeded: the new config is the accepted one from now on."""


@dataclass(frozen=True, slots=True)
class Discard:
    """The reload was rolled back: the accepted config stays."""


@dataclass(frozen=True, slots=True)
class Quit:
    status: int = 0


Effect = Spawn | RunHook | Signal | GiveTime | MainPid


class Asked:
    """An action that a room of its own asks for; the room's edge carries it out."""

    __slots__ = ()


Action = (
    Asked | Record | Effect | Bound | Watch | Unwatch | WatchDrain | OpenSockets | MendSockets
    | EmptyQueue | CloseSockets | SetBalance | Forget | Configure | Commit | Discard | Quit
)  # fmt: skip
