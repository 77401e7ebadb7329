"""The engine: events in, actions out. It has no clock, no randomness and no I/O of its own.

``handle`` runs one event through the rooms and returns what is to be done, in order, every journal
record before the action that it announces.
"""

from collections.abc import Callable, Mapping
from typing import TypeVar

from everup import app
from everup.engine.room import Supervise
from everup.engine.state import Supervised
from everup.kernel.manifest import load
from everup.kernel.room import Room
from everup.kernel.step import Kernel
from everup.model.action import Action, Record, SetBalance, Signal
from everup.model.event import Event
from everup.model.journal import Kind
from everup.model.spec import Spec

R = TypeVar("R")


class Engine(Supervised):
    """The rooms that the engine process hosts, over the state of the supervisor. Not thread-safe:
    one owner.

    ``random`` gives numbers in [0, 1) for jitter; ``scaled`` the numbers of replicas that
    operators have set.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        random: Callable[[], float],
        scaled: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(spec, random=random, scaled=scaled)
        rooms: dict[str, Room] = {
            manifest.name: load(manifest.room)() if manifest.room else Supervise(self)
            for manifest in app.hosted("engine")
            if manifest.room or manifest.name == "supervise"
        }
        self.kernel: Kernel[Supervised] = Kernel(rooms, self, self.box, random)

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one event; the actions are to be carried out in their order.

        Raises ``CannotChangeError`` for a reload that is refused: nothing has changed. Any other
        exception is a defect, and this engine must not be used any more.
        """
        return _balance_first(self.kernel.handle(event, now))

    def room(self, kind: type[R]) -> R:
        """Give the room of that class, for reading. Raises ``LookupError`` where there is none."""
        for room in self.kernel.rooms.values():
            if isinstance(room, kind):
                return room
        raise LookupError(f"this process hosts no {kind.__name__}")

    def next_deadline(self) -> float | None:
        """When ``Tick`` is due at the latest."""
        return self.kernel.next_deadline()


def _balance_first(actions: list[Action]) -> list[Action]:
    """Nobody is told to stop while new connections are still sent there."""
    if not actions:
        return actions
    first = next((n for n, action in enumerate(actions) if isinstance(action, Signal)), None)
    if first is None:
        return actions
    late = [action for action in actions[first:] if _is_balance(action)]
    rest = [action for action in actions[first:] if not _is_balance(action)]
    return [*actions[:first], *late, *rest]


def _is_balance(action: Action) -> bool:
    return isinstance(action, SetBalance) or (
        isinstance(action, Record) and action.kind is Kind.BALANCE
    )
