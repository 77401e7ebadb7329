"""JSON Schema of the config file, so that editors complete and check it."""

from functools import cache
from typing import Any

from pydantic import TypeAdapter

from everup import app
from everup.config._fields import Key, Kind, exact_duration, exact_size, keys_of, table_text
from everup.config._normalise import NO_DEFAULT
from everup.config._signals import SIGNALS
from everup.config._texts import texts_of
from everup.config._validate import NAME_HELP
from everup.kernel.manifest import load
from everup.model.spec import Everup, Group, Listener, Service
from everup.model.units import Duration

Schema = dict[str, Any]

_SIZE = r"^\d+(\.\d+)? ?[KMGTkmgt]?([iI]?[bB])?$"
_NAME = r"^[a-zA-Z][a-zA-Z0-9_-]{0,62}$"
_STRINGS: Schema = {"type": "array", "items": {"type": "string"}}
_STRING_OR_STRINGS: Schema = {"anyOf": [{"type": "string"}, _STRINGS]}


def json_schema() -> Schema:
    """JSON Schema (2020-12) of ``everup.toml``: shorthands, ``[defaults]`` and all."""
    defs: dict[str, Schema] = {}
    _define(Everup, defs)
    _define(Service, defs)
    _define(Group, defs)
    rooms: dict[str, Schema] = {}
    for table in app.tables():
        one = load(table.spec)
        _define(one, defs)
        single = {"$ref": f"#/$defs/{one.__name__}"}
        text = plain_text(table_text(one))
        rooms[table.key] = _named(one.__name__, text) if table.named else single
    service = defs["Service"]["properties"]
    defs["Defaults"] = {
        "type": "object",
        "description": "What every service takes over unless it says otherwise.",
        "properties": {key: value for key, value in service.items() if key not in NO_DEFAULT},
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "everup.toml",
        "description": "Configuration of everup.",
        "type": "object",
        "properties": {
            "everup": {"$ref": "#/$defs/Everup"},
            "defaults": {"$ref": "#/$defs/Defaults"},
            "service": _named("Service", "The services."),
            "group": _named("Group", "The groups."),
            **rooms,
        },
        "additionalProperties": False,
        "$defs": defs,
    }


@cache
def _duration() -> str:
    return str(TypeAdapter(Duration).json_schema()["pattern"])


def _named(name: str, text: str) -> Schema:
    return {
        "type": "object",
        "description": text,
        "propertyNames": {"pattern": _NAME, "description": NAME_HELP},
        "additionalProperties": {"$ref": f"#/$defs/{name}"},
    }


def _define(table: type[Any], defs: dict[str, Schema]) -> None:
    """Adds the table and all tables below it to ``defs``."""
    if table.__name__ in defs:
        return
    schema = defs[table.__name__] = {"type": "object", "description": plain_text(table_text(table))}
    texts = texts_of(table)
    properties: dict[str, Schema] = {}
    required: list[str] = []
    for key in keys_of(table).values():
        if key.name == "name" and table is not Listener:
            continue
        properties[key.name] = _property(table, key, plain_text(texts.get(key.name, "")), defs)
        if key.required and key.name != "name":
            required.append(key.name)
    schema["properties"] = properties
    if required:
        schema["required"] = required
    schema["additionalProperties"] = False


def _property(table: type[Any], key: Key, text: str, defs: dict[str, Schema]) -> Schema:
    schema = _shorthand(table, key, defs) or _kind(key.kind, defs)
    if (span := key.kind.range_text()) and span not in text:
        text += f" Range: {span}."
    schema = {**schema, "description": text}
    default = default_value(key)
    if default is not None and not isinstance(default, dict):
        schema["default"] = default
    return schema


def default_value(key: Key) -> Any:
    """The default as it would stand in the file; None if there is nothing to write."""
    value = key.default
    if value is None or key.required:
        return None
    match key.kind.form:
        case "duration":
            return exact_duration(value)
        case "size":
            return exact_size(value)
        case "list":
            return list(value)
        case "choice":
            return str(value)
        case "table":
            return None
        case _:
            return value


def _kind(kind: Kind, defs: dict[str, Schema]) -> Schema:
    match kind.form:
        case "duration":
            return {"type": "string", "pattern": _duration()}
        case "size":
            return {"anyOf": [{"type": "string", "pattern": _SIZE}, {"type": "integer"}]}
        case "integer" | "number":
            bounds = {"minimum": kind.ge, "exclusiveMinimum": kind.gt, "maximum": kind.le}
            bounds["exclusiveMaximum"] = kind.lt
            return {"type": kind.form, **{k: v for k, v in bounds.items() if v is not None}}
        case "boolean":
            return {"type": "boolean"}
        case "choice":
            return {"type": "string", "enum": list(kind.choices)}
        case "list":
            items = _kind(kind.item or Kind("string"), defs)
            bound = {"minItems": kind.min_items} if kind.min_items else {}
            return {"type": "array", "items": items, **bound}
        case "map":
            return {"type": "object", "additionalProperties": {"type": "string"}}
        case "table" if kind.table is not None:
            _define(kind.table, defs)
            return {"$ref": f"#/$defs/{kind.table.__name__}"}
        case _:
            return {"type": "string", **({"pattern": kind.pattern} if kind.pattern else {})}


def _shorthand(table: type[Any], key: Key, defs: dict[str, Schema]) -> Schema | None:
    """Keys that can be written in more ways than the model has."""
    if key.name in ("depends_on", "environment_file") or (
        table is Group and key.name == "services"
    ):
        return _STRING_OR_STRINGS
    if key.name == "success_exit":
        code = {"type": "integer", "minimum": 0, "maximum": 255}
        return {"anyOf": [code, {"type": "array", "items": code}]}
    if key.name == "watchdog":
        return {"anyOf": [{"type": "string", "pattern": _duration()}, _kind(key.kind, defs)]}
    if key.name == "stop_signal":
        names = "|".join(name[3:] for name in SIGNALS if not name.startswith("SIGRT"))
        return {"type": "string", "pattern": rf"^(SIG)?({names}|RTMIN(\+\d+)?|RTMAX(-\d+)?)$"}
    if key.name == "listen":
        one = _kind(Kind("table", table=Listener), defs)
        either = {"anyOf": [{"type": "string"}, one]}
        return {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": either},
                one,
                {"type": "object", "additionalProperties": either},
            ]
        }
    return None


def plain_text(text: str) -> str:
    """A docstring as running text: no line breaks, no reST quotes."""
    return " ".join(text.split()).replace("``", "`")
