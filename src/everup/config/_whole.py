"""The whole config as one class: the core's tables, and those that rooms bring."""

from collections.abc import Iterable, Iterator
from dataclasses import field, fields
from functools import cache
from types import GenericAlias
from typing import Any, cast

from pydantic.dataclasses import dataclass

from everup import app
from everup.config._fields import keys_of
from everup.kernel.manifest import Table, load
from everup.model.spec import Spec
from everup.model.table import CONFIG


def whole(document: Iterable[str]) -> type[Spec]:
    """Give ``Spec`` with a field for each table of a room that a document of these top-level keys
    has. The others have their defaults all the same, made when somebody asks for them: each start
    of everup reads a config, and should not pay for tables that are not in it.

    With a key that nobody knows it has all tables, so that what would be valid can be said.
    """
    rooms = {table.key for table in app.tables()}
    keys = set(document)
    unknown = keys - rooms - {item.name for item in fields(Spec)}
    return _made(frozenset(rooms if unknown else keys & rooms))


@cache
def _made(keys: frozenset[str]) -> type[Spec]:
    annotations: dict[str, Any] = {}
    namespace: dict[str, Any] = {
        "__annotations__": annotations, "__doc__": Spec.__doc__, "__getattr__": _absent,
        "__eq__": _same,
    }  # fmt: skip
    for table in app.tables():
        if table.key in keys:
            one: Any = load(table.spec)
            annotations[table.key] = GenericAlias(dict, (str, one)) if table.named else one
            namespace[table.key] = field(default_factory=dict if table.named else one)
    made: Any = dataclass(frozen=True, slots=True, config=CONFIG)(type("Spec", (Spec,), namespace))
    return cast(type[Spec], made)


def _absent(spec: Spec, name: str) -> Any:
    """Give a table that the file does not have: empty, or with its defaults."""
    table = next((table for table in app.tables() if table.key == name), None)
    if table is None:
        raise AttributeError(f"{type(spec).__name__} has no attribute {name!r}")
    return {} if table.named else load(table.spec)()


def _same(one: Spec, other: object) -> Any:
    """Tell whether two configs say the same: a table that is left out is one with its defaults."""
    if not isinstance(other, Spec):
        return NotImplemented
    names = {item.name for spec in (one, other) for item in fields(spec)}
    return all(getattr(one, name) == getattr(other, name) for name in names)


def rows() -> tuple[tuple[str, type[Any]], ...]:
    """Give header and class of each table of a room and of those in it, for the reference."""
    return tuple(
        row for table in app.tables() for row in _with_inner(header(table), load(table.spec))
    )


def _with_inner(name: str, table: type[Any]) -> Iterator[tuple[str, type[Any]]]:
    yield name, table
    for key in keys_of(table).values():
        if key.kind.form == "table" and key.kind.table is not None:
            yield from _with_inner(f"{name[:-1]}.{key.name}]", key.kind.table)


def header(table: Table) -> str:
    """Give the header of a table as it is written in the file."""
    return f"[{table.key}.NAME]" if table.named else f"[{table.key}]"


def is_named(key: str) -> bool:
    """Tell whether tables under this top-level key take their names from their headers."""
    return key in ("service", "group") or any(t.named and t.key == key for t in app.tables())
