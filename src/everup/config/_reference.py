"""The reference page of the config file, written from the model."""

from typing import Any

from everup.config._fields import Key, keys_of, table_text
from everup.config._schema import default_value, plain_text
from everup.config._texts import texts_of
from everup.config._whole import rows
from everup.model.slo import Slo
from everup.model.spec import (
    Everup,
    Group,
    Hooks,
    Intensity,
    Limits,
    Listener,
    Log,
    Probe,
    Probes,
    Restart,
    Rollout,
    Service,
    StormBrake,
    Watchdog,
)

_INTRO = """\
# The config file

<!-- Written by `python -m everup.config` from the model. Change the docstrings there. -->

everup reads `everup.toml`. `everup check` names every mistake in it with its line, and prints the
whole config as understood, defaults included. An unknown key is a mistake.

- **Durations** are strings with a unit: `"500ms"`, `"5s"`, `"1m30s"`, `"2h"`, `"30d"`.
- **Sizes** are strings with a unit: `"64K"`, `"512M"`, `"2G"`. 1K is 1024 bytes.
- **Commands** are lists, because no shell is used: `command = ["python3", "-m", "app"]`. Where a
  shell is wanted, name it: `command = ["sh", "-c", "a | b"]`.
- **Templates** are filled in per replica, in `command`, hooks, values of `environment` and a
  probe's `http`, `tcp` and `exec`: `{replica}` (1, 2, ...), `{port}` and `{service}`. `{{` and
  `}}` stand for braces.
- **Relative paths** start from the directory of the config file.

Several keys have a short form:

| Written | Means |
|---|---|
| `listen = "127.0.0.1:8080"` | one listener, named `main` |
| `listen = ["127.0.0.1:8080", "unix:/run/a.sock"]` | listeners `main`, `main2`, ... |
| `listen = { http = ":80", admin = "unix:/run/a.sock" }` | listeners with these names |
| `watchdog = "10s"` | `watchdog = { interval = "10s" }` |
| `depends_on = "db"`, `environment_file = "web.env"`, `services = "web"` | a list of one |
| `success_exit = 3` | `success_exit = [3]` |
| `stop_signal = "INT"` | `stop_signal = "SIGINT"` |
"""

_DEFAULTS = """\
## `[defaults]`

What every service takes over unless it says otherwise, with the same keys as `[service.NAME]` but
for `command`, `listen`, `port` and `depends_on`. Tables merge key by key: a service that sets
`restart.delay` keeps the default's `restart.max_delay`. Three things are left out where they make
no sense: a probe's `http`, `tcp` and `exec` where the service's own probe names another of them;
probes of the replica's own socket where the service has no `listen` and no `port` (with a warning);
and `replicas`, `standby`, `watchdog`, readiness and liveness for a oneshot.
"""

_TABLES: tuple[tuple[str, type[Any]], ...] = (
    ("[everup]", Everup),
    ("[everup.storm_brake]", StormBrake),
    ("[service.NAME]", Service),
    ("[service.NAME.listen.LISTENER]", Listener),
    ("[service.NAME.probe]", Probes),
    ("[service.NAME.probe.startup], .readiness, .liveness", Probe),
    ("[service.NAME.restart]", Restart),
    ("[service.NAME.restart.intensity]", Intensity),
    ("[service.NAME.rollout]", Rollout),
    ("[service.NAME.watchdog]", Watchdog),
    ("[service.NAME.slo]", Slo),
    ("[service.NAME.limits]", Limits),
    ("[service.NAME.hooks]", Hooks),
    ("[service.NAME.log]", Log),
    ("[group.NAME]", Group),
)


def reference() -> str:
    """``docs/reference/config.md``: every table and key with type, range, default and text."""
    parts = [_INTRO]
    for header, table in (*_TABLES, *rows()):
        parts.append(_section(header, table))
        if table is StormBrake:
            parts.append(_DEFAULTS)
    return "\n".join(parts)


def _section(header: str, table: type[Any]) -> str:
    lines = [f"## `{header}`", "", plain_text(table_text(table)), ""]
    lines += ["| Key | Type | Default | Meaning |", "|---|---|---|---|"]
    texts = texts_of(table)
    for key in keys_of(table).values():
        if key.name != "name":
            text = plain_text(texts.get(key.name, ""))
            cells = (f"`{key.name}`", _type(key), _default(key), text)
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _type(key: Key) -> str:
    kind = key.kind
    span = kind.range_text()
    match kind.form:
        case "choice":
            return ", ".join(f'`"{choice}"`' for choice in kind.choices)
        case "list" if kind.item is not None:
            items = {"integer": "whole numbers", "table": "tables"}
            text = f"list of {items.get(kind.item.form, 'strings')}"
        case "map":
            text = "table of strings"
        case "integer":
            text = "whole number"
        case "boolean":
            text = "true or false"
        case form:
            text = form
    return f"{text}, {span}" if span else text


def _default(key: Key) -> str:
    if key.required:
        return "required"
    value = default_value(key)
    match value:
        case None:
            return "see its table" if key.default is not None else "not set"
        case bool():
            return f"`{str(value).lower()}`"
        case str():
            return f'`"{value}"`'
        case list():
            return f"`[{', '.join(str(item) for item in value)}]`"
        case dict():
            return "`{}`"
        case _:
            return f"`{value:g}`"
