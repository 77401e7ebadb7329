"""What a Zabbix server or ``zabbix_get`` asks an agent, and what everup answers as one.

Pure. Asked with a header or, by old ones, with a line; by Zabbix 7 with JSON.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from everup.integrations.zabbix import wire
from everup.integrations.zabbix.status import KEY

MOST_BYTES: Final = 16 << 10
"""Of a question."""
_MOST_KEYS: Final = 64
_LONGEST_KEY: Final = 2048
_NAME: Final = re.compile(r"[0-9A-Za-z_.-]+")
_VARIANT: Final = 2  # of the two agents there are, the one that asks for more than one key at once


@dataclass(frozen=True, slots=True)
class Question:
    """The keys that are asked for."""

    keys: tuple[str, ...]
    json: bool = False
    """Asked as Zabbix 7 asks."""


@dataclass(frozen=True, slots=True)
class Unsupported:
    """There is no such item; ``why`` is shown beside it in Zabbix."""

    why: str


def question(data: bytes, *, ended: bool = False) -> Question | None:
    """Read what has come so far; None: more must come. Raises ``WireError`` for what is no
    question. ``ended``: nothing more comes."""
    if data[:4] == wire.MAGIC[: len(data)] and data:
        if len(data) >= wire.HEADER_BYTES:
            header = wire.Header.parse(data[: wire.HEADER_BYTES], MOST_BYTES)
            body = data[wire.HEADER_BYTES :]
            if len(body) >= header.length:
                return _question(header.text(body[: header.length]))
        if ended:
            raise wire.WireError("the question ends before its end")
        return None
    line, end, _ = data.partition(b"\n")
    if len(line) > _LONGEST_KEY:
        raise wire.WireError(f"the key is longer than {_LONGEST_KEY} bytes")
    return _question(line) if end or ended else None


def _question(text: bytes) -> Question:
    try:
        asked = text.decode().strip()
    except UnicodeDecodeError:
        raise wire.WireError("the question is no text in UTF-8") from None
    if not asked.startswith("{"):
        return Question((asked,))
    try:
        found = json.loads(asked)
        keys = tuple(row["key"] for row in found["data"])
        known = found["request"] == "passive checks" and len(keys) <= _MOST_KEYS
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        known, keys = False, ()
    if not known or not all(isinstance(key, str) for key in keys):
        raise wire.WireError("the question is none of passive checks")
    return Question(keys, json=True)


def message(asked: Question, values: Sequence[str | Unsupported], version: str) -> bytes:
    """Give the answer to a question, with its header."""
    if asked.json:
        data = [
            {"error": value.why} if isinstance(value, Unsupported) else {"value": value}
            for value in values
        ]
        said: Any = {"version": version, "variant": _VARIANT, "data": data}
        return wire.message(json.dumps(said).encode())
    (value,) = values
    if isinstance(value, Unsupported):
        return wire.message(b"ZBX_NOTSUPPORTED\0" + value.why.encode("utf-8", "replace"))
    return wire.message(value.encode("utf-8", "replace"))


def value(key: str, host: str, document: Mapping[str, Any]) -> str | Unsupported:
    """Give the value of an item from the document that Zabbix is told (``status.told``)."""
    try:
        name, parameters = parse(key)
    except ValueError as error:
        return Unsupported(str(error))
    everup = document["everup"]
    match name.split("."):
        case ["agent", "ping"]:
            return "1"
        case ["agent", "version"]:
            return str(everup["version"])
        case ["agent", "hostname"]:
            return host
        case ["everup", "status"]:
            return json.dumps(document)
        case ["everup", ("services" | "instances") as things, "discovery"]:
            return json.dumps(document["discovery"][things])
        case ["everup", ("service" | "instance") as thing, *rest]:
            return _of_one(thing, ".".join(rest), parameters, document[f"{thing}s"])
        case ["everup", field] if field in everup:
            return str(everup[field])
    return Unsupported(
        f"everup knows no key {name[:100]}; it knows {KEY} and those of its template"
    )


def _of_one(
    thing: str, field: str, parameters: Sequence[str], rows: Sequence[Mapping[str, Any]]
) -> str | Unsupported:
    if len(parameters) != 1:
        return Unsupported(f"it needs one parameter: the name of the {thing}")
    row = next((row for row in rows if row["name"] == parameters[0]), None)
    if row is None:
        return Unsupported(f"everup keeps no {thing} {parameters[0][:100]}")
    if not field:
        return json.dumps(row)
    if field not in row:
        return Unsupported(f"of a {thing} there is: {', '.join(row)}")
    return str(row[field])


def parse(key: str) -> tuple[str, tuple[str, ...]]:
    """Read ``name[first,"second, quoted"]``. Raises ``ValueError`` with what is wrong with it."""
    found = _NAME.match(key)
    if found is None or len(key) > _LONGEST_KEY:
        raise ValueError("this is no key of an item")
    rest = key[found.end() :]
    if not rest:
        return key, ()
    if rest[0] != "[" or rest[-1] != "]":
        raise ValueError("the parameters of a key stand between [ and ] at its end")
    return found[0], tuple(_parameters(rest[1:-1]))


_QUOTED: Final = re.compile(r' *"((?:[^"\\]|\\.)*)" *(,|$)', re.DOTALL)
_BARE: Final = re.compile(r" *([^,\]]*)(,|$)")


def _parameters(text: str) -> Sequence[str]:
    found: list[str] = []
    at, more = 0, True
    while more:
        quoted = _QUOTED.match(text, at)
        match = quoted or _BARE.match(text, at)
        if match is None or (quoted is None and match[1].startswith('"')):
            raise ValueError("the parameters of the key cannot be read: quotes or brackets")
        found.append(match[1].replace('\\"', '"') if quoted else match[1])
        at, more = match.end(), match[2] == ","
    return found
