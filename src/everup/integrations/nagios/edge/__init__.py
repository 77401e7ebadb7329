"""All I/O with Nagios and its kin: ``run`` is what the observer calls."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any, Final

from everup.integrations.delivery import Channel, Delivery
from everup.integrations.following import looks
from everup.integrations.nagios.command import Result, performance
from everup.integrations.nagios.config import NSCA_PORT, Nagios, Nsca, target
from everup.integrations.nagios.edge.files import CommandFile, Spool
from everup.integrations.nagios.edge.handler import Taker, forget
from everup.integrations.nagios.edge.icinga import Api
from everup.integrations.nagios.edge.nrpe import Server
from everup.integrations.nagios.edge.nsca import Daemon, ciphers
from everup.integrations.nagios.objects import fresh_s
from everup.integrations.standing import Standing
from everup.observer.feed import Feed


async def run(feed: Feed) -> None:
    """Tell and answer whom the table ``[nagios]`` names, until cancelled."""
    table = feed.table("nagios") or Nagios()
    host = table.host or feed.node
    channels = list(_channels(feed, table))
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        if table.icinga is not None and (api := _icinga(feed, table)) is not None:
            stack.push_async_callback(api.close)
            channels.append(api)
        deliveries = [Delivery(feed, channel) for channel in channels]
        if table.nrpe is not None:
            group.create_task(Server(feed, table.nrpe).run())
        if table.handler is not None:
            taker = Taker(feed, table.handler, host, told=bool(channels))
            group.create_task(taker.run())
        else:
            forget(feed)
        for delivery in deliveries:
            group.create_task(delivery.run())
        if deliveries:
            group.create_task(_tell(feed, table, host, deliveries))


def _prepare(spec: Any) -> None:
    """Load what only some configs need, while that may still be read."""
    if spec.nagios.nsca is not None:
        with contextlib.suppress(OSError):  # told later, when somebody listens
            ciphers(spec.nagios.nsca.method)


def _channels(feed: Feed, table: Nagios) -> Sequence[Channel[Result]]:
    channels: list[Channel[Result]] = []
    if table.command_file is not None:
        channels.append(CommandFile(table.command_file))
    if table.spool is not None:
        channels.append(Spool(table.spool))
    if table.nsca is not None:
        channels += _nsca(feed, table.nsca)
    return channels


def _nsca(feed: Feed, table: Nsca) -> Sequence[Daemon]:
    try:
        begin = ciphers(table.method)
        password = feed.secret(table.password_file).encode() if table.password_file else b""
    except (OSError, ValueError) as error:
        # Nothing goes, rather than without what was asked for.
        feed.report("unreached", "nsca files", False, f"cannot be told: {error}")
        return ()
    feed.report("unreached", "nsca files", True, "they can be read")
    servers = (target(text, NSCA_PORT) for text in table.servers)
    return [Daemon(address, begin, password) for address in servers]


def _icinga(feed: Feed, table: Nagios) -> Api | None:
    assert table.icinga is not None
    try:
        api = Api(feed, table.icinga, fresh_s(table.heartbeat))
    except (OSError, ValueError) as error:
        feed.report("unreached", "icinga files", False, f"cannot be told: {error}")
        return None
    feed.report("unreached", "icinga files", True, "they can be read")
    return api


async def _tell(
    feed: Feed, table: Nagios, host: str, deliveries: Sequence[Delivery[Result]]
) -> None:
    async for look in looks(feed, table.heartbeat):
        for standing in look.told:
            result = result_of(host, standing, look.at)
            for delivery in deliveries:
                delivery.put(result)


def result_of(host: str, standing: Standing, at: float) -> Result:
    """Give the passive result that tells of a standing."""
    text = f"{standing.level.name}: {standing.text}"
    return Result(
        host, standing.service, standing.level, text, at, perf=performance(standing.numbers)
    )


SOURCES: Final = (run,)
PREPARE: Final = _prepare
PERFORMERS: Final[dict[type, Any]] = {}
