"""Index templates and lifecycle policies for what everup ships. Pure."""

from collections.abc import Iterator
from typing import Any, Final, Literal

from everup.integrations.elasticsearch import names
from everup.integrations.elasticsearch.server import Dialect

VERSION: Final = 1
"""Of all that is here. A server that has a later one keeps it."""
EVENTS: Final = "everup-events"
INCIDENTS: Final = "everup-incidents"
POLICY: Final = "everup-events"
_PRIORITY: Final = 300
"""Above the built-in template for ``logs-*-*`` (100) and what packages of the Fleet use (200)."""

_KEYWORD: Final = {"type": "keyword", "ignore_above": 1024}
_DATE: Final = {"type": "date"}
_LONG: Final = {"type": "long"}
_DOUBLE: Final = {"type": "double"}
_TEXT: Final = {"type": "text"}


def _object(**properties: Any) -> dict[str, Any]:
    return {"properties": properties}


_COMMON: Final[dict[str, Any]] = {
    "@timestamp": _DATE,
    "message": _TEXT,
    "ecs": _object(version=_KEYWORD),
    "event": _object(
        kind=_KEYWORD, module=_KEYWORD, dataset=_KEYWORD, action=_KEYWORD, id=_KEYWORD,
        outcome=_KEYWORD, reason=_KEYWORD, sequence=_LONG, duration=_LONG, start=_DATE, end=_DATE,
    ),
    "log": _object(level=_KEYWORD),
    "host": _object(name=_KEYWORD, hostname=_KEYWORD),
    "agent": _object(type=_KEYWORD, version=_KEYWORD, name=_KEYWORD),
    "service": _object(name=_KEYWORD, node=_object(name=_KEYWORD)),
    "process": _object(pid=_LONG, exit_code=_LONG),
    "data_stream": _object(type=_KEYWORD, dataset=_KEYWORD, namespace=_KEYWORD),
}  # fmt: skip
_OF_EVENTS: Final = _COMMON | {
    "everup": _object(
        kind=_KEYWORD, subject=_KEYWORD, run=_LONG, cause=_KEYWORD, exit_kind=_KEYWORD,
        killed_for=_KEYWORD, by=_KEYWORD, condition=_KEYWORD, severity=_KEYWORD, state=_KEYWORD,
        dependency=_KEYWORD, up_s=_DOUBLE, took_s=_DOUBLE, delay_s=_DOUBLE, after_s=_DOUBLE,
        burn_rate=_DOUBLE, incident=_object(number=_LONG),
        payload={"type": "object", "enabled": False},
    ),
}  # fmt: skip
_OF_INCIDENTS: Final = _COMMON | {
    "everup": _object(
        subject=_KEYWORD,
        incident=_object(
            number=_LONG, state=_KEYWORD, severity=_KEYWORD, sentence=_TEXT, services=_KEYWORD,
            symptoms=_TEXT, occurrences=_LONG, acknowledged_by=_KEYWORD, cause=_KEYWORD,
            confidence=_DOUBLE, root=_KEYWORD, path=_KEYWORD, evidence=_TEXT, then=_TEXT,
            runner_up=_TEXT,
        ),
    ),
}  # fmt: skip


def events(to: Dialect, namespace: str, *, streams: bool, policy: bool) -> dict[str, Any]:
    """Give the template of the events: for a data stream, or for indices behind an alias."""
    settings: dict[str, Any] = {}
    if policy and not to.opensearch:
        settings["index.lifecycle.name"] = POLICY
        if not streams:
            settings["index.lifecycle.rollover_alias"] = names.events(namespace)
    # Templates of two namespaces must not overlap; none of these names has a dash.
    pattern = names.events(namespace) + ("" if streams else "-*")
    body = _template(to, pattern, settings, to.mappings(_OF_EVENTS))
    if streams:
        body["data_stream"] = {}
    return body


def incidents(to: Dialect, namespace: str) -> dict[str, Any]:
    """Give the template of the incidents, which are in one index for good."""
    return _template(to, names.incidents(namespace), {}, to.mappings(_OF_INCIDENTS))


def _template(
    to: Dialect, pattern: str, settings: dict[str, Any], mappings: dict[str, Any]
) -> dict[str, Any]:
    inner: dict[str, Any] = {"settings": settings, "mappings": mappings}
    if to.composable:
        meta = {"managed_by": "everup", "version": VERSION}
        return {
            "index_patterns": [pattern],
            "priority": _PRIORITY,
            "version": VERSION,
            "_meta": meta,
            "template": inner,
        }
    whole = {"order": _PRIORITY, "version": VERSION, **inner}
    if to.version < (6, 0):
        return {"template": pattern, **whole}
    return {"index_patterns": [pattern], **whole}


def ilm(keep_days: int) -> dict[str, Any]:
    """Give the policy of Elasticsearch: roll over, and delete after ``keep_days``."""
    rollover = {"max_age": "7d", "max_size": "20gb"}
    return {
        "policy": {
            "phases": {
                "hot": {"actions": {"rollover": rollover}},
                "delete": {"min_age": f"{keep_days}d", "actions": {"delete": {}}},
            },
        }
    }


def ism(namespace: str, keep_days: int) -> dict[str, Any]:
    """Give the policy of OpenSearch: the same."""
    gone = [{"state_name": "delete", "conditions": {"min_index_age": f"{keep_days}d"}}]
    rollover = {"rollover": {"min_index_age": "7d", "min_size": "20gb"}}
    return {
        "policy": {
            "description": f"everup's events: deleted after {keep_days} days",
            "default_state": "hot",
            "states": [
                {"name": "hot", "actions": [rollover], "transitions": gone},
                {"name": "delete", "actions": [{"delete": {}}], "transitions": []},
            ],
            "ism_template": [
                {"index_patterns": [f".ds-{names.events(namespace)}-*"], "priority": _PRIORITY}
            ],
        }
    }


def fields(view: Literal["events", "incidents"]) -> dict[str, str]:
    """Give every field that can be searched for, with its type, by its name with dots."""
    return dict(_flat(_OF_EVENTS if view == "events" else _OF_INCIDENTS, ""))


def _flat(properties: dict[str, Any], before: str) -> Iterator[tuple[str, str]]:
    for name, field in properties.items():
        if "properties" in field:
            yield from _flat(field["properties"], f"{before}{name}.")
        elif field["type"] != "object":
            yield before + name, field["type"]
