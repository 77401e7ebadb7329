"""Commands that replace what runs without a gap: restart and reload."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import click

from everup.cli.client import Client
from everup.cli.context import (
    FAILED,
    NOT_RUNNING,
    USAGE,
    Failure,
    Here,
    done,
    json_option,
    print_json,
)
from everup.cli.itself import refuse_second
from everup.cli.progress import (
    Instances,
    Line,
    instances,
    is_hopeless,
    is_settled,
    not_well,
    patiently,
)
from everup.cli.screen import echo
from everup.model.display import shown_line

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
_no_overlap = click.option(
    "--no-overlap",
    "one_by_one",
    is_flag=True,
    help="This once, end each process before its successor starts: two do not fit.",
)

Json = dict[str, Any]


@click.command()
@click.argument("targets", nargs=-1, metavar="[SERVICE|INSTANCE]...")
@_no_overlap
@_timeout
@json_option
@click.pass_obj
def restart(
    here: Here, targets: tuple[str, ...], one_by_one: bool, timeout: float, as_json: bool
) -> None:
    """Replace the processes, one batch after the other, and wait until all are ready.

    A service with sockets of its own brings each new process to ready before the old one drains.
    If one does not come to ready the restart of its service stops, and the old process goes on.
    """
    client = Client(here.place)
    before = {slot: i["run"] for slot, i in instances(client.get("/v1/status")).items()}
    answer = client.post("/v1/restart", {"targets": list(targets), "overlap": not one_by_one})
    slots = set(answer["slots"])
    what = ", ".join(targets) if targets else "all services"
    if not slots:
        done(as_json, answer | {"result": "nothing"}, "nothing runs that could be restarted")
        return
    if timeout == 0:
        done(as_json, answer | {"result": "started"}, f"restarting {what}", "everup status")
        return

    def over(status: Json, stopped: list[Json]) -> bool:
        mine = {slot: i for slot, i in instances(status).items() if slot in slots}
        if _rolling(status, {i["service"] for i in mine.values()}):
            return False
        again = all(i["run"] != before.get(slot) or i["done"] for slot, i in mine.items())
        settled = again and all(map(is_settled, mine.values()))
        return bool(stopped) or settled or any(map(is_hopeless, mine.values()))

    began = time.monotonic()
    kinds = ("rollout.stopped",)
    ended, stopped, status = _follow(client, answer["after"], kinds, over, timeout, "restart")
    services = {slot.rpartition(".")[0] for slot in slots}
    stopped = [event for event in stopped if event["subject"] in services]
    if stopped:
        if as_json:
            reasons = {event["subject"]: event["reason"] for event in stopped}
            print_json(answer | {"result": "stopped", "reasons": reasons})
        raise _stopped(client, stopped, instances(status), time.monotonic() - began)
    now = {slot: i for slot, i in instances(status).items() if slot in slots}
    if not ended or not all(map(is_settled, now.values())):
        service = answer["slots"][0].rpartition(".")[0]
        what = f"not restarted within {timeout:g} s; everup goes on with it"
        raise not_well(client, what, now, f"everup events --service {service}")
    took = time.monotonic() - began
    words = f"restarted {what} in {took:.1f} s"
    done(as_json, answer | {"result": "restarted"}, words, "everup status")


def _rolling(status: Json, services: Iterable[str]) -> list[str]:
    """Instances of these services that are still being replaced."""
    names = set(services)
    mine = [s for s in status["services"] if s["name"] in names]
    left = [slot for s in mine if s["rollout"] for slot in s["rollout"]["left"]]
    return list(dict.fromkeys([*left, *(i["slot"] for s in mine for i in s["outgoing"])]))


def _stopped(client: Client, events: list[Json], now: Instances, took_s: float) -> Failure:
    lines = []
    for event in events:
        kept = [
            slot for slot in event.get("not_replaced") or [] if slot in now and now[slot]["want"]
        ]
        words = f"; {', '.join(kept)} went on as before" if kept else ""
        lines.append(f"the restart of {event['subject']} stopped: {event['reason']}{words}")
    service = events[0]["subject"]
    from everup.rooms.locate.read import brief

    if (says := brief(client.place, [service], took_s + 5).get(service)) is not None:
        lines.append(f"because {shown_line(says)}")
    hint = f"everup logs {service}; everup events --service {service}"
    return Failure("\n  ".join(lines), hint, FAILED)


def _follow(
    client: Client,
    after: int,
    kinds: tuple[str, ...],
    over: Callable[[Json, list[Json]], bool],
    timeout_s: float,
    what: str,
) -> tuple[bool, list[Json], Json]:
    """Until it is over: whether it is, the events of these kinds, and the last status."""
    until = time.monotonic() + timeout_s
    with Line() as line:
        while True:
            # The status first: what ended it is among the events then.
            status = patiently(client, lambda: client.get("/v1/status"), until)
            query = {"after": after, "kind": list(kinds)}
            found: list[Json] = patiently(client, partial(_lines, client, query), until)
            if over(status, found):
                return True, found, status
            if time.monotonic() > until:
                return False, found, status
            left = _rolling(status, (s["name"] for s in status["services"]))
            line.show(f"{what}: {len(left)} left ({', '.join(left)})" if left else what)
            time.sleep(_POLL_S)


def _lines(client: Client, query: Json) -> list[Json]:
    return list(client.lines("/v1/events", query))


# -- reload


@click.command()
@click.option("--dry-run", is_flag=True, help="Only show what would change.")
@_no_overlap
@_timeout
@json_option
@click.pass_obj
def reload(here: Here, dry_run: bool, one_by_one: bool, timeout: float, as_json: bool) -> None:
    """Apply the changed config: all of it, or nothing.

    Shows first what is added, removed, changed in place and changed with a restart. If anything
    does not come to ready, everything goes back to the config before.
    """
    client = Client(here.place)
    began = time.monotonic()
    answer = _ask_reload(here, client, {"dry_run": True, "overlap": not one_by_one})
    if not as_json:
        for text in plan_lines(answer["plan"]):
            echo(text)
    if not dry_run:
        answer = _ask_reload(here, client, {"overlap": not one_by_one})
    if not answer["changed"]:
        text = f"nothing changes: this is what {here.config} says already"
        done(as_json, answer | {"result": "unchanged"}, text, "everup status")
        return
    if dry_run:
        done(as_json, answer | {"result": "dry run"}, "nothing was changed", "everup reload")
        return
    if timeout == 0:
        done(as_json, answer | {"result": "started"}, "applying it", "everup status")
        return
    ends = ("config.reloaded", "config.rolled_back")
    _, events, _ = _follow(
        client, answer["after"], ends, lambda _s, found: bool(found), timeout, "reload"
    )
    if not events:
        text = f"not applied within {timeout:g} s; everup goes on with it"
        raise Failure(text, "look: everup status", FAILED)
    if events[0]["kind"] == "config.rolled_back":
        reason = events[0]["reason"]
        if as_json:
            print_json(answer | {"result": "rolled back", "reason": reason})
        from everup.rooms.locate.read import brief

        service = reason.split(":")[0]
        says = brief(client.place, [service], timeout + 5).get(service)
        because = f"\n  because {shown_line(says)}" if says else ""
        raise Failure(
            f"rolled back, the config before is in force: {reason}{because}",
            f"everup why {service}; everup logs {service}",
            FAILED,
        )
    took = time.monotonic() - began
    done(as_json, answer | {"result": "applied"}, f"applied in {took:.1f} s", "everup status")


def _ask_reload(here: Here, client: Client, body: Json) -> Json:
    try:
        answer: Json = client.post("/v1/reload", body)
    except Failure as failure:
        if failure.status == NOT_RUNNING:
            refuse_second(here.place)
        if failure.text.startswith((f"{here.config} is not valid", f"cannot read {here.config}")):
            failure.status = USAGE
        raise
    return answer


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
