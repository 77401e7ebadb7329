"""What a room is, and the events that the kernel itself brings to rooms."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from everup.kernel.ctx import Ctx


class Room(Protocol):
    """Decides about one concern. It has no clock, no randomness and no I/O: all comes in events
    and through ``ctx``, and all that it wants done goes out as actions.

    Rooms know facts, never each other. An exception out of ``step`` is a defect: it ends the
    process, and the next one rebuilds its state from the journal.
    """

    hears: ClassVar[tuple[type, ...]]
    """Types of the events and facts that ``step`` is called with."""

    def step(self, event: Any, ctx: Ctx[Any]) -> None:
        """Take one event or fact."""
        ...

    def view(self) -> Mapping[str, object]:
        """Show the state of the room as plain data, for the API and for tests that replay."""
        ...

    def next_deadline(self) -> float | None:
        """When ``Tick`` is due for this room at the latest, in monotonic seconds; None: never."""
        ...

    def check_invariants(self) -> None:
        """Raise ``AssertionError`` where the state contradicts itself; run after every simulated
        step."""
        ...


class Quiet:
    """The parts of ``Room`` that most rooms leave empty."""

    def view(self) -> Mapping[str, object]:
        return {}

    def next_deadline(self) -> float | None:
        return None

    def check_invariants(self) -> None:
        return


@dataclass(frozen=True, slots=True)
class Began:
    """A step begins; the event that it is about comes next."""


@dataclass(frozen=True, slots=True)
class Reconcile:
    """Look at this subject: something about it has changed, or its time has come."""

    subject: str


@dataclass(frozen=True, slots=True)
class Rested:
    """Nothing is left to be done in this step, unless who hears this finds something."""


BEGAN, RESTED = Began(), Rested()
