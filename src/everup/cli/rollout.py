"""Commands that replace what runs without a gap: restart and reload."""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import click

from everup.cli.client import Client
from everup.cli.context import FAILED, Failure, Here, done, json_option
from everup.cli.progress import Line, instances, is_hopeless, is_settled, not_well

_POLL_S = 0.1
_LONG_S = 600.0
_timeout = click.option(
    "--timeout",
    type=float,
    default=_LONG_S,
    show_default=True,
    metavar="SECONDS",
    help="Wait so long; 0: do not wait.",
)
Json = dict[str, Any]


@click.command()
@click.argument("targets", nargs=-1, metavar="[SERVICE|INSTANCE]...")
@_timeout
@json_option
@click.pass_obj
def restart(here: Here, targets: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Replace the processes, one batch after the other, and wait until all are ready.

    A service with sockets of its own brings each new process to ready before the old one drains.
    If one does not come to ready the restart stops, and the old process goes on.
    """
    client = Client(here.place)
    before = {slot: i["run"] for slot, i in instances(client.get("/v1/status")).items()}
    answer = client.post("/v1/restart", {"targets": list(targets)})
    what = ", ".join(targets) if targets else "all services"
    began = time.monotonic()
    if timeout > 0:

        def over(status: Json) -> bool:
            mine = {s: i for s, i in instances(status).items() if s in answer["slots"]}
            again = all(i["run"] != before.get(slot) or i["done"] for slot, i in mine.items())
            quiet = not _rolling(status, {i["service"] for i in mine.values()})
            hopeless = any(is_hopeless(i) for i in mine.values())
            return quiet and ((again and all(map(is_settled, mine.values()))) or hopeless)

        events = _follow(client, answer["after"], ("rollout.stopped",), over, timeout, "restart")
        if events:
            raise _stopped(events[0])
        now = {s: i for s, i in instances(client.get("/v1/status")).items() if s in answer["slots"]}
        if not all(map(is_settled, now.values())):
            next_command = f"everup events --service {answer['slots'][0].split('.')[0]}"
            raise not_well(f"not restarted within {timeout:g} s", now, next_command)
    took = f" in {time.monotonic() - began:.1f} s" if timeout > 0 else ""
    done(as_json, answer, f"restarted {what}{took}", "everup status")


def _rolling(status: Json, services: Iterable[str]) -> list[str]:
    """Instances of these services that are still being replaced."""
    mine = [s for s in status["services"] if s["name"] in set(services)]
    left = [slot for s in mine if s["rollout"] for slot in s["rollout"]["left"]]
    return left + [i["slot"] for s in mine for i in s["outgoing"]]


def _stopped(event: Json) -> Failure:
    service = event["subject"]
    kept = event.get("not_replaced") or []
    words = f"; {', '.join(kept)} went on as before" if kept else ""
    return Failure(
        f"the restart of {service} stopped: {event['reason']}{words}",
        f"everup logs {service}; everup events --service {service}",
        FAILED,
    )


def _follow(
    client: Client,
    after: int,
    kinds: tuple[str, ...],
    over: Callable[[Json], bool],
    timeout_s: float,
    what: str,
) -> list[Json]:
    """Until it is over, or one of these events has come, which are returned."""
    until, line = time.monotonic() + timeout_s, Line()
    try:
        while True:
            found = list(client.lines("/v1/events", {"after": after, "kind": list(kinds)}))
            if found:
                return found
            status = client.get("/v1/status")
            if over(status):
                return list(client.lines("/v1/events", {"after": after, "kind": list(kinds)}))
            if time.monotonic() > until:
                return []
            left = _rolling(status, (s["name"] for s in status["services"]))
            line.show(f"{what}: {len(left)} left ({', '.join(dict.fromkeys(left))})")
            time.sleep(_POLL_S)
    finally:
        line.end()


# -- reload


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@_timeout
@json_option
@click.pass_obj
def reload(here: Here, dry_run: bool, timeout: float, as_json: bool) -> None:
    """Apply the changed config: all of it, or nothing.

    Shows first what is added, removed, changed in place and changed with a restart. If anything
    does not come to ready, everything goes back to the config before.
    """
    client = Client(here.place)
    began = time.monotonic()
    answer = client.post("/v1/reload", {"dry_run": dry_run})
    if not as_json:
        for text in plan_lines(answer["plan"]):
            click.echo(text)
    if not answer["changed"]:
        done(as_json, answer | {"result": "unchanged"}, "nothing changes", "everup status")
        return
    if dry_run:
        done(as_json, answer | {"result": "dry run"}, "nothing was changed", "everup reload")
        return
    if timeout == 0:
        done(as_json, answer | {"result": "started"}, "applying it", "everup status")
        return
    ends = ("config.reloaded", "config.rolled_back")
    events = _follow(client, answer["after"], ends, lambda _s: False, timeout, "reload")
    if not events:
        raise Failure(
            f"not applied within {timeout:g} s; everup goes on with it", "everup status", FAILED
        )
    if events[0]["kind"] == "config.rolled_back":
        reason = events[0]["reason"]
        if as_json:
            click.echo(json.dumps(answer | {"result": "rolled back", "reason": reason}))
        raise Failure(
            f"rolled back, the config before is in force: {reason}",
            f"everup logs {reason.split(':')[0]}; everup events",
            FAILED,
        )
    took = time.monotonic() - began
    done(as_json, answer | {"result": "applied"}, f"applied in {took:.1f} s", "everup status")


def plan_lines(plan: Json) -> list[str]:
    """The plan for people."""
    lines = [f"+ {name}: added" for name in plan["added"]]
    lines += [f"- {name}: removed, its processes stop" for name in plan["removed"]]
    words = {
        "in place": "changed in place",
        "rolling": "changed, each new process comes to ready before the old one drains",
        "one by one": "changed, stops and starts one after the other",
        "stop and start": "changed, ALL its processes stop before the first starts again",
    }
    for change in plan["changed"]:
        keys = ", ".join(change["keys"])
        lines.append(f"~ {change['service']}: {words[change['how']]} ({keys})")
    if plan["settings"]:
        lines.append(f"~ settings: {', '.join(plan['settings'])}")
    return lines
