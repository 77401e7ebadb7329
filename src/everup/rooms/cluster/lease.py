"""What a cluster needs of an engine of agreement, in a form that more than one engine can give."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


class UnreachedError(Exception):
    """No member of the engine gave a whole answer in time; the text says why, without secrets.

    What was asked for may have been done, or may yet be: whoever has to know looks again.
    """


class RefusedError(Exception):
    """The engine answered that it does not do that; the text says why."""


@dataclass(frozen=True, slots=True)
class Item:
    """One key and what it holds."""

    value: str
    token: int
    """The revision that it was made at: grows from owner to owner, so it is the fencing token."""
    session: int = 0
    """The session that it goes with; 0: none."""


@dataclass(frozen=True, slots=True)
class Look:
    """Everything under a prefix at one moment that a majority has confirmed."""

    revision: int
    term: int
    """Of the engine's own leader, by the member that answered."""
    items: Mapping[str, Item] = field(default_factory=dict)
    """By key, without the prefix."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """A session was told to go on."""

    ttl_s: float
    """From when it was asked for; 0: there is no such session any more."""
    term: int
    """Of the engine's own leader, by the member that answered."""


class Lease(Protocol):
    """Keys that go when the session of their owner is not renewed in time.

    Every method raises ``UnreachedError`` where nobody answers, and ``RefusedError``.
    """

    async def begin(self, ttl_s: float) -> tuple[int, float]:
        """Begin a session; gives its number and the seconds that it lives unless renewed."""
        ...

    async def renew(self, session: int) -> Renewed:
        """Have a session go on for its whole time."""
        ...

    async def end(self, session: int) -> None:
        """End a session: its keys go at once."""
        ...

    async def acquire(self, key: str, value: str, session: int, drop: Sequence[str] = ()) -> bool:
        """Make a key that goes with a session where nobody has it, and drop others with it in one
        step; tells whether it was made."""
        ...

    async def release(self, key: str, token: int) -> bool:
        """Drop a key if it is still the one made at ``token``; tells whether it was."""
        ...

    async def put(self, key: str, value: str, session: int) -> None:
        """Write a key that goes with a session, whoever had it."""
        ...

    async def look(self, prefix: str) -> Look:
        """Read everything under a prefix, as a majority has it now."""
        ...

    def watch(self, prefix: str, after: int) -> AsyncIterator[int]:
        """Tell the revision of each change under a prefix above ``after``, for ever, over
        broken connections. Changes that come together may be told as one."""
        ...
