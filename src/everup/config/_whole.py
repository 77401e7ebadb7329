"""The whole config as one class: the core's tables, and those that rooms bring."""

from collections.abc import Iterator
from dataclasses import field
from functools import cache
from types import GenericAlias
from typing import Any, cast

from pydantic.dataclasses import dataclass

from everup import app
from everup.config._fields import keys_of
from everup.kernel.manifest import Table, load
from everup.model.spec import Spec
from everup.model.table import CONFIG


@cache
def whole() -> type[Spec]:
    """Give ``Spec`` with a field for each table of a room; ``Spec`` itself where there is none."""
    tables = app.tables()
    if not tables:
        return Spec
    annotations: dict[str, Any] = {}
    namespace: dict[str, Any] = {"__annotations__": annotations, "__doc__": Spec.__doc__}
    for table in tables:
        one: Any = load(table.spec)
        annotations[table.key] = GenericAlias(dict, (str, one)) if table.named else one
        namespace[table.key] = field(default_factory=dict if table.named else one)
    made: Any = dataclass(frozen=True, slots=True, config=CONFIG)(type("Spec", (Spec,), namespace))
    return cast(type[Spec], made)


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
