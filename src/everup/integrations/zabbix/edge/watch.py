"""Reads the problems of Zabbix by its API, and keeps acknowledgements the same on both sides."""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from everup.integrations.zabbix import problems
from everup.integrations.zabbix.config import Zabbix
from everup.integrations.zabbix.edge.api import Api, ApiError
from everup.integrations.zabbix.problems import Problem
from everup.observer.feed import Feed

T = TypeVar("T")

_TIMEOUT_S: Final = 10.0
_MOST: Final = 500
_ACKNOWLEDGE: Final = 2
_WITH_MESSAGE: Final = 4
_SUBJECT: Final = "zabbix API"


class Watch:
    """What is open in Zabbix, as of the last time it was asked."""

    def __init__(self, feed: Feed, table: Zabbix) -> None:
        """Raises ``ApiError``, ``OSError`` or ``ValueError`` with what is missing."""
        assert table.api is not None
        assert table.api_token_file is not None
        self._feed = feed
        self._host = table.host or feed.node
        self._hosts = table.watch or (self._host,)
        self._least = problems.SEVERITIES.index(table.watch_severity)
        self._interval_s = table.watch_interval
        ca = None
        if table.api_ca_file is not None:
            ca = feed.secret_bytes(table.api_ca_file).decode("ascii", "replace")
        self._api = Api(table.api, timeout_s=_TIMEOUT_S, ca=ca)
        self._api.use(feed.secret(table.api_token_file))
        self._reported: set[str] = set()

    async def run(self) -> None:
        """Ask again and again, until cancelled."""
        while True:
            try:
                status = await self._feed.status()
                found = await aside(self._ask)
                services = {service["name"] for service in status["services"]}
                self._report(found, services)
                await self._acknowledge(found, services)
                self._feed.report("unreached", _SUBJECT, True, "it answers")
            except (ApiError, ValueError) as error:
                self._feed.report("unreached", _SUBJECT, False, f"cannot be asked: {error}")
            except OSError:
                pass  # our own engine is being replaced
            await asyncio.sleep(self._interval_s)

    def _ask(self) -> Sequence[Problem]:
        """The open problems of the hosts, and of ours. Those in a maintenance are not told."""
        wanted = sorted({*self._hosts, self._host})
        hosts = self._api.ask("host.get", filter={"host": wanted}, output=["hostid", "host"])
        missing = {*self._hosts} - {host["host"] for host in hosts}
        if missing:
            names = ", ".join(sorted(missing))
            raise ApiError(f"there is no host {names}, or the token's user may not see it")
        open_now = self._api.ask(
            "problem.get",
            hostids=[host["hostid"] for host in hosts],
            output=["eventid"],
            suppressed=False,
            sortfield=["eventid"],
            sortorder="DESC",
            limit=_MOST,
        )
        if not open_now:
            return ()
        events = self._api.ask(
            "event.get",
            eventids=[problem["eventid"] for problem in open_now],
            output=["eventid", "name", "severity", "acknowledged"],
            selectHosts=["host"],
            selectTags="extend",
            select_acknowledges="extend",
        )
        return problems.read(events)

    def _report(self, found: Sequence[Problem], services: set[str]) -> None:
        watched = [p for p in found if p.host in self._hosts]
        wanted = problems.findings(watched, services, self._host, self._least)
        for subject in (self._reported | problems.ours(self._feed.incidents())) - wanted.keys():
            self._feed.report(problems.KIND, subject, True, problems.OVER)
        for subject, text in wanted.items():
            self._feed.report(problems.KIND, subject, False, text)
        self._reported = set(wanted)

    async def _acknowledge(self, found: Sequence[Problem], services: set[str]) -> None:
        taken = problems.taken(found, self._feed.incidents(), services, self._host)
        for incident, by in taken.here:
            self._feed.acknowledge(incident.number, f"{by} in Zabbix")
        for problem, incident in taken.there:
            note = f"taken on in everup by {incident.acknowledged_by} (incident {incident.number})"
            await aside(functools.partial(self._take_on, problem.event, note))

    def _take_on(self, event: str, note: str) -> None:
        action = _ACKNOWLEDGE | _WITH_MESSAGE
        self._api.ask("event.acknowledge", eventids=[event], action=action, message=note)


async def aside(function: Callable[[], T]) -> T:
    """Run what blocks in a thread of its own, which nobody waits for when everup ends."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, failed = None, None
        try:
            result = function()
        except Exception as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, result, failed)

    threading.Thread(target=work, daemon=True, name="zabbix API").start()
    return await done
