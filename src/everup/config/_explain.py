"""The understood config as text, every default spelt out."""

from typing import Any

from everup import app
from everup.config._fields import Key, Kind, exact_duration, exact_size, keys_of
from everup.config._problem import key_name, toml_list, toml_string
from everup.config._secrets import MASK, redacted, without_path
from everup.config._whole import is_named
from everup.kernel.manifest import load
from everup.model.spec import Everup, Group, Listener, Service, Spec

_NAMED = (Service, Group, Listener)
"""Tables whose name stands in their header."""


def explain(spec: Spec, *, values: bool = False) -> str:
    """The whole config in TOML, defaults included and marked ``# default``.

    With ``values`` it reads back as the same spec. Without, what may be a secret is masked: the
    values of variables and headers, users and passwords in URLs, and what words like
    ``--password=...`` give.
    """
    return _Explained(values).text(spec)


class _Explained:
    """One config as text."""

    def __init__(self, values: bool) -> None:
        self._values = values

    def text(self, spec: Spec) -> str:
        blocks: list[list[str]] = []
        self._table("everup", Everup, spec.everup, blocks)
        for name, service in spec.service.items():
            self._table(f"service.{key_name(name)}", Service, service, blocks)
        for name, group in spec.group.items():
            self._table(f"group.{key_name(name)}", Group, group, blocks)
        for table in app.tables():
            value = getattr(spec, table.key, None)
            if not table.named and value is not None:
                self._table(table.key, load(table.spec), value, blocks)
            for name, one in (value or {}).items() if table.named else ():
                self._table(f"{table.key}.{key_name(name)}", load(table.spec), one, blocks)
        return "\n\n".join("\n".join(block) for block in blocks) + "\n"

    def _table(self, header: str, table: type[Any], value: Any, blocks: list[list[str]]) -> None:
        """One table: its plain keys first, as TOML demands, then the tables inside it."""
        block = [f"[{header}]"]
        blocks.append(block)
        inner: list[tuple[Key, Any]] = []
        for key in keys_of(table).values():
            item = getattr(value, key.name)
            if key.name == "name" and (table in _NAMED or is_named(header.partition(".")[0])):
                continue
            if key.name == "policy" and item is None:
                block.append('# policy: not set; "always", or "never" for a oneshot  # default')
            elif item is None:
                block.append(f"# {key.name}: not set  # default")
            elif item and _is_nested(key.kind):
                inner.append((key, item))
            else:
                mark = "" if key.required or item != key.default else "  # default"
                block.append(f"{key.name} = {_plain(self._kept(key.name, item), key.kind)}{mark}")
        for key, item in inner:
            below = f"{header}.{key.name}"
            if key.kind.form == "map":
                blocks.append([f"[{below}]", *self._map(item)])
            elif key.kind.form == "list":
                for listener in item:
                    self._table(f"{below}.{key_name(listener.name)}", Listener, listener, blocks)
            elif key.kind.table is not None:
                self._table(below, key.kind.table, item, blocks)

    def _kept(self, name: str, item: Any) -> Any:
        if self._values:
            return item
        return without_path(item) if name == "webhook" else redacted(item)

    def _map(self, items: dict[str, str]) -> list[str]:
        shown = items if self._values else dict.fromkeys(items, MASK)
        return [f"{key_name(name)} = {toml_string(text)}" for name, text in shown.items()]


def _is_nested(kind: Kind) -> bool:
    if kind.form == "list" and kind.item is not None:
        return kind.item.form == "table"
    return kind.form in ("table", "map")


def _plain(value: Any, kind: Kind) -> str:
    match kind.form:
        case "duration":
            return toml_string(exact_duration(value))
        case "size":
            return toml_string(exact_size(value))
        case "boolean":
            return "true" if value else "false"
        case "integer" | "number":
            return repr(value)
        case "map" | "table":
            return "{}"
        case "list" if kind.item is not None and kind.item.form == "integer":
            return "[" + ", ".join(str(item) for item in value) + "]"
        case "list":
            return toml_list(value)
        case "string" | "choice":
            return toml_string(str(value))
