"""Carries out what a person asks for."""

from typing import Any

from everup.api import first
from everup.api.backend import Backend
from everup.api.commands import command


async def operate(backend: Backend, name: str, body: dict[str, Any], by: str) -> dict[str, Any]:
    """Do a command of an operator: ``start``, ``stop``, ``restart``, ``scale`` or ``signal``. Gives
    the instances that it is about, and the last entry of the journal before it. Raises
    ``Refusal``."""
    event, slots = command(name, body, backend.engine, by)
    if name in ("start", "restart"):
        await first.can_start(backend, slots, name)
        event, slots = command(name, body, backend.engine, by)  # things may have changed meanwhile
    before = backend.journal.last_seq
    backend.dispatch(event)
    return {"slots": [str(slot) for slot in slots], "after": before}
