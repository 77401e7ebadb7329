"""``everup up``: check, lock, and become the keeper."""

import contextlib
import json
import os
import resource
import sqlite3
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

import everup
from everup.adapters import accepted, aside, trusted
from everup.adapters.place import Place
from everup.cli import ground
from everup.cli.client import Client, keeper_lives
from everup.cli.config import read_config
from everup.cli.context import USAGE, Failure, Here, done, json_option, print_json
from everup.cli.itself import engine_argv, keeper_argv, refuse_second, upgrade
from everup.cli.progress import Line, is_hopeless, is_settled, not_well, wait
from everup.cli.screen import echo, style

if TYPE_CHECKING:
    from everup.adapters.estate import Gathered
    from everup.adapters.fdstore import FdStore
    from everup.model.journal import Entry

_ANSWER_S = 15.0
_WRITE_S = 10.0
_MOST_FDS = 65536
"""Where they cannot be listed, so many are gone through."""
_INSTANCES = tuple(
    f"EVERUP_{name}"
    for name in ("SERVICE", "REPLICA", "INSTANCE", "RUN", "STATE", "ROLE", "NOTIFY")
)
"""Variables that tell which instance a process belongs to: everup itself to none."""


@click.command()
@click.option("-d", "--detach", is_flag=True, help="Go to the background once all is ready.")
@click.option(
    "--timeout",
    type=float,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="With -d: wait so long for everything to be ready; 0: do not wait.",
)
@json_option
@click.pass_obj
def up(here: Here, detach: bool, timeout: float, as_json: bool) -> None:
    """Start everup and keep the services up. In the foreground, Ctrl-C stops everything in order.

    Services that you stopped earlier stay stopped. Where both processes of an earlier everup were
    killed, its services are taken back as they run. Where an everup of another version runs, it
    is replaced by this one, and the services go on.
    """
    text, refusal = _accepted(here.config)
    if refusal is not None and not os.path.exists(here.own_place.accepted):
        raise refusal
    place = ground.prepare(here)
    if refusal is not None and keeper_lives(place):
        raise refusal
    if keeper_lives(place) and _other_version(place):
        changed = text != _in_force(place)
        upgrade(Client(place), place, as_json, "everup reload" if changed else "everup status")
        return
    if not keeper_lives(place):
        refuse_second(place)
    lock = ground.lock(place)
    meta: dict[str, Any] = {"lock_fd": lock, "state_dir": place.state_dir}
    _same_format(place)
    passed = _take_back(place, text, refusal, meta, quiet=as_json)
    changed = os.path.exists(place.next)
    if not detach:
        _become_keeper(place, meta, passed)
    sys.stdout.flush()
    log = ground.log(place)
    pid = os.fork()
    if pid == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for source, number in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, number)
        _become_keeper(place, meta, passed)
    for descriptor in (lock, log, *passed):
        os.close(descriptor)
    _await(place, pid, timeout, as_json, changed)


def _other_version(place: Place) -> bool:
    """Whether the everup that runs is of another version."""
    try:
        return bool(Client(place).get("/v1/status")["version"] != everup.__version__)
    except Failure:
        return False  # what is wrong with it is told by what follows


def _accepted(path: str) -> tuple[str, Failure | None]:
    """The config's text, and why it is none to start by."""
    from everup import config
    from everup.adapters.launch import user_exists

    try:
        text = read_config(path)
    except Failure as failure:
        return "", failure
    report = config.check(text, path=path, directory=os.path.dirname(path), known_users=user_exists)
    for warning in report.warnings:
        echo(f"{style('warning:', fg='yellow')} {warning}", err=True)
    if report.spec is None:
        for problem in report.problems:
            echo(f"{style('error:', fg='red', bold=True)} {problem}", err=True)
        return text, Failure(f"{path} is not valid; nothing was started", "everup check", USAGE)
    return text, None


def _same_format(place: Place) -> None:
    """Nothing is taken over from a newer everup: its services go on until that is started."""
    if os.path.exists(place.journal):
        from everup.daemon.trial import journal_problem

        problem = journal_problem(place.journal)
        if problem is not None:
            raise Failure(
                f"{problem}; nothing was started, and what runs goes on",
                "start the newer everup instead",
            )


