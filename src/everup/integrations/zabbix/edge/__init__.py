"""All I/O with Zabbix: ``run`` is what the observer calls."""

import asyncio
import ssl
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from everup.integrations.delivery import Delivery
from everup.integrations.following import Look, looks
from everup.integrations.zabbix import problems, status
from everup.integrations.zabbix.config import Zabbix
from everup.integrations.zabbix.edge import tls
from everup.integrations.zabbix.edge.agent import Agent
from everup.integrations.zabbix.edge.api import ApiError
from everup.integrations.zabbix.edge.sender import Push, Sender
from everup.integrations.zabbix.edge.watch import Watch
from everup.observer.feed import Feed

_APART_S: Final = 0.25
"""Nothing is sent more often, however much happens: what is newest has it all."""


async def run(feed: Feed) -> None:
    """Do what the table ``[zabbix]`` asks for, until cancelled."""
    table = feed.table("zabbix") or Zabbix()
    _end_what_is_gone(feed, table)
    try:
        ours, theirs = _contexts(feed, table)
    except (OSError, ValueError, RuntimeError) as error:
        # What should go by TLS never goes without it; the API has its own.
        feed.report("unreached", "zabbix", False, f"can be told nothing by TLS: {error}")
        table = replace(table, servers=(), agent=None)
        ours = theirs = None
    host = table.host or feed.node
    deliveries = [Delivery(feed, Sender(server, ours)) for server in table.servers]
    async with asyncio.TaskGroup() as group:
        for delivery in deliveries:
            group.create_task(delivery.run())
        if deliveries:
            group.create_task(Teller(feed, host, deliveries).run(table.heartbeat))
        if table.agent is not None:
            agent = Agent(feed, table.agent, table.agent_allow, host, theirs)
            group.create_task(agent.run())
        if table.api is not None:
            group.create_task(_watch(feed, table))


def _end_what_is_gone(feed: Feed, table: Zabbix) -> None:
    """End what was found by what the config has no more: nobody else will."""
    names = {f"zabbix {server}" for server in table.servers}
    names |= {"zabbix"} if table.psk_file is not None else set()
    names |= {"zabbix agent"} if table.agent is not None else set()
    names |= {"zabbix API"} if table.api is not None else set()
    found = [c for i in feed.incidents() if i.resolved_at is None for c in i.active.values()]
    for condition in found:
        subject = condition.subject
        mine = condition.kind == "unreached" and subject.partition(" ")[0] == "zabbix"
        if mine and subject not in names:
            feed.report("unreached", subject, True, "the config has it no more")
    if table.api is None:
        for subject in sorted(problems.ours(feed.incidents())):
            feed.report(problems.KIND, subject, True, "Zabbix is not asked any more")


async def _watch(feed: Feed, table: Zabbix) -> None:
    try:
        watch = Watch(feed, table)
    except (ApiError, OSError, ValueError) as error:
        feed.report("unreached", "zabbix API", False, f"cannot be asked: {error}")
        return
    await watch.run()


def _contexts(
    feed: Feed, table: Zabbix
) -> tuple[ssl.SSLContext, ssl.SSLContext] | tuple[None, None]:
    """For us to connect, and for others to connect to us."""
    if table.psk_file is None or table.psk_identity is None:
        return None, None
    key = feed.secret(table.psk_file)
    made = tls.client(table.psk_identity, key), tls.server(table.psk_identity, key)
    feed.report("unreached", "zabbix", True, "TLS can be used")
    return made


class Teller:
    """Puts the status together whenever something happens, and tells what has changed."""

    def __init__(self, feed: Feed, host: str, deliveries: Sequence[Delivery[Push]]) -> None:
        self._feed = feed
        self._host = host
        self._deliveries = deliveries
        self._look: Look | None = None
        self._told: status.Told | None = None
        self._again = asyncio.Event()

    async def run(self, beat_s: float) -> None:
        """Go on until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._later())
            async for look in looks(self._feed, beat_s, every=True):
                self._look = look
                self._tell(look, beat=look.beat)
                await asyncio.sleep(_APART_S)

    def _tell(self, look: Look, *, beat: bool) -> None:
        found = self._found(look)
        if found is None:
            return
        before, self._told = self._told, found
        if found.again_s is not None:
            self._again.set()
        if beat or before is None or found.essence != before.essence:
            for delivery in self._deliveries:
                delivery.put(Push(self._host, found.text))

    def _found(self, look: Look) -> status.Told | None:
        if look.status is not None:
            return status.told(time.time(), self._feed.node, look.status, self._feed.incidents())
        return None if self._told is None else status.silent(self._told.text)

    async def _later(self) -> None:
        """Look again when an incident has waited for long enough: nothing else may happen then."""
        while True:
            await self._again.wait()
            self._again.clear()
            if self._told is not None and self._told.again_s is not None:
                await asyncio.sleep(self._told.again_s)
                if self._look is not None:
                    self._tell(self._look, beat=False)


SOURCES: Final = (run,)
PERFORMERS: Final[dict[type, Any]] = {}
