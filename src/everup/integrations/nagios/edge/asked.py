"""Answers those who ask the observer what ``check_everup`` would tell them."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final

from everup.integrations.following import causes
from everup.integrations.nagios import answers
from everup.integrations.nagios.answers import Answer
from everup.integrations.nagios.nrpe import VERSION_COMMAND, Query
from everup.integrations.standing import Level
from everup.observer.feed import Feed

ALL: Final = "check_everup"
OBJECTIVES: Final = "check_everup_slo"
_FRESH_S: Final = 0.5
"""A Nagios asks for many services at once: the engine is asked once."""
_ENGINE_S: Final = 5.0
_BUDGETS: Final = (("kind", "slo.burning"), ("kind", "slo.calm"), ("n", "5000"))


class Answers:
    """Asks the engine, and remembers its answer for half a second."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._lock = asyncio.Lock()
        self._status: Mapping[str, Any] = {}
        self._until = 0.0

    async def to(self, query: Query) -> Answer:
        """Answer a query, whatever it is."""
        if query.arguments:
            return answers.unknown(
                "arguments are refused: the command alone says what is asked for"
            )
        try:
            async with asyncio.timeout(_ENGINE_S):
                return await self._to(query.command)
        except TimeoutError:
            return Answer.of(Level.CRITICAL, "everup does not answer in time")
        except OSError as error:
            text = f"everup does not run, or does not answer: {error}"
            return Answer.of(Level.CRITICAL, text)

    async def _to(self, command: str) -> Answer:
        name, _, subject = command.partition(":")
        if name == OBJECTIVES:
            found = await self._feed.select(_BUDGETS)
            told = ({"kind": e.kind, "subject": e.subject, **e.payload} for e in found)
            return answers.objectives(told, subject)
        status = await self._fresh()
        if command == VERSION_COMMAND:
            return Answer.of(Level.OK, f"everup {status['version']} answers NRPE 2 to 4")
        service = "" if command == ALL else command
        return answers.services(status, service, causes(self._feed))

    async def _fresh(self) -> Mapping[str, Any]:
        async with self._lock:
            if time.monotonic() >= self._until:
                self._status = await self._feed.status()
                self._until = time.monotonic() + _FRESH_S
            return self._status
