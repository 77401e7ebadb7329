"""Brings the document into the one form that the model knows: shorthands spelt out, names taken
from table names, ``[defaults]`` merged into each service, paths made absolute.

It is lenient: what it does not understand stays as it is for the checks that follow.
"""

import copy
from pathlib import PurePosixPath
from typing import Any

from everup import app
from everup.config._fields import keys_of
from everup.config._problem import Findings, Path, did_you_mean
from everup.config._signals import SIGNALS, signal_name
from everup.model.spec import Listener, Service

CORE_KEYS = ("everup", "defaults", "service", "group")
NO_DEFAULT = ("name", "command", "listen", "port", "depends_on")
"""Service keys that ``[defaults]`` cannot have."""
PROBE_MEANS = ("http", "tcp", "exec", "grpc")
PHANTOM = "[defaults]"
"""Stands for a service with nothing but the defaults, so that they are checked even where no
service takes them. No real service can have this name."""

_NOT_FOR_ONESHOT = ("replicas", "standby", "watchdog")
_PROBES_NOT_FOR_ONESHOT = ("readiness", "liveness")

Table = dict[str, Any]


def normalise(document: Table, found: Findings, directory: str) -> Table:
    """The document in the model's form; problems of its outer structure go to ``found``."""
    known = (*CORE_KEYS, *(table.key for table in app.tables()))
    for key, value in document.items():
        if key in known:
            continue
        hint = did_you_mean(key, known)
        if isinstance(value, dict) and "command" in value:
            hint = f"; a service's table is named [service.{key}]"
        found.add((key,), f"unknown key{hint}", valid=known)
    data: Table = {}
    if "everup" in document:
        data["everup"] = document["everup"]
        if isinstance(data["everup"], dict):
            data["everup"] = {**data["everup"]}
    defaults = _defaults(document, found)
    services = _tables(document, "service", found)
    data["service"] = {
        name: _service(name, table, defaults, found, directory) for name, table in services.items()
    }
    if defaults:
        phantom = {"name": "defaults", "command": ["true"]}
        _merge(phantom, defaults, ("service", PHANTOM), ("defaults",), found)
        data["service"][PHANTOM] = phantom
    data["group"] = {}
    for name, table in _tables(document, "group", found).items():
        group = _named(name, table, ("group", name), found)
        _listify(group, "services")
        data["group"][name] = group
    for own in app.tables():
        if own.named:
            named = _tables(document, own.key, found)
            data[own.key] = {
                name: _named(name, one, (own.key, name), found) for name, one in named.items()
            }
        elif own.key in document:
            data[own.key] = copy.deepcopy(document[own.key])
    _state_dir(data, directory)
    return data


def _tables(document: Table, key: str, found: Findings) -> dict[str, Table]:
    """The named tables under ``[service.*]`` or ``[group.*]``."""
    tables = document.get(key, {})
    if not isinstance(tables, dict):
        found.add((key,), f"expected tables named [{key}.NAME]", value=tables)
        return {}
    good: dict[str, Table] = {}
    for name, table in tables.items():
        if isinstance(table, dict):
            good[name] = table
        else:
            message = f"expected a table; each {key} is a table named [{key}.NAME]"
            found.add((key, name), message, value=table)
    return good


def _named(name: str, table: Table, path: Path, found: Findings) -> Table:
    """A copy of the table with its name put in."""
    table = copy.deepcopy(table)
    if "name" in table:
        found.add((*path, "name"), f"the name is that of the table, {name!r}; leave this key out")
    table["name"] = name
    return table


def _defaults(document: Table, found: Findings) -> Table:
    defaults = document.get("defaults", {})
    if not isinstance(defaults, dict):
        found.add(("defaults",), "expected a table", value=defaults)
        return {}
    allowed = [key for key in keys_of(Service) if key not in NO_DEFAULT]
    good: Table = {}
    for key, value in defaults.items():
        if key in allowed:
            good[key] = copy.deepcopy(value)
        elif key in NO_DEFAULT:
            found.add(("defaults", key), "each service has its own; it cannot have a default")
        else:
            hint = did_you_mean(key, allowed)
            found.add(("defaults", key), f"unknown key{hint}", valid=allowed)
    _shorthands(good, ("defaults",), found)
    return good


def _service(name: str, raw: Table, defaults: Table, found: Findings, directory: str) -> Table:
    path: Path = ("service", name)
    service = _named(name, raw, path, found)
    _shorthands(service, path, found)
    if "listen" in service:
        service["listen"] = _listen(service["listen"], (*path, "listen"), found)
    _merge(service, _fitting(defaults, service, name, found), path, ("defaults",), found)
    own = service.get("directory", "")
    if isinstance(own, str) and (own or "directory" not in service):
        service["directory"] = str(PurePosixPath(directory) / own)
    files = service.get("environment_file")
    if isinstance(files, list):
        service["environment_file"] = [_beside(file, directory) for file in files]
    for probe in _probes(service):
        for key in ("tls_ca", "tls_cert", "tls_key"):
            if key in probe:
                probe[key] = _beside(probe[key], directory)
    return service