def _take_back(
    place: Place, text: str, refusal: Failure | None, meta: dict[str, Any], *, quiet: bool
) -> list[int]:
    """Find what goes on of an everup that died, and keep the accepted text.

    As long as instances live that were started by an older text, that one stays in force, and the
    new one is left for the engine to apply as a reload. They are looked after by it also where
    the new one is not valid (``refusal``) or the disk is full. Adds to ``meta``; returns the
    descriptors that the keeper is to inherit.
    """
    store, inherited = _from_systemd()
    if store is not None:
        meta["systemd"] = True
    old = _in_force(place)
    if refusal is not None and old is None:
        raise refusal
    gathered = None
    if inherited or os.path.exists(place.journal) or old is not None:
        gathered = _gather(place, text if old is None else old, inherited, meta)
        if refusal is not None and not gathered.children:
            raise refusal
        if gathered.held and not gathered.children and old != text:
            gathered = _gather(place, text, gathered.held, meta)  # addresses may have changed
    if refusal is not None:
        why = refusal.text.partition(";")[0]
        echo(f"{why}: the config that was accepted before stays in force", err=True)
        echo("  mend it, then: everup reload", err=True)
    elif gathered is not None and gathered.children and _is_reloading(place):
        if text != _read(place.next):
            echo("a reload was under way and goes on first; then: everup reload", err=True)
    elif gathered is None or not gathered.children or old in (None, text):
        if old != text:
            _keep(place.accepted, lambda: accepted.write(place, text), old)
        with contextlib.suppress(OSError):
            os.unlink(place.next)
    else:
        _keep(place.next, lambda: trusted.write_file(place.next, text), old)
    if not gathered:
        return []
    if store is not None:
        _restock(store, inherited, gathered)
    from everup.keeper import estate

    memory, passed = estate.write(gathered.estate())
    meta["estate_fd"] = memory
    count = len(gathered.children)
    if count:
        what = "1 instance" if count == 1 else f"{count} instances"
        which = (
            "goes on running; taking it back" if count == 1 else "go on running; taking them back"
        )
        echo(f"{what} of an earlier everup {which}", err=quiet)
    return passed


def _is_reloading(place: Place) -> bool:
    """Whether both were killed in the middle of a reload."""
    from everup.adapters import journal
    from everup.engine.fold import reload_is_open

    if not os.path.exists(place.next):
        return False
    with contextlib.suppress(journal.JournalError, sqlite3.Error, OSError):
        return reload_is_open(journal.latest(Path(place.journal)))
    return False


def _from_systemd() -> "tuple[FdStore | None, dict[str, int]]":
    """Its store, and what it kept for us."""
    if "NOTIFY_SOCKET" not in os.environ and "LISTEN_FDS" not in os.environ:
        return None, {}
    from everup.adapters import fdstore

    store = fdstore.FdStore.of(os.environ)
    return store, fdstore.inherited(os.environ)


def _restock(store: "FdStore", before: Mapping[str, int], gathered: "Gathered") -> None:
    """Have systemd keep what is held now, by the names that it has now."""
    for name in before:
        if gathered.held.get(name) != before[name]:
            store.remove(name)
    for name, descriptor in gathered.held.items():
        if before.get(name) != descriptor:
            store.push(name, descriptor)


def _gather(
    place: Place, text: str, inherited: Mapping[str, int], meta: dict[str, Any]
) -> "Gathered":
    from everup import config
    from everup.adapters import estate, journal
    from everup.keeper import spawn

    spec = None
    with contextlib.suppress(config.ConfigError):
        spec = config.load(text, path=place.config, directory=place.config_dir)
    entries: list[Entry] = []
    with contextlib.suppress(journal.JournalError, sqlite3.Error, OSError):
        entries = journal.latest(Path(place.journal))
    boot = ""
    with contextlib.suppress(OSError):
        boot = journal.boot_id()
    meta["nofile"] = spawn.nofile  # what follows may need more: the services get this back
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (spawn.nofile[1], spawn.nofile[1]))
    return estate.gather(place, spec, entries, boot, inherited)


