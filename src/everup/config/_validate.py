"""The model's own validation, its findings put into plain words."""

import json
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from everup.config._fields import Kind, keys_of, kind_at
from everup.config._problem import Findings, Path, did_you_mean
from everup.config._whole import whole
from everup.model.spec import Listener, Service, Spec
from everup.model.units import ABSOLUTE

_ROUNDS = 50
_OWN_WORDS = ("table", "string")
"""Kinds whose classes check more than the form: what they raise says what is wrong."""


@cache
def _adapter(model: Any) -> TypeAdapter[Spec]:
    return TypeAdapter(model)


NAME_HELP = "a letter, then at most 62 letters, digits, - and _"

_PATTERNS = {
    "name": f"expected a name: {NAME_HELP}",
    "umask": 'expected three octal digits, like "027"',
    "api": 'expected an address, like "https://zabbix.example/zabbix"',
    "agent": 'expected an IP address with a port, like "127.0.0.1:10050"',
    "agent_allow": 'expected IP addresses or networks, like "192.0.2.1" or "192.0.2.0/24"',
    "servers": 'expected addresses, like "192.0.2.1:10051" or "zabbix.example:10051"',
}
_MISSING = {
    "command": 'a service needs a command, like command = ["python3", "-m", "app"]',
    "services": 'a group needs its services, like services = ["web", "db"]',
    "address": 'a listener needs an address, like address = "127.0.0.1:8080"',
    "name": "a listener in a list needs a name",
}
_STAND_INS: dict[tuple[type[Any], str], Any] = {
    (Service, "command"): ["true"],
    (Listener, "address"): "",
    (Listener, "name"): "main",
}
"""Fill the place of what was wrong where the model cannot do without; the path is marked broken,
so no later check looks at them."""


def validate(data: dict[str, Any], found: Findings) -> Spec | None:
    """The spec, or what is left of it once everything wrong is taken out of ``data``.

    Each finding removes its key and the rest is tried again, so that the cross-checks have a
    spec to look at whatever is wrong elsewhere. None: nothing could be saved.
    """
    model: Any = whole(data)
    for _ in range(_ROUNDS):
        try:
            # from JSON, strict mode tells strings from numbers but still takes lists for tuples
            return _adapter(model).validate_json(json.dumps(data), strict=True)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                path: Path = tuple(detail["loc"])
                if found.sound(path):
                    kind = kind_at(path, model)
                    if detail["type"] == "value_error" and kind and kind.form in _OWN_WORDS:
                        shown = detail["input"] if kind.form == "string" else None
                        found.add(path, detail["msg"].removeprefix("Value error, "), value=shown)
                    else:
                        _report(kind, path, detail["type"], detail["input"], found)
                _prune(data, path, model)
    return None


def _report(
    kind: Kind | None, path: Path, kind_of_error: str, value: object, found: Findings
) -> None:
    last = next((part for part in reversed(path) if isinstance(part, str)), "")
    if kind_of_error == "missing":
        found.add(path, _MISSING.get(last, f"{last} is missing"))
    elif kind_of_error in ("literal_error", "enum") and kind is not None:
        hint = did_you_mean(value, kind.choices) if isinstance(value, str) else ""
        found.add(path, f"unknown choice{hint}", value=value, valid=kind.choices)
    elif kind_of_error == "string_pattern_mismatch":
        shown = None if last == "name" else value  # a name is in the key already
        text = _PATTERNS.get(last, "does not have the expected form")
        if kind is not None and kind.pattern == ABSOLUTE:
            text = f"expected {kind.words()}"
        found.add(path, text, value=shown)
    elif kind_of_error == "too_short":
        found.add(path, "expected at least one item", value=value)
    else:  # a type or a range: the model's own words say both
        found.add(path, _expected(kind, value), value=value)


def _expected(kind: Kind | None, value: object) -> str:
    if kind is None:
        return "not valid here"
    text = f"expected {kind.words()}"
    if kind.form == "string" and type(value) in (int, float):
        text += ", not a number"
    elif kind.form in ("integer", "number", "boolean") and isinstance(value, str):
        text += ", without quotes"
    return text


def _prune(data: dict[str, Any], path: Path, model: type[Spec]) -> None:
    """Takes out the smallest part around ``path`` that the model can do without."""
    for cut in range(len(path), 0, -1):
        key = path[cut - 1]
        parent = _at(data, path[: cut - 1])
        if not isinstance(key, str) or not isinstance(parent, dict):
            continue
        table = kind_at(path[: cut - 1], model)
        if table is not None and table.table is not None:
            info = keys_of(table.table).get(key)
            if info is not None and info.required:
                if (table.table, key) not in _STAND_INS:
                    continue
                parent[key] = _STAND_INS[table.table, key]
                return
        parent.pop(key, None)  # absent: an earlier finding has taken it out
        return


def _at(data: object, path: Path) -> object:
    for part in path:
        try:
            data = data[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return None
    return data
