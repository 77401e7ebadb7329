"""From a service to what the keeper needs to start one process of it."""

import errno
import grp
import io
import os
import pwd
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from everup.adapters import named
from everup.adapters.cgroups import Placement
from everup.config.template import expand
from everup.model.instance import Slot
from everup.model.spec import Service

_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL")
_OURS = ("EVERUP_", "LISTEN_FD", "LISTEN_PID", "NOTIFY_SOCKET", "WATCHDOG_", "FDSTORE")
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NUMBER = re.compile(r"[0-9]{1,9}")
FIRST_LISTEN_FD = 3


class LaunchError(Exception):
    """It cannot be started as the config says; the text is for people."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The user that a process runs as, resolved."""

    uid: int
    gid: int
    groups: list[int]
    environment: dict[str, str]


def identity(service: Service) -> Identity | None:
    """None: as everup itself. Raises ``LaunchError`` for a user or group that does not exist."""
    if service.user is None and service.group is None:
        return None
    environment: dict[str, str] = {}
    uid, gid, name = os.getuid(), os.getgid(), None
    if service.user is not None:
        try:
            entry = account(service.user)
        except KeyError:
            raise LaunchError(f"user {service.user!r} does not exist on this machine") from None
        uid, gid, name = entry.pw_uid, entry.pw_gid, entry.pw_name
        environment = {"HOME": entry.pw_dir, "USER": name, "LOGNAME": name, "SHELL": entry.pw_shell}
    if service.group is not None:
        try:
            gid = group_number(service.group)
        except KeyError:
            raise LaunchError(f"group {service.group!r} does not exist on this machine") from None
    if os.getuid() != 0 and (uid, gid) != (os.getuid(), os.getgid()):
        raise LaunchError(f"running as user {service.user or uid} needs root")
    groups = os.getgrouplist(name, gid) if name is not None else [gid]
    return Identity(uid, gid, groups, environment)


def account(user: str) -> pwd.struct_passwd:
    """By name or by number, as `user` and `group` may be given; KeyError for one that is not."""
    try:
        return pwd.getpwnam(user)
    except KeyError:
        if not _NUMBER.fullmatch(user):
            raise
        return pwd.getpwuid(int(user))


def group_number(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if not _NUMBER.fullmatch(group):
            raise
        return grp.getgrgid(int(group)).gr_gid


def user_exists(name: str) -> bool:
    """Whether this machine has the user."""
    try:
        account(name)
    except KeyError:
        return False
    return True


def environment(
    service: Service, slot: Slot, directory: str, extra: Mapping[str, str], who: Identity | None
) -> dict[str, str]:
    """What a process of the service gets; raises ``LaunchError`` for a file that is missing."""
    out = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    out.setdefault("PATH", _DEFAULT_PATH)
    if who is not None:
        out |= who.environment
    out |= passed(service)
    for name in service.environment_file:
        out |= _read_environment(name, directory)
    port = port_of(service, slot)
    if port is not None:
        out["PORT"] = str(port)
    for name, value in service.environment.items():
        out[name] = expand(value, service=slot.service, replica=slot.replica, port=port)
    out |= {
        "EVERUP_SERVICE": slot.service,
        "EVERUP_REPLICA": str(slot.replica),
        "EVERUP_INSTANCE": str(slot),
    }
    return out | dict(extra)


def _read_environment(name: str, directory: str) -> dict[str, str]:
    from dotenv import dotenv_values  # only where a service has such a file

    optional, path = name.startswith("-"), os.path.join(directory, name.removeprefix("-"))
    try:
        text = named.read_text(path)
    except (FileNotFoundError, NotADirectoryError):
        if optional:
            return {}
        raise LaunchError(
            f"environment file {path} does not exist (-{name} would allow that)"
        ) from None
    except OSError as error:
        raise LaunchError(f"environment file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise LaunchError(f"environment file {path} cannot be read: {error}") from error
    values = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {key: value for key, value in values.items() if value is not None}


def reads(service: Service) -> bool:
    """Whether ``request`` reads a file or asks for a user: that may wait, so not on the loop."""
    return bool(service.environment_file) or service.user is not None or service.group is not None


def passed(service: Service) -> dict[str, str]:
    """What ``pass_environment`` names; never what is said to everup itself, or to one process."""
    whole = {name for name in service.pass_environment if not name.endswith("*")}
    starts = tuple(name[:-1] for name in service.pass_environment if name.endswith("*"))
    return {
        name: value
        for name, value in os.environ.items()
        if (name in whole or (starts and name.startswith(starts))) and not name.startswith(_OURS)
    }


def port_of(service: Service, slot: Slot) -> int | None:
    """The port of a replica that binds its own."""
    return None if service.port is None else service.port + slot.replica - 1


def argv(service: Service, slot: Slot, words: tuple[str, ...]) -> list[str]:
    port = port_of(service, slot)
    return [expand(word, service=slot.service, replica=slot.replica, port=port) for word in words]


def request(
    service: Service,
    slot: Slot,
    words: tuple[str, ...],
    *,
    config_dir: str,
    placement: Placement,
    extra: Mapping[str, str],
    listen: bool,
) -> dict[str, Any]:
    """The keeper's spawn request, without descriptors."""
    who = identity(service)
    directory = os.path.join(config_dir, service.directory or ".")
    out: dict[str, Any] = {
        "argv": argv(service, slot, words),
        "env": environment(service, slot, config_dir, extra, who),
        "cwd": directory,
        "listen_pid": listen,
    }
    if placement.v2 is not None:
        out["cgroup"] = placement.v2
    if placement.v1:
        out["cgroups"] = placement.v1
    limits = {"nofile": service.limits.nofile, "core": service.limits.core}
    if any(value is not None for value in limits.values()):
        out["limits"] = {name: value for name, value in limits.items() if value is not None}
    if service.nice is not None:
        out["nice"] = service.nice
    if service.umask is not None:
        out["umask"] = int(service.umask, 8)
    if who is not None:
        out |= {"uid": who.uid, "gid": who.gid, "groups": who.groups}
    return out


_STAGES = {
    "command": "cannot run {what}",
    "directory": "cannot change to the directory {cwd}",
    "user": "cannot become the user",
    "control group": "cannot enter its control group",
    "limits": "cannot set its limits",
    "nice": "cannot set its priority",
    "fork": "cannot start a process",
}


def explain_failure(asked: Mapping[str, Any], stage: str, number: int, text: str) -> str:
    """What a failed start means, in words."""
    what = _STAGES.get(stage, f"cannot set it up ({stage})")
    what = what.format(what=asked["argv"][0], cwd=asked["cwd"])
    why = os.strerror(number) if number else text
    if stage == "command" and number == errno.ENOENT:
        command = asked["argv"][0]
        if "/" in command:
            why = "there is no such file (or the interpreter in its first line is missing)"
        else:
            why = f"there is no such command in PATH={asked['env'].get('PATH', '')}"
    if stage == "fork" and number == errno.EAGAIN:
        why += " (the limit of processes is reached)"
    return f"{what}: {why}"
