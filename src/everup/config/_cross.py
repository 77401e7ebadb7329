"""Checks that look at more than one key: names, cycles, users, templates, kinds of service.

They run on whatever the model accepted, and leave alone every key that has a problem already.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from everup.config import template
from everup.config._commands import check_command
from everup.config._problem import Findings, Path, did_you_mean
from everup.config._recover import check_recovery
from everup.model.server import known_server
from everup.model.spec import Listener, Service, Spec

_MODE = re.compile(r"0?[0-7]{3}")
_LISTENER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_VARIABLE = re.compile(r"[^=\0]+")
_NAMES_SHOWN = 20
_HOOKS = ("pre_start", "post_start", "pre_stop", "post_stop")


def check_services(
    spec: Spec,
    names: Iterable[str],
    found: Findings,
    known_users: Callable[[str], bool] | None,
) -> None:
    """``names``: every service of the file, also those that could not be read."""
    names = list(names)
    for name, service in spec.service.items():
        path: Path = ("service", name)
        _dependencies(service, path, names, spec, found)
        _kind_of_service(service, path, found)
        _templates(service, path, found)
        _process(service, path, found, known_users)
        if found.sound((*path, "command")):
            check_command(service, path, found)
        _rollout(service, path, found)
        _server(service, path, found)
        for i, listener in enumerate(service.listen):
            _listener(listener, (*path, "listen", i), found, known_users)
    _cycles(spec, found)
    _groups(spec, names, found)
    check_recovery(spec, names, found)
    if not names:
        found.warn((), "no service is configured")


def _dependencies(
    service: Service, path: Path, names: list[str], spec: Spec, found: Findings
) -> None:
    for i, other in enumerate(service.depends_on):
        place = (*path, "depends_on", i)
        if other not in names:
            hint = did_you_mean(other, names)
            valid = [name for name in names if name != service.name][:_NAMES_SHOWN]
            found.add(place, f"there is no such service{hint}", value=other, valid=valid)
        elif other in service.depends_on[:i]:
            found.warn(place, "named twice", value=other)
        elif other in spec.service and spec.service[other].replicas == 0:
            found.warn(place, "has 0 replicas, so this service waits for it", value=other)


def _cycles(spec: Spec, found: Findings) -> None:
    """Each cycle of dependencies once, named whole."""
    done: set[str] = set()
    for start in spec.service:
        trail: list[str] = [start]
        waiting: list[Iterator[str]] = [iter(_needs(spec, start))]
        while waiting:
            if trail[-1] in done:
                trail.pop()
                waiting.pop()
                continue
            step = next(waiting[-1], None)
            if step is None:
                done.add(trail.pop())
                waiting.pop()
            elif step in trail:
                cycle = [*trail[trail.index(step) :], step]
                found.add(
                    ("service", cycle[0], "depends_on"),
                    f"services wait for each other: {' -> '.join(cycle)}",
                )
            elif step not in done:
                trail.append(step)
                waiting.append(iter(_needs(spec, step)))


def _needs(spec: Spec, name: str) -> tuple[str, ...]:
    return tuple(other for other in spec.service[name].depends_on if other in spec.service)


def _groups(spec: Spec, names: list[str], found: Findings) -> None:
    owner: dict[str, str] = {}
    for group, members in spec.group.items():
        for i, name in enumerate(members.services):
            place: Path = ("group", group, "services", i)
            if name not in names:
                hint = did_you_mean(name, names)
                valid = names[:_NAMES_SHOWN]
                found.add(place, f"there is no such service{hint}", value=name, valid=valid)
            elif owner.get(name) == group:
                found.add(place, "named twice", value=name)
            elif name in owner:
                message = f"is in group {owner[name]!r} already; a service is in one group at most"
                found.add(place, message, value=name)
            owner.setdefault(name, group)


def _kind_of_service(service: Service, path: Path, found: Findings) -> None:
    slots_ok = found.sound((*path, "replicas"), (*path, "standby"))
    if service.type == "oneshot" and found.sound((*path, "type")):
        _oneshot(service, path, found)
        return
    if not slots_ok:
        return
    sockets_known = found.sound((*path, "listen"), (*path, "port"))
    if service.standby and not service.listen and service.port is None and sockets_known:
        found.warn(
            (*path, "standby"),
            "without listen or port there is no balance to keep a standby out of",
            value=service.standby,
        )
    for i, listener in enumerate(service.listen):
        if listener.address.startswith("unix:") and service.slots > 1:
            found.warn(
                (*path, "listen", i, "address"),
                f"the {service.slots} replicas share this Unix socket, so a probe through it "
                "reaches any of them and cannot tell which one failed",
                value=listener.address,
            )


def _oneshot(service: Service, path: Path, found: Findings) -> None:
    why = "a oneshot runs once and is done; it cannot have"
    if service.listen:
        found.add((*path, "listen"), f"{why} listeners")
    if service.replicas > 1:
        found.add((*path, "replicas"), f"{why} replicas", value=service.replicas)
    if service.standby:
        found.add((*path, "standby"), f"{why} standbys", value=service.standby)
    if service.probe.liveness:
        found.add((*path, "probe", "liveness"), f"{why} a liveness probe")
    if service.probe.readiness:
        found.warn((*path, "probe", "readiness"), "has no effect on a oneshot")
    if service.watchdog:
        found.warn((*path, "watchdog"), "is of little use for a oneshot: it ends by itself")
    if service.restart.policy == "always":
        found.warn(
            (*path, "restart", "policy"),
            'makes the oneshot run again and again; "on-failure" runs it until it succeeds',
            value="always",
        )


def _rollout(service: Service, path: Path, found: Findings) -> None:
    if service.overlap and service.type == "oneshot":
        found.warn((*path, "overlap"), "has no effect on a oneshot: it ends before it runs again")
    elif service.overlap and service.port is not None:
        found.warn(
            (*path, "overlap"),
            "two processes cannot bind one port: with port, the new one comes to ready only if "
            "the service sets SO_REUSEPORT; listen does without",
        )


def _server(service: Service, path: Path, found: Findings) -> None:
    """What a server that everybody knows cannot do."""
    server = known_server(service.command)
    if server is None:
        return
    if service.notify and not server.says_ready:
        found.warn(
            (*path, "notify"),
            f"{server.name} does not send READY=1, so that it would be killed at start_timeout; "
            "leave it out: a probe can say when it is ready",
            value=True,
        )
    if service.listen and not server.takes_socket:
        found.warn(
            (*path, "listen"),
            f"{server.name} does not take a socket that is passed to it: nobody would answer "
            "there; give it a port, like port = 8000",
        )


def _listener(
    listener: Listener, path: Path, found: Findings, known_users: Callable[[str], bool] | None
) -> None:
    if not _LISTENER_NAME.fullmatch(listener.name):
        found.add(
            (*path, "name"),
            "a listener's name has 1 to 255 letters, digits, dots, - and _",
        )
    if not _MODE.fullmatch(listener.mode):
        message = 'expected three octal digits, like "0660"'
        found.add((*path, "mode"), message, value=listener.mode)
    for key, owner in (("user", listener.user), ("group", listener.group)):
        if owner == "":
            found.add((*path, key), "is empty; leave it out for the default", value="")
        elif owner is not None and not listener.address.startswith("unix:"):
            found.add((*path, key), "only a Unix socket has an owner; a port has none", value=owner)
    user = listener.user
    if user and known_users is not None and not user.isdigit() and not known_users(user):
        found.add((*path, "user"), "this machine has no such user", value=user)


def _templates(service: Service, path: Path, found: Findings) -> None:
    texts: list[tuple[Path, str]] = [
        ((*path, "command", i), text) for i, text in enumerate(service.command)
    ]
    texts += [((*path, "environment", key), text) for key, text in service.environment.items()]
    for kind in ("startup", "readiness", "liveness"):
        probe = getattr(service.probe, kind)
        if probe is not None:
            place = (*path, "probe", kind)
            asked = ((key, getattr(probe, key)) for key in ("http", "tcp", "grpc"))
            texts += [((*place, key), text) for key, text in asked if text is not None]
            texts += [((*place, "exec", i), text) for i, text in enumerate(probe.exec or ())]
    for hook in _HOOKS:
        argv = getattr(service.hooks, hook) or ()
        texts += [((*path, "hooks", hook, i), text) for i, text in enumerate(argv)]
    for place, text in texts:
        if not found.sound(place):
            continue
        try:
            used = template.names(text)
        except template.TemplateError as error:
            found.add(place, str(error), value=text)
            continue
        if "port" in used and service.port is None and found.sound((*path, "port")):
            found.add(place, "{port} needs the key port, like port = 5000", value=text)


def _process(
    service: Service,
    path: Path,
    found: Findings,
    known_users: Callable[[str], bool] | None,
) -> None:
    if service.command[0] == "" and found.sound((*path, "command")):
        found.add((*path, "command", 0), "the program's name is empty", value="")
    for hook in _HOOKS:
        argv = getattr(service.hooks, hook)
        if argv is not None and argv[0] == "":
            found.add((*path, "hooks", hook, 0), "the program's name is empty", value="")
    for name in service.environment:
        if not _VARIABLE.fullmatch(name):
            message = "a variable's name is not empty and has no = in it"
            found.add((*path, "environment", name), message)
    for i, file in enumerate(service.environment_file):
        if file in ("", "-"):
            found.add((*path, "environment_file", i), "expected a file name", value=file)
    for key in ("directory", "user", "group"):
        if getattr(service, key) == "":
            found.add((*path, key), "is empty; leave it out for the default", value="")
    user = service.user
    if user and known_users is not None and not user.isdigit() and not known_users(user):
        found.add((*path, "user"), "this machine has no such user", value=user)
    if service.restart.max_delay < service.restart.delay:
        found.warn(
            (*path, "restart"), "max_delay is less than delay; the backoff stays at max_delay"
        )
    if service.stop_signal == "SIGSTOP":
        found.warn((*path, "stop_signal"), "stops the process but does not end it", value="SIGSTOP")
