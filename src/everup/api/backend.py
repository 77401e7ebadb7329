"""What the API needs of the process that serves it."""

from typing import Protocol, TypeVar

from everup.adapters.aside import Shelf
from everup.adapters.journal import Journal
from everup.adapters.metrics import Metrics
from everup.adapters.place import Place
from everup.engine.core import Engine
from everup.model.entry import EntryKind
from everup.model.event import Event

P = TypeVar("P")


class Backend(Protocol):
    """What the API needs of the engine process."""

    engine: Engine
    journal: Journal
    metrics: Metrics
    shelf: Shelf
    place: Place
    keeper_pid: int
    started_at: float

    @property
    def leaving(self) -> bool:
        """Another engine is about to take over; nothing is taken in any more."""
        ...

    def dispatch(self, event: Event) -> None: ...

    def sample(self) -> None: ...

    def now(self) -> float:
        """Give monotonic seconds, as the engine has them."""
        ...

    def write(self, kind: EntryKind[P], subject: str, payload: P) -> None:
        """Write to the journal what is no event of the engine."""

    def held(self, name: str) -> int | None:
        """A descriptor that the keeper holds; ours as well, and not to be closed."""

    def hold(self, name: str, fd: int) -> None:
        """Have the keeper hold a descriptor for engines to come."""

    def try_out(self, argv: list[str], engine: list[str], version: str) -> str | None:
        """What keeps that keeper or that engine from running, None: nothing. Blocks."""

    def replace(self, argv: list[str], engine: list[str], by: str, version: str) -> None: ...
