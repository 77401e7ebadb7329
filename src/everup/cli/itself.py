"""everup itself: how it is started, and how it is replaced by another version of itself."""

import json
import sys
import time
from pathlib import Path

import click

import everup
from everup.adapters.place import Place
from everup.cli.client import Client
from everup.cli.context import FAILED, NOT_RUNNING, Failure, Here, done, json_option
from everup.cli.progress import Line, instances

_POLL_S = 0.1
_REEXEC_S = 30.0


@click.command()
@json_option
@click.pass_obj
def reexec(here: Here, as_json: bool) -> None:
    """Replace everup itself by the version that is installed now; the services go on."""
    upgrade(Client(here.place), here.place, as_json)


def keeper_argv() -> list[str]:
    """How the keeper of this installation is started."""
    keeper = Path(everup.__file__).parent / "keeper" / "__main__.py"
    return [sys.executable, "-S", "-E", str(keeper)]


def engine_argv(place: Place) -> list[str]:
    names = ("config", "config_dir", "state_dir", "run_dir")
    place_json = json.dumps({name: getattr(place, name) for name in names})
    return [sys.executable, "-m", "everup.daemon", place_json]


def upgrade(client: Client, place: Place, as_json: bool) -> None:
    """Have the everup that runs become the one that this command belongs to."""
    before = client.get("/v1/status")
    old = instances(before)
    body = {"argv": keeper_argv(), "engine": engine_argv(place), "version": everup.__version__}
    client.post("/v1/reexec", body, timeout_s=_REEXEC_S)
    until, line = time.monotonic() + _REEXEC_S, Line()
    try:
        while True:
            if client.running():
                now = client.get("/v1/status")
                if now["engine"]["pid"] != before["engine"]["pid"]:
                    break
            if time.monotonic() > until:
                raise Failure(
                    f"everup does not answer {_REEXEC_S:g} s after its replacement",
                    f"its words are in {place.state_dir}/everup.log; the services go on",
                    NOT_RUNNING,
                )
            line.show("everup replaces itself")
            time.sleep(_POLL_S)
    finally:
        line.end()
    if now["version"] != everup.__version__:
        raise Failure(
            f"everup {now['version']} still runs: the new one could not be started",
            "everup events --kind 'facility.*'",
            FAILED,
        )
    same = sum(1 for slot, i in instances(now).items() if i["pid"] and i["pid"] == old[slot]["pid"])
    value = {"version": now["version"], "before": before["version"], "untouched": same}
    value |= {"keeper": now["keeper"], "engine": now["engine"]}
    text = f"everup {before['version']} was replaced by {now['version']}; {same} instances go on"
    done(as_json, value, text, "everup status")
