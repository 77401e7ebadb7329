"""everup itself: how it is started, and how it is replaced by another version of itself."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

import everup
from everup.adapters import python
from everup.adapters.place import Place
from everup.cli.client import Client
from everup.cli.context import FAILED, NOT_RUNNING, Failure, Here, done, json_option
from everup.cli.progress import Line, instances, patiently

_KEEPER = "/everup/keeper/__main__.py"
_POLL_S = 0.1
_TRY_S = 60.0
_REEXEC_S = 30.0


@click.command()
@json_option
@click.pass_obj
def reexec(here: Here, as_json: bool) -> None:
    """Replace everup itself by the version that is installed now; the services go on."""
    upgrade(Client(here.place), here.place, as_json)


def keeper_argv() -> list[str]:
    """How the keeper of this installation is started."""
    return [sys.executable, "-I", "-S", str(Path(everup.__file__).parents[1]) + _KEEPER]


def engine_argv(place: Place) -> list[str]:
    names = ("config", "config_dir", "state_dir", "run_dir")
    place_json = json.dumps({name: getattr(place, name) for name in names})
    return python.command("-m", "everup.daemon", place_json)


def refuse_second(place: Place) -> None:
    """``Failure`` if an everup of this config runs with another state directory, or with one that
    was removed under it: a second one would run every service twice."""
    for pid, told in _keepers():
        config, state_dir = told.get("config"), told.get("state_dir")
        if config == place.config and state_dir == place.state_dir:
            raise Failure(
                f"everup runs already for {config}, but its state directory {state_dir} was "
                f"removed or replaced (keeper pid {pid})",
                f"end it and its services: kill {pid}; then: everup up -d",
            )
        if config == place.config and state_dir != place.state_dir:
            raise Failure(
                f"everup runs already for {config}, with the state directory {state_dir} "
                f"(keeper pid {pid})",
                "put state_dir back; to change it: everup down before, everup up -d after",
            )


def _keepers() -> Iterator[tuple[int, dict[str, str]]]:
    """Every keeper on this machine, with the place that its engines get. Anybody can give a process
    such a command line; it counts if its user could start an everup of that config anyway."""
    from everup.adapters import proof

    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            words = Path(f"/proc/{name}/cmdline").read_bytes().decode().split("\0")[:-1]
            if "everup.daemon" in words and any(w.endswith(_KEEPER) for w in words[:5]):
                told = json.loads(words[-1])
                uid = os.stat(f"/proc/{name}").st_uid
                if proof.is_everups(uid) or uid == os.stat(told["config"]).st_uid:
                    yield int(name), told


def upgrade(
    client: Client, place: Place, as_json: bool, next_command: str = "everup status"
) -> None:
    """Have the everup that runs become the one that this command belongs to."""
    before = client.get("/v1/status")
    old = instances(before)
    body = {"argv": keeper_argv(), "engine": engine_argv(place), "version": everup.__version__}
    with Line() as line:
        line.show(f"trying everup {everup.__version__}", at_once=True)
        client.post("/v1/reexec", body, timeout_s=_TRY_S)
        now = _next_engine(client, before["engine"]["pid"], line)
    if now["version"] != everup.__version__:
        raise Failure(
            f"everup {now['version']} still runs: the new one could not be started",
            f"look: everup events; its words are in {place.state_dir}/everup.log",
            FAILED,
        )
    old_pids = {i["pid"] for i in old.values()} - {None}
    same = sum(i["pid"] in old_pids for i in instances(now).values())
    value = {"version": now["version"], "before": before["version"], "untouched": same}
    value |= {"keeper": now["keeper"], "engine": now["engine"]}
    was, is_now = before["version"], now["version"]
    text = f"everup {was} was replaced by " + (is_now if is_now != was else "itself")
    text += f"; {same} {'instance goes' if same == 1 else 'instances go'} on as before"
    done(as_json, value, text, next_command)


def _next_engine(client: Client, before: int, line: Line) -> dict[str, Any]:
    """The status, once another engine gives it."""
    until = time.monotonic() + _REEXEC_S
    while time.monotonic() < until:
        with contextlib.suppress(Failure):  # between the two there is none
            now: dict[str, Any] = patiently(client, lambda: client.get("/v1/status"), until)
            if now["engine"]["pid"] != before:
                return now
        line.show("everup replaces itself")
        time.sleep(_POLL_S)
    raise Failure(
        f"everup does not answer {_REEXEC_S:g} s after its replacement",
        f"its words are in {client.place.state_dir}/everup.log; the services go on",
        NOT_RUNNING,
    )
