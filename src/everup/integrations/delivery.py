"""Hands results to one channel, each channel by itself: one that hangs delays no other.

What waits is bounded by what there is to tell of: a newer result takes the place of the older one
of the same service, so nothing older arrives after something newer.
"""

import asyncio
from collections.abc import Hashable, Sequence
from typing import Final, Generic, Protocol, TypeVar

from everup.observer.feed import Feed

MOST_WAITING: Final = 10_000
_FIRST_AGAIN_S: Final = 0.25
_LAST_AGAIN_S: Final = 15.0


class ChannelError(Exception):
    """Nothing more could be delivered; the text says what happened and what to do."""


class Keyed(Protocol):
    """What is told: of each ``key`` the newest only."""

    @property
    def key(self) -> Hashable: ...


T = TypeVar("T", bound=Keyed)
U = TypeVar("U", contravariant=True)


class Channel(Protocol[U]):
    """One way to the other system."""

    @property
    def name(self) -> str:
        """Say which way it is, for people: ``nagios command file``."""
        ...

    async def send(self, items: Sequence[U]) -> int:
        """Deliver from the first on; return how many were. Raises ``ChannelError``."""
        ...


class Reached:
    """Decides what is told of whether a channel works, and why it does not.

    A condition keeps the words that it began with: another reason is told as another condition,
    once it has come twice in a row, so that two that alternate do not fill the journal.
    """

    def __init__(self) -> None:
        self._works: bool | None = None
        self._told = self._last = ""

    def failed(self, why: str) -> Sequence[tuple[bool, str]]:
        """Give what is to be told of a failure: whether all is well, and the words."""
        again, self._last = why == self._last, why
        told = [(False, f"cannot be told how the services are: {why}")]
        if self._works is not False:
            self._works, self._told = False, why
            return told
        if why == self._told or not again:
            return ()
        self._told = why
        return [(True, "it fails for another reason now"), *told]

    def works(self) -> Sequence[tuple[bool, str]]:
        """Give what is to be told of a success. The first one is: an observer before this one may
        have told that it failed."""
        before, self._works, self._last = self._works, True, ""
        return () if before is True else [(True, "it is reached again")]


class Delivery(Generic[T]):
    """What waits for one channel. ``run`` goes on until it is cancelled."""

    def __init__(self, feed: Feed, channel: Channel[T]) -> None:
        self._feed = feed
        self._channel = channel
        self._waiting: dict[Hashable, T] = {}
        self._news = asyncio.Event()
        self.dropped = 0
        """How many did not find room."""

    def put(self, item: T) -> None:
        """Take one; it takes the place of an older one of the same key."""
        # In the order of the newest: what is told again goes behind what has waited longer.
        self._waiting.pop(item.key, None)
        if len(self._waiting) >= MOST_WAITING:
            self._waiting.pop(next(iter(self._waiting)))
            self.dropped += 1
        self._waiting[item.key] = item
        self._news.set()

    async def run(self) -> None:
        """Deliver, for ever; tell everup when the channel fails, and when it works again."""
        again_s, reached = _FIRST_AGAIN_S, Reached()
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._empty()
            except ChannelError as error:
                for ok, text in reached.failed(str(error)):
                    self._tell(ok, text)
                await asyncio.sleep(again_s)
                again_s = min(2 * again_s, _LAST_AGAIN_S)
                self._news.set()
                continue
            for ok, text in reached.works():
                self._tell(ok, text)
            again_s = _FIRST_AGAIN_S

    async def _empty(self) -> None:
        while self._waiting:
            items = list(self._waiting.values())
            count = await self._channel.send(items)
            for item in items[:count]:
                if self._waiting.get(item.key) is item:
                    del self._waiting[item.key]

    def _tell(self, ok: bool, text: str) -> None:
        self._feed.report("unreached", self._channel.name, ok, text)
