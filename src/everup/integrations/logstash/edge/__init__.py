"""All I/O with Logstash: ``run`` is what the observer calls."""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, Final

from everup.integrations._shipping.cursor import Cursor
from everup.integrations._shipping.following import follow
from everup.integrations._shipping.telling import Health
from everup.integrations._shipping.tls import client_context
from everup.integrations.logstash.config import Logstash
from everup.integrations.logstash.edge.sender import Sender, UnreachedError
from everup.integrations.logstash.records import Record, records
from everup.observer.feed import Feed
from everup.tolerate import backoff

NAME: Final = "logstash"


async def run(feed: Feed) -> None:
    """Ship to whom the table ``[logstash]`` names, until cancelled."""
    table = feed.table("logstash")
    if table is None or not table.hosts:
        return
    try:
        sender = sender_of(table, feed.secret_bytes)
    except (OSError, ValueError) as error:
        named = isinstance(error, OSError) and error.filename
        text = f"{error.filename}: {error.strerror}" if named else str(error)  # type: ignore[union-attr]
        feed.report("unreached", NAME, False, f"nothing is shipped: {text}")
        return
    try:
        await Shipper(feed, table, sender).run()
    finally:
        sender.close()


def sender_of(table: Logstash, secret_bytes: Callable[[str], bytes]) -> Sender:
    """Give who sends to whom the table names. Raises ``OSError``, ``ValueError``."""
    context = None
    if table.encrypted:
        context = client_context(secret_bytes, table.ca_file, table.cert_file, table.key_file)
    return Sender(table.hosts, context, table.timeout, table.compression, table.window)


class Shipper:
    """Ships the journal to one of several hosts. It holds one batch of entries in memory.

    ``again_s``: the first wait after all hosts have failed, 0 or more.
    """

    def __init__(self, feed: Feed, table: Logstash, sender: Sender, again_s: float = 0.2) -> None:
        self._feed = feed
        self._table = table
        self._sender = sender
        self._cursor = Cursor(feed.folder(NAME))
        self._health = Health(feed, NAME)
        self._backoff = backoff.equal(again_s, 5.0)

    async def run(self) -> None:
        """Ship until cancelled."""
        async for entries in follow(self._feed, self._cursor):
            incidents = {incident.number: incident for incident in self._feed.incidents()}
            table = self._table
            node = self._feed.node
            found = records(entries, incidents, node, table.namespace, table.ship)
            await self._deliver(found)
            await self._keep(entries[-1].seq)

    async def _deliver(self, found: Sequence[Record]) -> None:
        at, failed, waited = 0, 0, 0.0
        while at < len(found):
            try:
                async for taken in self._sender.send([document for document, _ in found[at:]]):
                    await self._keep(found[at + taken - 1][1])
                    at += taken
                    failed, waited = 0, 0.0
                    self._health.worked()
            except UnreachedError as error:
                failed += 1
                self._health.failed(f"nothing is shipped: {error}")
                if failed >= len(self._table.hosts):  # the others were tried at once
                    waited = self._backoff(failed, waited, random.random)
                    await asyncio.sleep(waited)

    async def _keep(self, seq: int) -> None:
        while True:
            try:
                self._cursor.write(seq)
                return
            except OSError as error:
                self._health.failed(f"nothing is shipped: its folder cannot be written: {error}")
                await asyncio.sleep(1.0)


SOURCES: Final = (run,)
PERFORMERS: Final[dict[type, Any]] = {}
