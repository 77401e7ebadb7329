"""All I/O with Elasticsearch and OpenSearch: ``run`` is what the observer calls."""

import asyncio
import random
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from everup.integrations._shipping import documents
from everup.integrations._shipping.cursor import Cursor
from everup.integrations._shipping.following import follow
from everup.integrations._shipping.incidents import last_told
from everup.integrations._shipping.telling import Health
from everup.integrations.elasticsearch import bulk, names, server
from everup.integrations.elasticsearch.config import Elasticsearch
from everup.integrations.elasticsearch.edge.client import Answer, Client, UnreachedError
from everup.integrations.elasticsearch.edge.refused import DeadLetters
from everup.model.journal import Entry
from everup.observer.feed import Feed
from everup.tolerate import backoff

NAME: Final = "elasticsearch"
_REFUSED: Final = "elasticsearch documents"
_CALM_S: Final = 600.0
_FILTER: Final = "filter_path=errors,items.*.status,items.*.error,error,status"


async def run(feed: Feed) -> None:
    """Ship to whom the table ``[elasticsearch]`` names, until cancelled."""
    table = feed.table("elasticsearch")
    if table is None or not table.urls:
        return
    try:
        client = Client(table, feed.secret, feed.secret_bytes)
    except (OSError, ValueError) as error:
        feed.report("unreached", NAME, False, f"nothing is shipped: {_text(error)}")
        return
    try:
        await Shipper(feed, table, client).run()
    finally:
        await client.close()


class NotYetError(Exception):
    """The server cannot take anything now; the text says why."""

    def __init__(self, text: str, wait_s: float | None = None) -> None:
        super().__init__(text)
        self.wait_s = wait_s


class Shipper:
    """Ships the journal to one server. What it holds in memory is one batch of entries."""

    def __init__(self, feed: Feed, table: Elasticsearch, client: Client) -> None:
        folder = feed.folder(NAME)
        self._feed = feed
        self._table = table
        self._client = client
        self._cursor = Cursor(folder)
        self._letters = DeadLetters(folder)
        self._health = Health(feed, NAME)
        self._backoff = backoff.equal(0.2, 5.0)
        self._dialect: server.Dialect | None = None
        self._most_bytes = bulk.MOST_BYTES
        self._refused = 0
        self._refused_at: float | None = None

    async def run(self) -> None:
        """Ship until cancelled."""
        async for entries in follow(self._feed, self._cursor):
            await self._ship(entries)
            await self._keep(self._cursor.write, entries[-1].seq)
            self._calm()

    async def _ship(self, entries: Sequence[Entry]) -> None:
        batch: bulk.Batch | None = None
        failed, waited = 0, 0.0
        while batch is None or batch.waiting:
            try:
                if self._dialect is None:
                    self._dialect = await self._recognise()
                if batch is None:
                    found = self._documents(entries, self._dialect)
                    batch = bulk.Batch(deque(found), self._most_bytes)
                stored = batch.stored
                await self._send(batch)
            except (UnreachedError, NotYetError) as error:
                asked = error.wait_s if isinstance(error, NotYetError) else None
                failed += 1
                self._health.failed(f"nothing is shipped: {error}")
                self._dialect = None if failed % 10 == 0 else self._dialect  # another server?
                waited = self._backoff(failed, waited, random.random)
                await asyncio.sleep(waited if asked is None else asked)
                continue
            if batch.stored > stored:
                failed, waited = 0, 0.0
                self._health.worked()
        self._most_bytes = batch.most_bytes

    async def _recognise(self) -> server.Dialect:
        """Find out who answers there, and whether it is ready for us."""
        answer = await self._client.ask("GET", "/")
        if answer.status != 200:
            raise NotYetError(f"{self._client.where}: {_refusal(answer)}", answer.retry_after_s)
        try:
            dialect = server.dialect(answer.json())
        except ValueError as error:
            raise NotYetError(f"{self._client.where}: {error}") from error
        for target in self._targets():
            there = await self._client.ask("HEAD", f"/{quote(target)}")
            if there.status == 404:
                raise NotYetError(f"it has no {target} yet: run `everup elasticsearch setup`")
        return dialect

    def _targets(self) -> list[str]:
        made = {"events": names.events, "incidents": names.incidents}
        return [made[kind](self._table.namespace) for kind in self._table.ship]

    def _documents(self, entries: Sequence[Entry], to: server.Dialect) -> list[bulk.Document]:
        node, space = self._feed.node, self._table.namespace
        found: list[bulk.Document] = []
        if "events" in self._table.ship:
            target = names.events(space)
            for entry in entries:
                document = documents.of_entry(entry, node, space)
                action = to.create(target, document["event"]["id"])
                encoded = documents.encode(document)
                found.append(bulk.Document(action, encoded, f"event {entry.seq}"))
        if "incidents" in self._table.ship:
            changed = last_told(entries)
            for incident in self._feed.incidents() if changed else ():
                if incident.number in changed:
                    document = documents.of_incident(incident, node, space)
                    seq = changed[incident.number]
                    action = to.replace(names.incidents(space), document["event"]["id"], seq)
                    label = f"incident {incident.number}"
                    found.append(bulk.Document(action, documents.encode(document), label))
        return found

    async def _send(self, batch: bulk.Batch) -> None:
        sent = batch.next()
        if not sent:
            return
        path = f"/_bulk?{_FILTER}"
        answer = await self._client.ask("POST", path, bulk.body(sent), "application/x-ndjson")
        before = len(batch.refused)
        batch.says = ""
        if answer.status == 200:
            try:
                batch.answered(sent, bulk.verdicts(answer.body, len(sent)))
            except bulk.AnswerError as error:
                raise UnreachedError(f"{self._client.where}: {error}") from error
        elif answer.status == 413:
            batch.too_large(sent, "413: the server takes no request of that size")
        elif answer.status == 400:
            batch.halve(sent, _refusal(answer))
        else:
            raise NotYetError(f"{self._client.where}: {_refusal(answer)}", answer.retry_after_s)
        refused = batch.refused[before:]
        if refused:
            await self._keep(self._letters.write, refused)
            self._tell_refused(refused)
        if batch.says:
            raise NotYetError(f"{self._client.where}: {batch.says}")

    async def _keep(self, write: Any, what: Any) -> None:
        """Write to our folder, as often as it takes: nothing goes on before it is kept."""
        while True:
            try:
                write(what)
                return
            except OSError as error:
                self._health.failed(f"nothing is shipped: its folder cannot be written: {error}")
                await asyncio.sleep(1.0)

    def _tell_refused(self, refused: Sequence[bulk.Refused]) -> None:
        self._refused += len(refused)
        first = self._refused_at is None
        self._refused_at = time.monotonic()
        if first:
            last = refused[-1]
            text = (
                f"the server refuses {last.document.label}, and the rest goes on: {last.reason}; "
                f"what is refused is in {self._letters.path}"
            )
            self._feed.report("unreached", _REFUSED, False, text)

    def _calm(self) -> None:
        if self._refused_at is not None and time.monotonic() - self._refused_at > _CALM_S:
            self._refused_at = None
            text = f"no document was refused for 10 minutes; {self._refused} were before"
            self._feed.report("unreached", _REFUSED, True, text)


def _refusal(answer: Answer) -> str:
    return server.refusal(answer.status, answer.body)


def _text(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)


SOURCES: Final = (run,)
PERFORMERS: Final[dict[type, Any]] = {}
