"""What all kinds of attempt at a probe have in common."""

from collections.abc import Callable
from math import inf
from typing import Protocol

from everup.adapters.probes._plan import Plan
from everup.adapters.probes._reactor import Reactor
from everup.adapters.probes._resolve import Resolver
from everup.adapters.probes._search import Searcher
from everup.adapters.probes._tls import Contexts


class Owner(Protocol):
    """What an attempt needs of the prober."""

    @property
    def reactor(self) -> Reactor:
        """Waits for descriptors."""
        ...

    @property
    def resolver(self) -> Resolver:
        """Finds addresses."""
        ...

    @property
    def contexts(self) -> Contexts:
        """Reads certificates."""
        ...

    @property
    def searcher(self) -> Searcher:
        """Searches bodies."""
        ...

    @property
    def now(self) -> Callable[[], float]:
        """The loop's clock."""
        ...

    def finished(self, attempt: "Attempt", ok: bool, detail: str) -> None:
        """The verdict; called once, and not after ``cancel``."""

    def ended(self, attempt: "Attempt") -> None:
        """Nothing is left to do after a verdict; called once, and not after ``cancel``."""


class Judge(Protocol):
    """Judges one answer as its bytes come in."""

    received: int
    headers_done: bool
    done: bool
    complete: bool
    garbage: bool
    ok: bool
    detail: str

    def feed(self, data: bytes) -> bool:
        """Takes the next bytes (at least one); true once there is a verdict."""
        ...

    def end(self) -> None:
        """The peer has closed: now there is a verdict in any case."""

    def skip(self, data: bytes) -> bool:
        """Takes bytes that come after the verdict; true once the answer is complete."""
        ...

    def progress(self) -> str:
        """How far it had come when time ran out."""
        ...

    def release(self) -> None:
        """Drops all but the verdict."""


class Attempt:
    """What all kinds of attempt have in common. ``begin`` once, then ``on_timer`` at ``wake_s``."""

    __slots__ = ("deadline_s", "lateness_s", "lingers", "owner", "plan", "started_s", "wake_s")

    def __init__(self, owner: Owner, plan: Plan, started_s: float, lateness_s: float) -> None:
        self.owner = owner
        self.plan = plan
        self.started_s = started_s
        self.lateness_s = lateness_s
        self.lingers = False
        """The verdict is out, but something is still to be brought to its end."""
        self.deadline_s = self.wake_s = started_s + plan.timeout_s

    def begin(self) -> None:
        """Starts; the verdict may be there before this returns."""
        raise NotImplementedError

    def on_timer(self, now_s: float) -> None:
        """``wake_s`` has come."""
        raise NotImplementedError

    def cancel(self) -> bool:
        """Ends it without a verdict; false if something of it still runs, and ``ended`` follows."""
        raise NotImplementedError

    def could_not_ask(self) -> None:
        """The verdict to come proves nothing, and no limit of lateness makes it do so: it is
        everup's own trouble, or that of a plugin."""
        self.lateness_s = inf
