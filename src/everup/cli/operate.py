"""Commands that change something."""

import time
from typing import Any

import click

from everup.cli.client import Client, keeper_lives
from everup.cli.context import FAILED, Failure, Here, done, json_option
from everup.cli.progress import is_hopeless, is_settled, is_stopped, not_well, wait

_targets = click.argument("targets", nargs=-1, metavar="[SERVICE|INSTANCE]...")
_wait_options = click.option(
    "--timeout",
    type=float,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long; 0: do not wait.",
)


def _names(targets: tuple[str, ...]) -> str:
    return ", ".join(targets) if targets else "all services"


def _then(targets: tuple[str, ...]) -> str:
    return f"everup events --service {targets[0].split('.')[0]}" if targets else "everup events"


@click.command()
@_targets
@_wait_options
@json_option
@click.pass_obj
def start(here: Here, targets: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Start what was stopped, and wait until it is ready."""
    client = Client(here.place)
    answer = client.post("/v1/start", {"targets": list(targets)})
    _await_up(client, answer, targets, timeout, as_json, "started")


def _await_up(
    client: Client,
    answer: dict[str, Any],
    targets: tuple[str, ...],
    timeout: float,
    as_json: bool,
    word: str,
) -> None:
    if timeout > 0:
        began = time.monotonic()
        ok, now = wait(client, answer["slots"], is_settled, is_hopeless, timeout)
        if not ok:
            raise not_well(client, f"not {word} within {timeout:g} s", now, _then(targets))
        took = f" in {time.monotonic() - began:.1f} s"
    else:
        took = ""
    done(as_json, answer, f"{word} {_names(targets)}{took}", "everup status")


@click.command()
@_targets
@_wait_options
@json_option
@click.pass_obj
def stop(here: Here, targets: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Stop; it stays stopped, over restarts of everup and of the machine, until you start it.

    Without names: all services, while everup itself goes on (``everup down`` ends that too).
    """
    client = Client(here.place)
    answer = client.post("/v1/stop", {"targets": list(targets)})
    if timeout > 0:
        ok, now = wait(client, answer["slots"], is_stopped, lambda _i: False, timeout)
        if not ok:
            left = [slot for slot, i in now.items() if not is_stopped(i)]
            raise Failure(
                f"still stopping after {timeout:g} s: {', '.join(left)}",
                "everup goes on with it; SIGKILL follows after the service's stop_timeout",
            )
    done(as_json, answer, f"stopped {_names(targets)}", f"everup start {' '.join(targets)}".strip())


@click.command()
@click.argument("service")
@click.argument("replicas", type=int)
@_wait_options
@json_option
@click.pass_obj
def scale(here: Here, service: str, replicas: int, timeout: float, as_json: bool) -> None:
    """Change the number of replicas of SERVICE; it holds until you change it again."""
    client = Client(here.place)
    answer = client.post("/v1/scale", {"service": service, "replicas": replicas})
    if timeout > 0:
        ok, now = wait(client, answer["slots"], is_settled, is_hopeless, timeout)
        if not ok:
            raise not_well(client, f"not all ready within {timeout:g} s", now, _then((service,)))
    done(as_json, answer, f"scaled {service} to {replicas}", f"everup status {service}")


@click.command(name="signal")
@click.argument("name", metavar="SIGNAL")
@_targets
@json_option
@click.pass_obj
def signal(here: Here, name: str, targets: tuple[str, ...], as_json: bool) -> None:
    """Send SIGNAL (HUP, USR1, ...) to the main processes."""
    if not targets:
        raise click.UsageError("name the services or instances that get the signal")
    answer = Client(here.place).post("/v1/signal", {"signal": name, "targets": list(targets)})
    done(as_json, answer, f"sent {name.upper()} to {', '.join(answer['slots'])}", _then(targets))


@click.command()
@_wait_options
@json_option
@click.pass_obj
def down(here: Here, timeout: float, as_json: bool) -> None:
    """Stop all services in order, then everup itself."""
    client = Client(here.place)
    answer = client.post("/v1/down")
    if timeout > 0:
        until = time.monotonic() + timeout
        while keeper_lives(here.place):
            if time.monotonic() > until:
                pid = answer["keeper"]["pid"]
                raise Failure(
                    f"still stopping after {timeout:g} s",
                    f"everup goes on with it; look: everup status; the keeper is pid {pid}",
                    FAILED,
                )
            time.sleep(0.02)
    done(as_json, answer, "all services and everup are down", "everup up -d")
