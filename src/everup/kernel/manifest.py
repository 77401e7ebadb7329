"""What a room brings, as strings and plain values: reading a manifest loads nothing heavy.

Names of code are written ``package.module:name`` and loaded when they are needed.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from everup.model.entry import EntryKind


@dataclass(frozen=True, slots=True)
class Table:
    """A top-level table of the config file."""

    key: str
    spec: str
    """The pydantic dataclass behind it. Its docstrings are the reference."""
    named: bool = False
    """There may be many, as ``[key.NAME]``; else it is one, ``[key]``."""
    check: str = ""
    """A function ``check(spec, found)`` that finds what no single key shows to be wrong, and says
    so by ``found.add(path, message, value=...)``."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the command line."""

    name: str
    function: str
    help: str


@dataclass(frozen=True, slots=True)
class Route:
    """A request that the API answers."""

    method: str
    """``get`` or ``post``."""
    path: str
    handler: str
    """A coroutine function of an aiohttp request."""
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All that everup's other parts need to know of a room."""

    name: str
    doc: str
    """What the room is for, in one sentence."""
    host: Literal["engine", "observer"] = "engine"
    """The process that the room lives in. Kinds, tables, routes and commands are everybody's."""
    room: str = ""
    """The class of the room, constructed without arguments; "" for one that decides nothing, or
    that its host builds."""
    entries: str = ""
    """A tuple of the kinds of journal entries that the room writes; "" for none. They are loaded
    when somebody asks for ``kinds``: a command of another room should not pay for them."""
    tables: tuple[Table, ...] = ()
    edge: str = ""
    """The module with the room's I/O: ``PERFORMERS`` (for each type of action that the room asks
    for, who carries it out) and ``SOURCES`` (coroutine functions that bring events in, or that tell
    others what happens, until they are cancelled)."""
    double: str = ""
    """The module with the same in the simulated world: ``PERFORMERS``, and ``SOURCES`` as functions
    of the world that plan their events in it."""
    routes: tuple[Route, ...] = ()
    commands: tuple[Command, ...] = ()

    @property
    def kinds(self) -> "tuple[EntryKind[Any], ...]":
        """The kinds of journal entries that the room writes."""
        found: tuple[EntryKind[Any], ...] = load(self.entries) if self.entries else ()
        return found


def load(name: str) -> Any:
    """Give what ``package.module:name`` names; without a colon, the module."""
    module, _, attribute = name.partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found
