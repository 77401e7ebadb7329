"""Takes what Nagios' event handler tells, and keeps what is still so over the observer's end."""

import asyncio
import time
from typing import Final

from everup.integrations.nagios.command import name
from everup.integrations.nagios.config import Handler
from everup.integrations.nagios.edge.door import Door
from everup.integrations.nagios.handled import OVER, SAYS, Event, Failing, Reader, RefusedError
from everup.observer import kept
from everup.observer.feed import Feed

_SUBJECT: Final = "nagios handler"
_KIND: Final = "reported"
_KEPT: Final = "failing.json"


class Taker:
    """Makes a condition of what Nagios says fails, and ends it when Nagios says that it is over."""

    def __init__(self, feed: Feed, table: Handler, host: str, told: bool) -> None:
        """``told``: Nagios is told of everup's own services as those of ``host``."""
        self._feed = feed
        self._table = table
        self._host = name(host)
        self._told = told
        self._kept = feed.folder("nagios") / _KEPT
        self._failing = Failing(kept.read(self._kept))
        self._reader: Reader | None = None
        allowed = ("127.0.0.0/8", "::1")
        self._door = Door(feed, _SUBJECT, table.listen, allowed, self._converse)

    async def run(self) -> None:
        """Listen, for ever; tell everup where that is not possible."""
        try:
            self._reader = Reader(self._feed.secret(self._table.secret_file))
        except (OSError, ValueError) as error:
            self._door.tell(False, f"it is not opened: {error}")
            return
        await self._door.run()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._reader is not None
        try:
            event = self._reader.read(await reader.readline(), time.time())
            writer.write(f"{await self._take(event)}\n".encode())
        except RefusedError as error:
            writer.write(f"refused: {error}\n".encode())

    async def _take(self, event: Event) -> str:
        services = {service["name"] for service in (await self._feed.status())["services"]}
        told = services | {"everup"} if self._told else ()
        if event.host == self._host and event.service in told and not event.about:
            return "ignored: everup told Nagios of it"
        found = self._failing.take(event, self._host, services)
        if found is None:
            return "ignored: it changes nothing"
        subject, text = found
        kept.write(self._kept, self._failing.as_kept())
        if not event.failing:
            if subject not in ours(self._feed):
                return "ignored: it is over already"
            # A condition keeps the words that it began with: what is left is another.
            self._feed.report(_KIND, subject, True, OVER)
        if text:
            self._feed.report(_KIND, subject, False, text)
        return "taken"


def ours(feed: Feed) -> set[str]:
    """Give the subjects of which this was reported, and that are not over, also by an observer
    before this one. Other systems report, too: the text tells."""
    return {
        condition.subject
        for incident in feed.incidents()
        for condition in incident.active.values()
        if condition.kind == _KIND and condition.text.startswith(SAYS)
    }


def forget(feed: Feed) -> None:
    """End what was reported while there was a handler: nobody else will."""
    found = ours(feed)
    for subject in found:
        feed.report(_KIND, subject, True, "nobody listens to Nagios any more")
    if found:
        (feed.folder("nagios") / _KEPT).unlink(missing_ok=True)