def _probes(service: Table) -> list[Table]:
    probes = service.get("probe")
    tables = probes.values() if isinstance(probes, dict) else ()
    return [probe for probe in tables if isinstance(probe, dict)]


def _beside(file: object, directory: str) -> object:
    """A relative file name (after its ``-``) made absolute."""
    if not isinstance(file, str) or file in ("", "-"):
        return file
    mark = "-" if file.startswith("-") else ""
    return mark + str(PurePosixPath(directory) / file.removeprefix("-"))


def _state_dir(data: Table, directory: str) -> None:
    everup = data.setdefault("everup", {})
    if isinstance(everup, dict):
        state_dir = everup.get("state_dir", ".everup")
        if isinstance(state_dir, str) and state_dir:
            everup["state_dir"] = str(PurePosixPath(directory) / state_dir)


def _shorthands(service: Table, path: Path, found: Findings) -> None:
    """Those that ``[defaults]`` and services share."""
    _listify(service, "depends_on")
    _listify(service, "environment_file")
    watchdog = service.get("watchdog")
    if isinstance(watchdog, str | int | float) and not isinstance(watchdog, bool):
        service["watchdog"] = {"interval": watchdog}
    restart = service.get("restart")
    if isinstance(restart, dict) and type(restart.get("success_exit")) is int:
        restart["success_exit"] = [restart["success_exit"]]
    stop_signal = service.get("stop_signal")
    if isinstance(stop_signal, str):
        name = signal_name(stop_signal)
        if name is None:
            hint = did_you_mean(stop_signal, [*SIGNALS, *(known[3:] for known in SIGNALS)])
            valid = [known for known in SIGNALS if not known.startswith("SIGRT")]
            message = f"unknown signal{hint}"
            found.add((*path, "stop_signal"), message, value=stop_signal, valid=valid)
            del service["stop_signal"]
        else:
            service["stop_signal"] = name


def _listify(table: Table, key: str) -> None:
    if isinstance(table.get(key), str):
        table[key] = [table[key]]


def _listen(value: object, path: Path, found: Findings) -> object:
    """Every way to write ``listen`` as a list of tables."""
    if isinstance(value, str):
        found.origin[*path, 0] = path
        return [{"name": "main", "address": value}]
    if isinstance(value, dict):
        if isinstance(value.get("address"), str) and set(value) <= set(keys_of(Listener)):
            found.origin[*path, 0] = path
            return [{"name": "main", **value}]
        listeners: list[object] = []
        for name, item in value.items():
            found.origin[*path, len(listeners)] = (*path, name)
            listeners.append(_listener(name, item, (*path, name), found))
        return listeners
    if isinstance(value, list):
        return [
            {"name": f"main{i + 1}" if i else "main", **_address(item)}
            for i, item in enumerate(value)
        ]
    return [{"name": "main", "address": value}]


def _listener(name: str, item: object, path: Path, found: Findings) -> Table:
    if isinstance(item, dict) and "name" in item:
        found.add((*path, "name"), f"the name is that of the key, {name!r}; leave this one out")
    return {**_address(item), "name": name}


def _address(item: object) -> Table:
    return item if isinstance(item, dict) else {"address": item}


def _fitting(defaults: Table, service: Table, name: str, found: Findings) -> Table:
    """The defaults that make sense for this service; the rest cannot be taken back in TOML."""
    fitting = {**defaults}
    probes = fitting.get("probe")
    own_probes = service.get("probe", {})
    if isinstance(probes, dict) and isinstance(own_probes, dict):
        fitting["probe"] = probes = {**probes}
        for kind, probe in list(probes.items()):
            own = own_probes.get(kind)
            if not isinstance(probe, dict):
                continue
            if isinstance(own, dict) and any(means in own for means in PROBE_MEANS):
                # another way to ask replaces the default's; both would contradict each other
                probes[kind] = {k: v for k, v in probe.items() if k not in PROBE_MEANS}
            elif not service.get("listen") and "port" not in service and _asks_own_socket(probe):
                del probes[kind]
                found.warn(
                    ("service", name),
                    f"the default {kind} probe needs a listener or a port; it is not used here",
                )
    if service.get("type", defaults.get("type")) == "oneshot":
        for key in _NOT_FOR_ONESHOT:
            fitting.pop(key, None)
        if isinstance(probes, dict):
            for kind in _PROBES_NOT_FOR_ONESHOT:
                probes.pop(kind, None)
    return fitting


def _asks_own_socket(probe: Table) -> bool:
    return "listen" in (probe.get("tcp"), probe.get("grpc")) or str(
        probe.get("http", "")
    ).startswith("/")


def _merge(own: Table, defaults: Table, path: Path, source: Path, found: Findings) -> None:
    """Adds to ``own`` what it lacks, table by table; ``found`` learns where it came from."""
    for key, value in defaults.items():
        if key not in own:
            own[key] = copy.deepcopy(value)
            found.origin[*path, key] = (*source, key)
        elif isinstance(own[key], dict) and isinstance(value, dict):
            _merge(own[key], value, (*path, key), (*source, key), found)
