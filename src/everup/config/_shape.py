"""Walks the normalised document beside the model: unknown keys, tables, units, stray types.

What is wrong is reported and taken out, so that pydantic and the cross-checks see the rest.
"""

import datetime
import math
import shlex
from typing import Any, NoReturn

from everup.config._fields import Kind, keys_of
from everup.config._problem import Findings, Path, did_you_mean, toml_list
from everup.config._whole import is_named, whole
from everup.model.units import parse_duration, parse_size

_INT_MAX = 2**63 - 1
_SHELL = frozenset("|&;<>()$`*?~\n#")
_ARGV = frozenset({"command", "exec", "pre_start", "post_start", "pre_stop", "post_stop"})


class _Refused(Exception):  # noqa: N818  # control flow, never leaves this module
    """The value has been reported and is to be left out."""


def shape(data: dict[str, Any], found: Findings) -> dict[str, Any]:
    """A copy of ``data`` with durations as seconds and sizes as bytes, without what is wrong."""
    return _Walk(found).table(data, Kind("table", table=whole(data)), ())


class _Walk:
    def __init__(self, found: Findings) -> None:
        self._found = found

    def table(self, value: object, kind: Kind, path: Path) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._refuse(path, f"expected {kind.words()}", value)
        keys = keys_of(kind.table) if kind.table is not None else {}
        out: dict[str, Any] = {}
        for name, item in value.items():
            place = (*path, name)
            if kind.form == "map":
                inner = kind.item
            elif name in keys:
                inner = keys[name].kind
            else:
                valid = [key for key in keys if key != "name" or not _is_named(path)]
                # the value stays out of the message: a misspelt "environment" holds secrets
                self._found.add(place, f"unknown key{did_you_mean(name, valid)}", valid=valid)
                continue
            try:
                out[name] = self._value(item, inner or Kind("string"), place)
            except _Refused:
                pass
        return out

    def _value(self, value: object, kind: Kind, path: Path) -> object:
        self._check_scalar(value, path)
        match kind.form:
            case "table" | "map":
                return self.table(value, kind, path)
            case "list":
                return self._list(value, kind, path)
            case "duration":
                return self._unit(value, kind, path)
            case "size":
                return self._unit(value, kind, path)
            case "string" if path[-1] == "address" and type(value) is int:
                message = f'expected an address in quotes, like "127.0.0.1:{value}" or ":{value}"'
                self._refuse(path, message, value)
            case _ if isinstance(value, list | dict):
                self._refuse(path, f"expected {kind.words()}", value)
            case _:
                return value

    def _check_scalar(self, value: object, path: Path) -> None:
        match value:
            case datetime.date() | datetime.time():
                self._refuse(path, "no key takes a date or time", value)
            case int() if abs(value) > _INT_MAX:
                self._refuse(path, "too large a number", value)
            case float() if not math.isfinite(value):
                self._refuse(path, "expected a finite number", value)
            case str() if "\0" in value:
                self._refuse(path, "no string here can hold a NUL character", value)
            case _:
                pass

    def _list(self, value: object, kind: Kind, path: Path) -> list[object]:
        if isinstance(value, str) and path[-1] in _ARGV:
            message = f"expected a list, because no shell is used; write {_argv(value)}"
            self._refuse(path, message, value)
        if not isinstance(value, list):
            self._refuse(path, f"expected {kind.words()}", value)
        out: list[object] = []
        refused = False
        for i, item in enumerate(value):
            try:
                out.append(self._value(item, kind.item or Kind("string"), (*path, i)))
            except _Refused:
                refused = True
        if refused:
            raise _Refused
        return out

    def _unit(self, value: object, kind: Kind, path: Path) -> float:
        """Seconds or bytes. The model's parser takes a float as seconds already; a file may not."""
        try:
            if isinstance(value, float):
                raise ValueError
            number = parse_duration(value) if kind.form == "duration" else parse_size(value)
        except (ValueError, OverflowError):
            self._refuse(path, f"expected {kind.words()}", value)
        if number > _INT_MAX:
            self._refuse(path, f"too large; expected {kind.words()}", value)
        return number

    def _refuse(self, path: Path, message: str, value: object) -> NoReturn:
        self._found.add(path, message, value=value)
        raise _Refused


def _is_named(path: Path) -> bool:
    """Whether this table takes its name from its key, so that ``name`` is no key of its own."""
    return len(path) == 2 and is_named(str(path[0]))


def _argv(text: str) -> str:
    """The list that a command line probably stands for."""
    if not _SHELL.intersection(text):
        try:
            words = shlex.split(text)
        except ValueError:
            words = []
        if words and "=" not in words[0]:
            return toml_list(words)
    return toml_list(["sh", "-c", text])
