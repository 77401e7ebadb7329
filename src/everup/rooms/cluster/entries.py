"""The journal kinds of the cluster."""

from dataclasses import dataclass
from typing import Final

from everup.model.entry import EntryKind, Severity


@dataclass(frozen=True, slots=True)
class Joined:
    """This machine is a member."""

    node: str
    cluster: str


@dataclass(frozen=True, slots=True)
class Lost:
    """This machine's session is over, and with it all that it owned."""

    node: str
    owned: list[str]


@dataclass(frozen=True, slots=True)
class Owned:
    """A singleton has another owner."""

    node: str
    """"": nobody."""
    token: int
    before: str
    """"": nobody."""


@dataclass(frozen=True, slots=True)
class Denied:
    """A singleton ran here that is not this machine's."""

    owner: str
    """"": nobody's."""


@dataclass(frozen=True, slots=True)
class Refused:
    """This machine got a singleton and gives it back."""

    why: str


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants a singleton moved."""

    to: str
    by: str


@dataclass(frozen=True, slots=True)
class Twice:
    """Another machine has this one's name."""

    node: str
    seen: str
    """What that one says of itself."""


JOINED: Final = EntryKind(
    "cluster.joined", Joined, "This machine is a member of ``cluster`` as ``node``."
)
LOST: Final = EntryKind(
    "cluster.lost",
    Lost,
    "This machine was not heard of by etcd for longer than ``ttl``: what it owned is another's to "
    "take, and was stopped here before.",
    Severity.WARNING,
    "this machine was not heard of in the cluster for too long, and has lost what it owned",
)
OWNED: Final = EntryKind(
    "cluster.owned",
    Owned,
    "A singleton belongs to ``node`` from now on (empty: nobody), by the fencing token ``token``; "
    "before, it was that of ``before``.",
)
DENIED: Final = EntryKind(
    "cluster.denied",
    Denied,
    "A process of a singleton ran here that this machine does not own (``owner`` does; empty: "
    "nobody): it is killed at once.",
    Severity.WARNING,
    "a process of a singleton ran on a machine that does not own it; it was killed",
)
REFUSED: Final = EntryKind(
    "cluster.refused",
    Refused,
    "This machine got a singleton and gives it back: the guard refuses to start it (``why``).",
)
MOVE_ASKED: Final = EntryKind(
    "cluster.move_asked", Asked, "``by`` wants a singleton moved to the node ``to``."
)
TWICE: Final = EntryKind(
    "cluster.twice",
    Twice,
    "Another machine is a member by the name of this one (``node``; ``seen`` is what it says of "
    "itself): this one stays out. After a restart of the machine that is itself, for ``ttl``.",
    Severity.WARNING,
    "another machine is a member of the cluster by the name of this one, which stays out",
)
KINDS: Final = (JOINED, LOST, OWNED, DENIED, REFUSED, MOVE_ASKED, TWICE)
