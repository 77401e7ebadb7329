"""Whether a process could be started as the config says: asked before one that serves is stopped.

What can be known without starting it: user and group, directory, environment files, and the files
of its commands. Each problem is a sentence that says what to do.
"""

import errno
import os
import stat
from collections.abc import Iterable, Sequence

from everup.adapters import aside, binding, launch
from everup.adapters.launch import Identity, LaunchError
from everup.config import parse_address
from everup.model.instance import Slot
from everup.model.spec import Listener, Service

PATIENCE_S = 5.0
_SHEBANG_BYTES = 256
Check = tuple[Service, Sequence[Slot]]


async def ask(
    checks: Iterable[Check], config_dir: str, listen: Sequence[Listener] = ()
) -> list[str]:
    """The problems of all of them, and of addresses that are to be listened on anew. A file on a
    dead mount is one, after ``PATIENCE_S``."""
    todo = list(checks)
    if not todo and not listen:
        return []
    try:
        return await aside.run(PATIENCE_S, _all, todo, config_dir, listen)
    except Exception as error:  # whoever asks is to hear of it, and not to wait for nothing
        names = ", ".join(service.name for service, _ in todo)
        return [f"{names}: cannot look whether it could start: {error}"]


def _all(todo: Iterable[Check], config_dir: str, listen: Sequence[Listener]) -> list[str]:
    found = [text for service, slots in todo for text in problems(service, slots, config_dir)]
    return found + [text for listener in listen if (text := _address_problem(listener))]


def _address_problem(listener: Listener) -> str:
    """Whether somebody listens there already. (Of a Unix socket that shows when it is opened.)"""
    try:
        address = parse_address(listener.address)
        if address.family != "unix":
            binding.listen(address, listener, True).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def problems(service: Service, slots: Sequence[Slot], config_dir: str) -> list[str]:
    """Why processes for these slots could not be started; nothing if they could, as far as can
    be known."""
    found: dict[str, None] = {}
    name = service.name
    try:
        who = launch.identity(service)
    except LaunchError as error:
        return [f"{name}: {error}; create it, or change user and group"]
    directory = os.path.join(config_dir, service.directory or ".")
    if wrong := _directory_problem(directory, who):
        return [f"{name}: the directory {directory} {wrong}; make it, or change directory"]
    for slot in slots:
        try:
            environment = launch.environment(service, slot, config_dir, {}, who)
        except LaunchError as error:
            return [f"{name}: {error}"]
        for key, words in _commands(service):
            program = launch.argv(service, slot, words[:1])[0]
            path = environment.get("PATH", "")
            if wrong := _program_problem(program, directory, path, who):
                found[f"{name}: cannot run {program} ({key}): {wrong}"] = None
    return list(found)


def _commands(service: Service) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Those without which it does not come to ready."""
    yield "command", service.command
    if service.hooks.pre_start:
        yield "hooks.pre_start", service.hooks.pre_start
    for kind in ("startup", "readiness"):
        probe = getattr(service.probe, kind)
        if probe is not None and probe.exec:
            yield f"probe.{kind}.exec", probe.exec


def _directory_problem(path: str, who: Identity | None) -> str:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return f"cannot be entered: {os.strerror(error.errno or 0)}"
    if not stat.S_ISDIR(mode):
        return "is no directory"
    return "" if _may_enter(path, who) else f"may not be entered by uid {_uid(who)}"


def _program_problem(program: str, directory: str, path: str, who: Identity | None) -> str:
    """Empty: nothing that can be known speaks against it."""
    if "/" in program:
        return _file_problem(os.path.join(directory, program), who)
    verdicts = []
    for place in path.split(":"):
        file = os.path.join(directory, place or ".", program)
        if os.path.exists(file):
            verdicts.append(_file_problem(file, who))
    if not verdicts:
        return f"there is no such command in PATH={path}"
    return "" if "" in verdicts else verdicts[0]


def _file_problem(file: str, who: Identity | None) -> str:
    try:
        mode = os.stat(file).st_mode
    except OSError as error:
        return _absent(file, error)
    if not stat.S_ISREG(mode):
        return f"{file} is no file"
    if not _may(file, who, 1):
        return f"{file} may not be executed by uid {_uid(who)}: chmod +x {file}"
    if who is not None and not _may_enter(os.path.dirname(os.path.realpath(file)), who):
        return f"{file} is in a directory that uid {_uid(who)} may not enter"
    return _interpreter_problem(file)


def _absent(file: str, error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return f"there is no such file {file}"
    return f"{file}: {os.strerror(error.errno or 0)}"


def _interpreter_problem(file: str) -> str:
    try:
        with open(file, "rb", 0) as opened:
            first = opened.read(_SHEBANG_BYTES).split(b"\n", 1)[0]
    except OSError:
        return ""
    words = first[2:].split() if first.startswith(b"#!") else []
    if words and words[0].startswith(b"/") and not os.path.exists(words[0]):
        name = words[0].decode(errors="replace")
        return f"the interpreter in the first line of {file} does not exist: {ascii(name)[1:-1]}"
    return ""


def _uid(who: Identity | None) -> int:
    return os.getuid() if who is None else who.uid


def _may_enter(path: str, who: Identity | None) -> bool:
    """Through every directory from the root."""
    path = os.path.realpath(path)
    while True:
        if not _may(path, who, 1):
            return False
        above = os.path.dirname(path)
        if above == path:
            return True
        path = above


def _may(path: str, who: Identity | None, bit: int) -> bool:
    """Whether the mode allows it; of what has a finer list than that nobody knows, so it may."""
    if who is None:
        return os.access(path, os.X_OK if bit == 1 else os.R_OK)
    try:
        found = os.stat(path)
        if any("acl" in name for name in os.listxattr(path)):
            return True
    except OSError:
        return True
    if who.uid == 0:
        return bool(found.st_mode & 0o111) or stat.S_ISDIR(found.st_mode)
    if found.st_uid == who.uid:
        return bool(found.st_mode >> 6 & bit)
    if found.st_gid in (who.gid, *who.groups):
        return bool(found.st_mode >> 3 & bit)
    return bool(found.st_mode & bit)