def _in_force(place: Place) -> str | None:
    """The text that was accepted before."""
    try:
        return accepted.read(place)
    except (OSError, UnicodeDecodeError):
        return None


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _keep(path: str, write: Callable[[], None], old: str | None) -> None:
    """Keep the accepted text: a new engine starts from it, whatever the file says by then. Where
    that cannot be written, the one before stays in force, if there is one."""
    try:
        aside.call(_WRITE_S, write)
    except OSError as error:
        why = f"cannot write {path}: {error.strerror or error}"
        if old is None:
            raise Failure(why) from None
        echo(f"{why}: the config that was accepted before stays in force", err=True)
        echo("  once there is room: everup reload", err=True)


def _become_keeper(place: Place, meta: dict[str, Any], passed: Sequence[int]) -> NoReturn:
    os.ftruncate(meta["lock_fd"], 0)
    os.pwrite(meta["lock_fd"], f"{os.getpid()}\n".encode(), 0)
    for descriptor in passed:
        os.set_inheritable(descriptor, True)
    _keep_only({meta["lock_fd"], *passed})
    for name in _INSTANCES:  # whoever starts us from within an instance
        os.environ.pop(name, None)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [*keeper_argv(), json.dumps(meta), "--", *engine_argv(place)])


def _keep_only(kept: set[int]) -> None:
    """What we were started with and do not know (a lock, the pipe of a build) is not to live as
    long as everup."""
    try:
        there = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:  # no /proc
        there = list(range(min(os.sysconf("SC_OPEN_MAX"), _MOST_FDS)))
    for fd in there:
        if fd > 2 and fd not in kept:
            with contextlib.suppress(OSError):
                os.set_inheritable(fd, False)


def _await(place: Place, pid: int, timeout: float, as_json: bool, changed: bool) -> None:
    client = Client(place)
    began = time.monotonic()
    with Line() as line:
        while not client.running():
            gone, _status = os.waitpid(pid, os.WNOHANG)
            if gone or (not keeper_lives(place) and time.monotonic() - began > 1):
                raise Failure("everup did not start", _last_words(place))
            if time.monotonic() - began > _ANSWER_S:
                raise Failure(f"everup (pid {pid}) runs but does not answer", _last_words(place))
            line.show("everup starts")
            time.sleep(0.02)
    if timeout > 0:
        if changed:
            _await_reload(client, began + timeout, timeout)
        ok, now = wait(client, None, is_settled, is_hopeless, timeout)
        if not ok:
            raise not_well(client, "everup runs, but not everything is ready", now, "everup status")
    status = client.get("/v1/status")
    if as_json:
        print_json({"keeper": status["keeper"], "engine": status["engine"]})
        return
    ready = sum(service["ready"] for service in status["services"])
    took = time.monotonic() - began
    plural = "instance" if ready == 1 else "instances"
    text = f"up in {took:.1f} s: {ready} {plural} ready (keeper pid {status['keeper']['pid']})"
    done(False, None, text, "everup status")


def _await_reload(client: Client, until: float, timeout: float) -> None:
    """What runs was taken back as it was; then the changed config is applied, or not."""
    with Line() as line:
        while os.path.exists(client.place.next):
            if time.monotonic() > until:
                text = f"the changed config is not applied within {timeout:g} s; it goes on"
                raise Failure(text, "look: everup status")
            line.show("applying the changed config")
            time.sleep(0.05)
    kinds = ["config.reloading", "config.reloaded", "config.rolled_back", "facility.missing"]
    found = list(client.lines("/v1/events", {"service": "everup", "kind": kinds, "n": 20}))
    last = next((event for event in reversed(found)), {"kind": ""})
    if last["kind"] == "config.rolled_back":
        text = f"everup runs, but the changed config was rolled back: {last['reason']}"
        raise Failure(text, "mend it, then: everup reload")
    if last["kind"] == "facility.missing" and "config" in last["detail"]:
        raise Failure(f"everup runs, but {last['detail']}", "look: everup status")


def _last_words(place: Place) -> str:
    path = Path(place.state_dir, ground.LOG_NAME)
    lines = path.read_text(errors="replace").splitlines()[-5:] if path.exists() else []
    return f"{path} ends with:" + "".join(f"\n    {line}" for line in lines)
