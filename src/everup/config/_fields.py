"""The model of the config as data: every table, key, type, range, default and text.

Read from the pydantic dataclasses of ``everup.model.spec``, so that checks, JSON Schema and
reference cannot say different things.
"""

import types
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BeforeValidator

from everup.config._problem import Path
from everup.model.units import (
    ABSOLUTE,
    DURATION_HELP,
    PATH_HELP,
    SIZE_HELP,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)

Form = Literal[
    "string", "integer", "number", "boolean", "duration", "size", "choice", "list", "map", "table"
]


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of one key."""

    form: Form
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    min_items: int = 0
    pattern: str | None = None
    choices: tuple[str, ...] = ()
    item: "Kind | None" = None
    """Of a list or a map."""
    table: "type[Any] | None" = None
    """The dataclass behind a table."""

    def unit(self, number: float) -> str:
        """A number of this kind as people write it."""
        if self.form == "duration":
            return exact_duration(number)
        if self.form == "size":
            return exact_size(int(number))
        return f"{number:g}"

    def range_text(self) -> str:
        """``10ms to 1d``, ``at least 1h``, or nothing."""
        low = self.unit(self.ge) if self.ge is not None else ""
        high = self.unit(self.le) if self.le is not None else ""
        if self.gt is not None and self.lt is not None:
            return f"more than {self.unit(self.gt)} and less than {self.unit(self.lt)}"
        if self.gt is not None:
            more = f"more than {self.unit(self.gt)}"
            return f"{more}, up to {high}" if high else more
        if low and high:
            return f"{low} to {high}"
        if low:
            return f"at least {low}"
        return f"up to {high}" if high else ""

    def words(self) -> str:
        """What is expected, as the end of "expected ..."."""
        span = self.range_text()
        match self.form:
            case "duration":
                return f"{DURATION_HELP}, {span}" if span else DURATION_HELP
            case "size":
                return f"{SIZE_HELP}, {span}" if span else SIZE_HELP
            case "integer":
                return f"a whole number, {span}" if span else "a whole number"
            case "number":
                return f"a number, {span}" if span else "a number"
            case "boolean":
                return "true or false"
            case "choice":
                return "one of " + ", ".join(f'"{choice}"' for choice in self.choices)
            case "list" if self.item is not None and self.item.form == "integer":
                return "a list of whole numbers, like [0, 3]"
            case "list":
                return 'a list of strings, like ["a", "b"]'
            case "map":
                return 'a table of strings, like { NAME = "value" }'
            case "table":
                return "a table"
            case "string" if self.pattern == ABSOLUTE:
                return PATH_HELP
            case "string":
                return "a string in quotes"


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table."""

    name: str
    kind: Kind
    required: bool
    default: Any
    """None where there is no default or the default is to do without."""


def exact_duration(seconds: float) -> str:
    """The shortest spelling that reads back as the same number."""
    text = format_duration(seconds)
    if _reads_as(parse_duration, text, seconds):
        return text
    return format(seconds, ".20f").rstrip("0").rstrip(".") + "s"


def exact_size(size_bytes: int) -> str:
    """The shortest spelling that reads back as the same number."""
    text = format_size(size_bytes)
    return text if _reads_as(parse_size, text, size_bytes) else f"{size_bytes}B"


def _reads_as(parse: Callable[[str], float], text: str, number: float) -> bool:
    try:
        return parse(text) == number
    except ValueError:  # an exponent, as in 1e+06s
        return False


_known: dict[type[Any], dict[str, Key]] = {}


def keys_of(table: type[Any]) -> dict[str, Key]:
    """Every key of a table, in the order of the model."""
    if table not in _known:  # at most one entry for each class of the model
        _known[table] = _read_keys(table)
    return _known[table]


def _read_keys(table: type[Any]) -> dict[str, Key]:
    infos = table.__pydantic_fields__
    keys: dict[str, Key] = {}
    for item in fields(table):
        info = infos[item.name]
        required = item.default is MISSING and item.default_factory is MISSING
        default = None if required else info.get_default(call_default_factory=True)
        kind = _kind(info.annotation, info.metadata)
        keys[item.name] = Key(item.name, kind, required, default)
    return keys


def table_text(table: type[Any]) -> str:
    """What the table is, from its docstring."""
    return (table.__doc__ or "").strip()


def kind_at(path: Path, whole: type[Any]) -> Kind | None:
    """The kind of the value at a path of the normalised document, which is one of ``whole``."""
    kind: Kind | None = Kind("table", table=whole)
    for part in path:
        if kind is None:
            return None
        if kind.form == "table" and kind.table is not None:
            key = keys_of(kind.table).get(str(part))
            kind = key.kind if key else None
        else:
            kind = kind.item
    return kind


_FORMS: Final[dict[Any, Form]] = {parse_duration: "duration", parse_size: "size"}


def _kind(annotation: Any, metadata: Iterable[Any] = ()) -> Kind:
    meta = list(metadata)
    while get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        meta = [*more, *meta]
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        inner = [arg for arg in get_args(annotation) if arg is not type(None)]
        return _kind(inner[0], meta)
    limits = _limits(meta)
    if origin is tuple:
        return Kind("list", min_items=limits.min_items, item=_kind(get_args(annotation)[0]))
    if origin is dict:
        return Kind("map", item=_kind(get_args(annotation)[1]))
    if origin is Literal:
        return Kind("choice", choices=tuple(get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return Kind("choice", choices=tuple(str(member.value) for member in annotation))
    if hasattr(annotation, "__pydantic_fields__"):
        return Kind("table", table=annotation)
    plain: dict[Any, Form] = {str: "string", bool: "boolean", int: "integer", float: "number"}
    form = plain[annotation]
    for item in meta:
        if isinstance(item, BeforeValidator):
            form = _FORMS.get(item.func, form)
    return Kind(
        form, ge=limits.ge, gt=limits.gt, le=limits.le, lt=limits.lt, pattern=limits.pattern
    )


@dataclass(slots=True)
class _Limits:
    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    min_items: int = 0
    pattern: str | None = None


def _limits(metadata: Iterable[Any]) -> _Limits:
    found = _Limits()
    for item in metadata:
        for part in getattr(item, "metadata", None) or [item]:
            found.ge = getattr(part, "ge", found.ge)
            found.gt = getattr(part, "gt", found.gt)
            found.le = getattr(part, "le", found.le)
            found.lt = getattr(part, "lt", found.lt)
            found.min_items = getattr(part, "min_length", found.min_items)
            found.pattern = getattr(part, "pattern", None) or found.pattern
    return found
