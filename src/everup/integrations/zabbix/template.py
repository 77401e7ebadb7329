"""The template: how Zabbix takes everup's one value apart. Written for Zabbix 6.0 or 7.0.

Pure. Everything but the value itself is a dependent item, so that one push brings all of it at one
moment. Ids are made of names: a template that is imported again changes the one that is there.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

from everup.integrations.zabbix.status import KEY

Format = Literal["6.0", "7.0"]
FORMATS: Final = ("6.0", "7.0")
NAME: Final = "everup"
GROUP: Final = "Templates/Applications"
SILENCE: Final = "{$EVERUP.SILENCE}"
"""The macro that says after how long everup is missed."""
_LOST: Final = "7d"
"""What everup keeps no more goes from Zabbix after that."""
_TEXT_KEPT: Final = "1h"
_GONE: Final = '{"level":0,"text":"everup does not keep it any more","critical":"","warning":""}'
"""What is gone has no problems."""
_MAP: Final = "everup level"

Json = dict[str, Any]


def template(form: Format) -> str:
    """Write the template as YAML, in that format."""
    groups = [{"uuid": _uuid(GROUP), "name": GROUP}]
    export: Json = {
        "version": form,
        ("groups" if form == "6.0" else "template_groups"): groups,
        "templates": [_template(form)],
        "triggers": _own_triggers(),
        "graphs": [_graph(_overview(), "graph everup")],
    }
    if form == "6.0":
        export = {"version": form, "date": "2026-01-01T00:00:00Z"} | export
    return "\n".join(_yaml({"zabbix_export": export})) + "\n"


def _template(form: Format) -> Json:
    return {
        "uuid": _uuid(NAME),
        "template": NAME,
        "name": NAME,
        "description": "Services that everup keeps. One trapper item takes all that it tells.",
        "groups": [{"name": GROUP}],
        "items": [_master(form), *(_own(form, *row) for row in _OWN)],
        "discovery_rules": [
            _rule(form, "service", "services", _SERVICE, _service_triggers()),
            _rule(form, "instance", "instances", _INSTANCE, {}),
        ],
        "tags": [{"tag": "class", "value": "software"}, {"tag": "target", "value": "everup"}],
        "macros": [
            {
                "macro": SILENCE,
                "value": "100s",
                "description": "everup is missed after that: three heartbeats, and some more",
            }
        ],
        "dashboards": [_dashboard(form)],
        "valuemaps": [
            {
                "uuid": _uuid(_MAP),
                "name": _MAP,
                "mappings": [
                    {"value": str(value), "newvalue": name}
                    for value, name in enumerate(("OK", "WARNING", "CRITICAL", "UNKNOWN"))
                ],
            }
        ],
    }


# What is told of everup itself, of a service, of an instance: name, key, path, kind, unit.
_OWN: Final = (
    ("level", "everup.level", "$.everup.level", "level", ""),
    ("what it says", "everup.text", "$.everup.text", "text", ""),
    ("version", "everup.version", "$.everup.version", "text", ""),
    ("services", "everup.services", "$.everup.services", "number", ""),
    ("services that serve", "everup.serving", "$.everup.serving", "number", ""),
    ("open incidents", "everup.incidents", "$.everup.incidents", "number", ""),
    ("critical incidents of the machine", "everup.critical", "$.everup.critical", "text", ""),
    ("warnings of the machine", "everup.warning", "$.everup.warning", "text", ""),
)
_SERVICE: Final = (
    ("level", "level", "level", ""),
    ("what everup says", "text", "text", ""),
    ("replicas that are ready", "ready", "number", ""),
    ("replicas that should be", "wanted", "number", ""),
    ("restarts", "restarts", "number", ""),
    ("CPU", "cpu_percent", "number", "%"),
    ("memory", "memory_bytes", "number", "B"),
    ("critical incident", "critical", "text", ""),
    ("warning", "warning", "text", ""),
)
_INSTANCE: Final = (
    ("state", "state", "text", ""),
    ("is ready", "ready", "number", ""),
    ("restarts", "restarts", "number", ""),
    ("CPU", "cpu_percent", "number", "%"),
    ("memory", "memory_bytes", "number", "B"),
)


def _master(form: Format) -> Json:
    return {
        "uuid": _uuid(KEY),
        "name": "everup: all that it tells",
        "type": "TRAP",
        "key": KEY,
        **_no_delay(form),
        "history": _TEXT_KEPT,
        "trends": "0",
        "value_type": "TEXT",
    }


def _own(form: Format, name: str, key: str, path: str, kind: str, unit: str) -> Json:
    return {"uuid": _uuid(key), **_item(form, f"everup: {name}", key, path, kind, unit, KEY)}


def _item(form: Format, name: str, key: str, path: str, kind: str, unit: str, master: str) -> Json:
    steps: list[Json] = [
        # An older everup does not tell it, or what it is about is gone.
        _step("JSONPATH", [path]) | {"error_handler": "DISCARD_VALUE"}
    ]
    item: Json = {"name": name, "type": "DEPENDENT", "key": key, **_no_delay(form)}
    if kind == "text":
        steps.append(_step("DISCARD_UNCHANGED_HEARTBEAT", [_TEXT_KEPT]))
        item |= {"history": "90d", "trends": "0", "value_type": "TEXT"}
    else:
        item |= {"history": "7d", "value_type": "FLOAT"}
    if kind == "level":
        item |= {"value_type": "UNSIGNED", "valuemap": {"name": _MAP}}
    if unit:
        item |= {"units": unit}
    return item | {"preprocessing": steps, "master_item": {"key": master}}


def _rule(
    form: Format,
    thing: str,
    things: str,
    rows: Sequence[tuple[str, str, str, str]],
    triggers: Mapping[str, Sequence[Json]],
) -> Json:
    macro = f"{{#{thing.upper()}}}"
    whole = f"everup.{thing}[{macro}]"
    first: Json = {
        "uuid": _uuid(whole),
        "name": f"{macro}: all that is told",
        "type": "DEPENDENT",
        "key": whole,
        **_no_delay(form),
        "history": "0",
        "trends": "0",
        "value_type": "TEXT",
        "preprocessing": [
            _step("JSONPATH", [f'$.{things}[?(@.name == "{macro}")].first()'])
            | {"error_handler": "CUSTOM_VALUE", "error_handler_params": _GONE}
        ],
        "master_item": {"key": KEY},
    }
    prototypes = [first]
    for name, field, kind, unit in rows:
        key = f"everup.{thing}.{field}[{macro}]"
        item = _item(form, f"{macro}: {name}", key, f"$.{field}", kind, unit, whole)
        prototype = {"uuid": _uuid(key), **item, "tags": [{"tag": thing, "value": macro}]}
        if field in triggers:
            prototype["trigger_prototypes"] = list(triggers[field])
        prototypes.append(prototype)
    return {
        "uuid": _uuid(f"everup.{things}.discovery"),
        "name": f"everup: {things}",
        "type": "DEPENDENT",
        "key": f"everup.{things}.discovery",
        **_no_delay(form),
        "lifetime": _LOST,
        "item_prototypes": prototypes,
        "graph_prototypes": [
            _graph(graph, f"graph {thing} {graph[0]}") for graph in _graphs(thing, macro)
        ],
        "master_item": {"key": KEY},
        "preprocessing": [
            _step("JSONPATH", [f"$.discovery.{things}"]),
            _step("DISCARD_UNCHANGED_HEARTBEAT", ["10m"]),
        ],
    }


def _service_triggers() -> Mapping[str, Sequence[Json]]:
    macro = "{#SERVICE}"
    keys = {grave: f"everup.service.{grave}[{macro}]" for grave in ("critical", "warning")}
    names = {"critical": f"{macro}: critical incident", "warning": f"{macro}: warning"}
    tags = [{"tag": "service", "value": macro}, {"tag": "everup", "value": "incident"}]
    critical = _problem(names["critical"], keys["critical"], "HIGH")
    needed = {key: critical[key] for key in ("name", "expression")}
    warning = _problem(names["warning"], keys["warning"], "WARNING")
    return {
        "critical": [critical | {"tags": tags}],
        "warning": [warning | {"dependencies": [needed], "tags": tags}],
    }


def _own_triggers() -> Sequence[Json]:
    tags = [{"tag": "everup", "value": "incident"}]
    silent = {
        "uuid": _uuid("trigger silent"),
        "expression": f"nodata(/{NAME}/{KEY},{SILENCE})=1",
        "name": "everup tells nothing",
        "priority": "AVERAGE",
        "description": "The machine, everup, its observer or the way to Zabbix is down. What Zabbix"
        " shows of the services is old.",
    }
    engine = {
        "uuid": _uuid("trigger engine"),
        "expression": f"last(/{NAME}/everup.level)=3",
        "name": "everup's engine does not answer",
        "priority": "AVERAGE",
        "dependencies": [{key: silent[key] for key in ("name", "expression")}],
    }
    critical = _problem("everup: critical incident of the machine", "everup.critical", "HIGH")
    warning = _problem("everup: warning of the machine", "everup.warning", "WARNING")
    needed = {key: critical[key] for key in ("name", "expression")}
    return [
        silent,
        engine,
        critical | {"tags": tags},
        warning | {"dependencies": [needed], "tags": tags},
    ]


def _problem(name: str, key: str, priority: str) -> Json:
    """It is there while the text is not empty, and called what the text says."""
    return {
        "uuid": _uuid(f"trigger {key}"),
        "expression": f"length(last(/{NAME}/{key}))>0",
        "name": name,
        "event_name": f"{{?last(/{{HOST.HOST}}/{key})}}",
        "opdata": '{{ITEM.LASTVALUE1}.regsub("(.*)", "\\1")}',  # else no more than 20 characters
        "priority": priority,
    }


_Graph = tuple[str, Sequence[tuple[str, str]]]
_BLUE, _GREEN, _RED, _GREY = "1A7CEB", "34A853", "E45959", "9AA5B1"


def _overview() -> _Graph:
    return (
        "everup: services and incidents",
        (
            ("everup.services", _GREY),
            ("everup.serving", _GREEN),
            ("everup.incidents", _RED),
        ),
    )


def _graphs(thing: str, macro: str) -> Iterator[_Graph]:
    if thing == "service":
        ready = (f"everup.service.ready[{macro}]", _GREEN)
        yield f"{macro}: replicas", ((f"everup.service.wanted[{macro}]", _GREY), ready)
        yield f"{macro}: restarts", ((f"everup.service.restarts[{macro}]", _RED),)
    yield f"{macro}: CPU", ((f"everup.{thing}.cpu_percent[{macro}]", _BLUE),)
    yield f"{macro}: memory", ((f"everup.{thing}.memory_bytes[{macro}]", _BLUE),)


def _graph(graph: _Graph, identity: str) -> Json:
    name, lines = graph
    return {
        "uuid": _uuid(identity),
        "name": name,
        "ymin_type_1": "FIXED",
        "graph_items": [
            {"sortorder": str(n), "color": color, "item": {"host": NAME, "key": key}}
            for n, (key, color) in enumerate(lines)
        ],
    }


def _dashboard(form: Format) -> Json:
    columns = 24 if form == "6.0" else 72
    half = columns // 2
    service = "{#SERVICE}"
    pages = [
        (
            "Overview",
            [
                _shown(form, "GRAPH", _overview()[0], 0, 0, columns),
                *(
                    _shown(form, "GRAPH_PROTOTYPE", f"{service}: {name}", half * (n % 2), 5, half)
                    for n, name in enumerate(("replicas", "restarts"))
                ),
            ],
        ),
        (
            "Resources",
            [
                _shown(form, "GRAPH_PROTOTYPE", f"{service}: {name}", half * n, 0, half)
                for n, name in enumerate(("CPU", "memory"))
            ],
        ),
    ]
    return {
        "uuid": _uuid("dashboard"),
        "name": "everup",
        "pages": [{"name": name, "widgets": widgets} for name, widgets in pages],
    }


def _shown(form: Format, kind: str, name: str, x: int, y: int, width: int) -> Json:
    classic = kind == "GRAPH"
    what = {"host": NAME, "name": name}
    one = "" if form == "6.0" else ".0"
    new = "graph" if classic else "graphprototype"
    old = "GRAPH_CLASSIC" if classic else kind
    fields: list[Json] = [{"type": kind, "name": f"graphid{one}", "value": what}]
    if not classic:
        fields += [{"type": "INTEGER", "name": key, "value": "1"} for key in ("columns", "rows")]
        fields[1]["value"] = "1"
        fields[2]["value"] = "3"
    return {
        "type": old if form == "6.0" else new,
        "x": str(x),
        "y": str(y),
        "width": str(width),
        "height": "5" if classic else "10",
        "fields": fields,
    }


def _step(kind: str, parameters: Sequence[str]) -> Json:
    return {"type": kind, "parameters": list(parameters)}


def _no_delay(form: Format) -> Json:
    return {"delay": "0"} if form == "6.0" else {}


def _uuid(name: str) -> str:
    """An id of version 4, as Zabbix wants them, that is the same each time."""
    number = int.from_bytes(hashlib.sha256(f"everup zabbix {name}".encode()).digest()[:16])
    number = number & ~(0xF << 76) | 4 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    return f"{number:032x}"


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Write a mapping as YAML; texts as JSON writes them, which YAML reads as well."""
    for key, part in value.items():
        if isinstance(part, Mapping):
            yield f"{indent}{key}:"
            yield from _yaml(part, f"{indent}  ")
        elif isinstance(part, list):
            yield f"{indent}{key}:"
            for item in part:
                if isinstance(item, Mapping):
                    first, *rest = _yaml(item, f"{indent}    ")
                    yield f"{indent}  - {first.lstrip()}"
                    yield from rest
                else:
                    yield f"{indent}  - {json.dumps(item)}"
        else:
            yield f"{indent}{key}: {json.dumps(part)}"
