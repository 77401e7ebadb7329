"""The NRPE server: it answers, and does nothing else."""

import asyncio
import ssl
from typing import Final

from everup.integrations.nagios import nrpe
from everup.integrations.nagios.config import Nrpe
from everup.integrations.nagios.edge.asked import Answers
from everup.integrations.nagios.edge.door import Door
from everup.integrations.nagios.edge.tls import server_context
from everup.observer.feed import Feed

_SUBJECT: Final = "nagios nrpe"


class Server:
    """Answers who is allowed to ask. A client can do nothing but ask."""

    def __init__(self, feed: Feed, table: Nrpe) -> None:
        self._feed = feed
        self._table = table
        self._answers = Answers(feed)
        self._door = Door(feed, _SUBJECT, table.listen, table.allowed, self._converse)

    async def run(self) -> None:
        """Serve, for ever; tell everup where that is not possible."""
        try:
            context = self._context()
        except OSError as error:
            self._door.tell(False, f"it is not opened: {error}")
            return  # the files are read anew when the observer begins
        await self._door.run(context)

    def _context(self) -> ssl.SSLContext | None:
        table = self._table
        if table.tls_cert_file is None or table.tls_key_file is None:
            return None
        files = table.tls_cert_file, table.tls_key_file, table.tls_client_ca_file
        return server_context(self._feed, *files)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readexactly(nrpe.HEAD_BYTES)
        query = nrpe.parse(head + await reader.readexactly(nrpe.rest_bytes(head)))
        answer = await self._answers.to(query)
        writer.write(nrpe.answer(query.version, int(answer.level), answer.text))
