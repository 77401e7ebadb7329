"""``everup up``: check, lock, and become the keeper."""

import fcntl
import json
import os
import sys
import time
from pathlib import Path
from typing import NoReturn

import click

import everup
from everup.adapters.place import Place
from everup.cli.client import Client, keeper_lives
from everup.cli.config import read_config
from everup.cli.context import USAGE, Failure, Here, done, json_option, print_json
from everup.cli.progress import is_hopeless, is_settled, not_well, wait

_ANSWER_S = 15.0
_LOG_NAME = "everup.log"
_LOG_BYTES = 5 << 20


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

    Services that you stopped earlier stay stopped.
    """
    text = _accepted(here.config)
    place = here.place
    _prepare(place)
    lock = _lock(place)
    _store(place, text)
    if not detach:
        _become_keeper(place, lock)
    sys.stdout.flush()
    _rotate(os.path.join(place.state_dir, _LOG_NAME))
    log = open(os.path.join(place.state_dir, _LOG_NAME), "ab", 0)  # noqa: SIM115
    pid = os.fork()
    if pid == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        for source, number in ((null, 0), (log.fileno(), 1), (log.fileno(), 2)):
            os.dup2(source, number)
        _become_keeper(place, lock)
    os.close(lock)
    _await(here, place, pid, timeout, as_json)


def _rotate(path: str) -> None:
    """everup's own few lines a day: one older file is enough."""
    if os.path.exists(path) and os.path.getsize(path) > _LOG_BYTES:
        os.replace(path, path + ".1")


def _accepted(path: str) -> str:
    from everup import config
    from everup.adapters.launch import user_exists

    text = read_config(path)
    report = config.check(text, path=path, directory=os.path.dirname(path), known_users=user_exists)
    for warning in report.warnings:
        click.echo(f"{click.style('warning:', fg='yellow')} {warning}", err=True)
    if report.spec is None:
        for problem in report.problems:
            click.echo(f"{click.style('error:', fg='red', bold=True)} {problem}", err=True)
        raise Failure(f"{path} is not valid; nothing was started", "everup check", USAGE)
    return text


def _prepare(place: Place) -> None:
    for directory, mode in ((place.state_dir, 0o755), (place.run_dir, 0o755), (place.logs, 0o750)):
        try:
            os.makedirs(directory, mode, exist_ok=True)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
        except OSError as error:
            raise Failure(
                f"cannot write to the state directory {directory}: {error.strerror}",
                "mend its permissions, or set state_dir in the table [everup]",
            ) from None
    if os.stat(place.run_dir).st_uid != os.getuid():
        raise Failure(f"{place.run_dir} belongs to another user", "remove it, or run as that user")


def _lock(place: Place) -> int:
    lock = os.open(os.path.join(place.state_dir, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(lock, 32).decode(errors="replace").strip() or "unknown"
        raise Failure(
            f"everup is already running for {place.state_dir} (keeper pid {pid})",
            "look: everup status; stop it: everup down",
        ) from None
    os.set_inheritable(lock, True)  # it goes on with the keeper, which this process becomes
    return lock


def _store(place: Place, text: str) -> None:
    """Keep the accepted text: a new engine starts from it, whatever the file says by then."""
    fresh = place.accepted + ".new"
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(fresh, place.accepted)
    except OSError as error:
        raise Failure(f"cannot write {place.accepted}: {error.strerror}") from None


def _become_keeper(place: Place, lock: int) -> NoReturn:
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    root = Path(everup.__file__).parent
    place_json = json.dumps(
        {name: getattr(place, name) for name in ("config", "config_dir", "state_dir", "run_dir")}
    )
    engine = [sys.executable, "-m", "everup.daemon", place_json]
    keeper = [sys.executable, "-S", "-E", str(root / "keeper" / "__main__.py")]
    meta = json.dumps({"lock_fd": lock, "state_dir": place.state_dir})
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [*keeper, meta, "--", *engine])


def _await(here: Here, place: Place, pid: int, timeout: float, as_json: bool) -> None:
    client = Client(place)
    began = time.monotonic()
    while not client.running():
        gone, _status = os.waitpid(pid, os.WNOHANG)
        if gone or (not keeper_lives(place) and time.monotonic() - began > 1):
            raise Failure("everup did not start", _last_words(place))
        if time.monotonic() - began > _ANSWER_S:
            raise Failure(f"everup (pid {pid}) runs but does not answer", _last_words(place))
        time.sleep(0.02)
    if timeout > 0:
        ok, now = wait(client, None, is_settled, is_hopeless, timeout)
        if not ok:
            raise not_well("everup runs, but not everything is ready", now, "everup status")
    status = client.get("/v1/status")
    if as_json:
        print_json({"keeper": status["keeper"], "engine": status["engine"]})
        return
    ready = sum(service["ready"] for service in status["services"])
    took = time.monotonic() - began
    text = f"up in {took:.1f} s: {ready} instances ready (keeper pid {status['keeper']['pid']})"
    done(False, None, text, "everup status")


def _last_words(place: Place) -> str:
    path = Path(place.state_dir, _LOG_NAME)
    lines = path.read_text(errors="replace").splitlines()[-5:] if path.exists() else []
    return f"{path} ends with:" + "".join(f"\n    {line}" for line in lines)
