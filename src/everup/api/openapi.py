"""The OpenAPI description of the API, kept beside the routes that it describes."""

from typing import Any

from everup import __version__, app
from everup.engine.records import How
from everup.model.instance import BreakerState, State
from everup.model.journal import Kind

_JSON = "application/json"
_NDJSON = "application/x-ndjson"


def openapi() -> dict[str, Any]:
    """OpenAPI 3.1."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "everup",
            "version": __version__,
            "description": "HTTP over the Unix socket STATE_DIR/api.sock (0600; root and the "
            "user that runs everup may speak). Times are RFC 3339 in UTC, durations seconds.",
        },
        "servers": [{"url": "http://localhost"}],
        "paths": {
            "/v1/status": {"get": _get("status", "Everything of now", "Status")},
            "/v1/events": {"get": _events()},
            "/v1/logs": {"get": _logs()},
            "/v1/start": {"post": _post("start", "Start what was stopped", "Targets")},
            "/v1/stop": {"post": _post("stop", "Stop; it stays stopped", "Targets")},
            "/v1/restart": {
                "post": _post("restart", "Replace processes, a batch at a time", "Restart")
            },
            "/v1/reload": {"post": _reload()},
            "/v1/scale": {"post": _post("scale", "Change the number of replicas", "Scale")},
            "/v1/signal": {"post": _post("signal", "Signal the main processes", "Signal")},
            "/v1/reexec": {"post": _reexec()},
            "/v1/down": {"post": _post("down", "Stop all services, then end", None)},
            "/v1/observed": {"post": _observed()},
            "/v1/ask": {"post": _post("ask", "Have done what passes the guard", "Ask")},
            "/v1/openapi.json": {"get": _plain("openapi", "This description", _JSON)},
            "/metrics": {"get": _plain("metrics", "Prometheus text format", "text/plain")},
            "/v1/rooms": {"get": _plain("rooms", "What each room shows of itself", _JSON)},
            **_rooms(),
        },
        "components": {"schemas": _schemas()},
    }


def _rooms() -> dict[str, Any]:
    """The routes that rooms bring."""
    paths: dict[str, Any] = {}
    for route in app.routes():
        name = route.path.rpartition("/")[2]
        paths.setdefault(route.path, {})[route.method] = _plain(name, route.summary, _JSON)
    return paths


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answers(content: dict[str, Any]) -> dict[str, Any]:
    error = {"description": "Not done, and why", "content": {_JSON: {"schema": _ref("Error")}}}
    return {"200": {"description": "OK", "content": content}, "default": error}


def _get(name: str, summary: str, schema: str) -> dict[str, Any]:
    answers = _answers({_JSON: {"schema": _ref(schema)}})
    return {"operationId": name, "summary": summary, "responses": answers}


def _plain(name: str, summary: str, media: str) -> dict[str, Any]:
    return {"operationId": name, "summary": summary, "responses": _answers({media: {}})}


def _post(name: str, summary: str, body: str | None) -> dict[str, Any]:
    out = _get(name, summary, "Accepted")
    if body is not None:
        out["requestBody"] = {"content": {_JSON: {"schema": _ref(body)}}}
    return out


def _reload() -> dict[str, Any]:
    out = _post("reload", "Apply the config file as it is now: all of it, or nothing", "Reload")
    return out | {"responses": _answers({_JSON: {"schema": _ref("Reloading")}})}


def _observed() -> dict[str, Any]:
    out = _post("observed", "Write entries of the observer's kinds to the journal", "Observed")
    return out | {"responses": _answers({_JSON: {"schema": _ref("Written")}})}


def _reexec() -> dict[str, Any]:
    text = "Become another version of everup; services go on"
    return _post("reexec", text, "Reexec")


def _query(name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": schema}


def _observing() -> dict[str, Any]:
    """What the observer brings and asks for."""
    entry = _object(
        ["kind", "subject", "payload"], kind=_TEXT, subject=_TEXT, payload={"type": "object"}
    )
    return {
        "Observed": _object(["entries"], entries={"type": "array", "items": entry}),
        "Written": _object(["last_seq"], last_seq=_INT),
        "Ask": _object(
            ["command", "targets", "why"], command=_TEXT, targets=_TEXTS, why=_TEXT, replicas=_INT
        ),
    }


def _changing(flag: dict[str, Any]) -> dict[str, Any]:
    """What reload and reexec take and give."""
    how = ["in place", "rolling", "one by one", "stop and start"]
    change = _object(["service", "keys", "how"], service=_TEXT, keys=_TEXTS, how={"enum": how})
    plan = _object(
        ["added", "removed", "changed", "settings"],
        added=_TEXTS, removed=_TEXTS, settings=_TEXTS,
        changed={"type": "array", "items": change},
    )  # fmt: skip
    return {
        "Reload": _object([], dry_run=flag, overlap=flag),
        "Reloading": _object(
            ["plan", "changed", "after"], plan=plan, changed=flag, after=_INT, slots=_TEXTS
        ),
        "Reexec": _object(["argv", "engine"], argv=_TEXTS, engine=_TEXTS, version=_TEXT),
    }


_INT = {"type": "integer", "minimum": 0}
_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_TIME = {"type": "string", "format": "date-time"}
_FLAG = {"type": "string", "enum": ["0", "1"]}


def _events() -> dict[str, Any]:
    return {
        "operationId": "events",
        "summary": "The journal, one JSON object a line",
        "parameters": [
            _query("after", "Only events with a larger seq", _INT),
            _query("n", "Only the last so many", _INT),
            _query("service", "Service or instance; repeatable", _TEXTS),
            _query("kind", "Kind, may end in *; repeatable", _TEXTS),
            _query("since", "Not before", _TIME),
            _query("until", "Not after", _TIME),
            _query("follow", "1: go on with what comes", _FLAG),
        ],
        "responses": _answers({_NDJSON: {"schema": _ref("Event")}}),
    }


def _logs() -> dict[str, Any]:
    return {
        "operationId": "logs",
        "summary": "Output of the services, merged by time, one JSON object a line",
        "parameters": [
            _query("service", "Service or instance; repeatable", _TEXTS),
            _query("n", "The last so many lines (default 100)", _INT),
            _query("follow", "1: go on with what comes", _FLAG),
        ],
        "responses": _answers({_NDJSON: {"schema": _ref("LogLine")}}),
    }


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


def _schemas() -> dict[str, Any]:
    number, flag = {"type": "number"}, {"type": "boolean"}
    state = {"type": "string", "enum": [state.value for state in State]}
    dependency = _object(
        ["state", "calls", "ok", "failed", "rejected", "neutral", "p99_ms"],
        state={"enum": [*(state.value for state in BreakerState), None]}, calls=_INT,
        ok=_INT, failed=_INT, rejected=_INT, neutral=_INT, p99_ms={"type": ["number", "null"]},
    ) | {"description": "What its process says of something that it depends on"}  # fmt: skip
    instance = _object(
        ["slot", "state", "since", "restarts"],
        slot=_TEXT, state=state, since=_TIME, since_s=number, want=flag,
        pid={"type": ["integer", "null"]}, run=_INT, restarts=_INT, attempt=_INT,
        done=flag, suspected=flag, elsewhere=flag,
        reason=_TEXT, doing=_TEXT, status_text=_TEXT, last_exit={"type": ["string", "null"]},
        usage={"type": ["object", "null"]}, probes={"type": "object"},
        dependencies={"type": "object", "additionalProperties": dependency},
        in_balance=flag, standby=flag, retry_in_s=number,
    )  # fmt: skip
    rollout = _object(
        ["how", "gen", "slots", "now", "left"],
        how={"enum": [how.value for how in How]}, gen=_INT, slots=_TEXTS, now=_TEXTS, left=_TEXTS,
    ) | {"description": "Processes of the service are being replaced: of slots, those left",
         "type": ["object", "null"]}  # fmt: skip
    outgoing = {
        "type": "array", "items": _ref("Instance"),
        "description": "Processes that another one in the same slot replaces or has replaced",
    }  # fmt: skip
    service = _object(
        ["name", "type", "instances"],
        name=_TEXT, type={"enum": ["service", "oneshot"]}, replicas=_INT,
        configured_replicas=_INT, standby=_INT,
        ready=_INT, addresses=_TEXTS, depends_on=_TEXTS,
        active={"type": "array", "items": _INT},
        instances={"type": "array", "items": _ref("Instance")}, outgoing=outgoing,
        rollout=rollout,
    )  # fmt: skip
    reloading = _object(
        ["by", "since_s", "left", "rolling_back"],
        by=_TEXT, since_s=number, left=_TEXTS, rolling_back={"type": ["string", "null"]},
    ) | {"description": "A reload under way: services left, or why it is being rolled back",
         "type": ["object", "null"]}  # fmt: skip
    raw = {"type": "string", "description": "The line's bytes, where they are no UTF-8"}
    process = _object(["pid"], pid=_INT)
    kinds = {"type": "string", "enum": [*(kind.value for kind in Kind), *app.kinds()]}
    return {
        "Error": _object(["error"], error=_TEXT, hint=_TEXT),
        "Targets": _object([], targets=_TEXTS),
        "Restart": _object([], targets=_TEXTS, overlap=flag),
        "Scale": _object(["service", "replicas"], service=_TEXT, replicas=_INT),
        "Signal": _object(["signal"], signal=_TEXT, targets=_TEXTS),
        "Accepted": _object(["after"], slots=_TEXTS, after=_INT, keeper=process, engine=process),
        **(_changing(flag) | _observing()),
        "Event": _object(
            ["seq", "time", "kind", "subject"],
            seq=_INT, time=_TIME, mono=number, kind=kinds, subject=_TEXT,
        ),
        "LogLine": _object(
            ["time", "slot", "stream", "text"],
            time=_TIME, time_ns=_INT, slot=_TEXT, stream=_TEXT, text=_TEXT, text_base64=raw,
        ),
        "Instance": instance,
        "Service": service,
        "Status": _object(
            ["version", "services"],
            version=_TEXT, config=_TEXT, state_dir=_TEXT, started=_TIME, stopping=flag,
            reloading=reloading, journal_degraded=flag, journal_degraded_reason=_TEXT,
            last_seq=_INT, keeper=process, engine=process, machine={"type": "object"},
            services={"type": "array", "items": _ref("Service")},
        ),
    }  # fmt: skip
