"""``everup status``."""

from typing import Any

import click

from everup.cli.client import Client
from everup.cli.context import NOT_WELL, Failure, Here, json_option, leave, named, print_json
from everup.cli.progress import is_up
from everup.cli.screen import echo, style
from everup.model.display import shown_line

_COLOURS = {
    "ready": "green",
    "running": "yellow",
    "starting": "yellow",
    "backoff": "yellow",
    "draining": "yellow",
    "stopping": "yellow",
    "parked": "red",
    "failed": "red",
}
_FAILING = ("parked", "failed", "backoff")
_COLUMNS = ("INSTANCE", "STATE", "FOR", "PID", "RESTARTS", "CPU", "MEMORY", "PROBES", "LAST EXIT")
_EXIT_WIDTH = 40
_HOW = {
    "restart": "restart",
    "reload": "restart for the changed config",
    "rollback": "return to the config before",
    "verdict": "replacement of a process that failed",
}


@click.command()
@click.argument("services", nargs=-1, metavar="[SERVICE|INSTANCE]...")
@click.option("-a", "--addresses", is_flag=True, help="Show where services listen.")
@json_option
@click.pass_obj
def status(here: Here, services: tuple[str, ...], addresses: bool, as_json: bool) -> None:
    """Show each instance. Exit status 4: not everything is as it should be."""
    data = Client(here.place).get("/v1/status")
    if services:
        data["services"] = _chosen(data["services"], services)
    if as_json:
        print_json(data)
    else:
        _print(data, addresses)
        _print_causes(here, data)
    instances = [i for service in data["services"] for i in service["instances"]]
    well = all(is_up(i) for i in instances) and not data["journal_degraded"]
    leave(0 if well else NOT_WELL)


def _chosen(all_services: list[dict[str, Any]], names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Services by name; of those that only instances are named of, only these instances."""
    known = [s["name"] for s in all_services]
    slots = [i["slot"] for s in all_services for i in s["instances"]]
    for name in names:
        if name not in known and name not in slots:
            import difflib

            close = difflib.get_close_matches(name, [*known, *slots], 1)
            hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
            raise Failure(f"there is no service or instance {name!r}", hint)
    chosen = []
    for service in all_services:
        instances = [i for i in service["instances"] if i["slot"] in names]
        if service["name"] in names:
            chosen.append(service)
        elif instances:
            outgoing = [i for i in service["outgoing"] if i["slot"] in names]
            chosen.append(service | {"instances": instances, "outgoing": outgoing})
    return chosen


def _print(data: dict[str, Any], addresses: bool) -> None:
    rows = [_row(i) for service in data["services"] for i in service["instances"]]
    widths = [max(len(str(row[n])) for row in [_COLUMNS, *rows]) for n in range(len(_COLUMNS))]
    right = (3, 4, 5, 6)
    for row in [_COLUMNS, *rows]:
        cells = [
            cell.rjust(widths[n]) if n in right else cell.ljust(widths[n])
            for n, cell in enumerate(row)
        ]
        if row is not _COLUMNS:
            cells[1] = style(cells[1], fg=_COLOURS.get(row[1].split()[0]))
        echo("  ".join(cells).rstrip())
    _print_notes(data)
    if addresses:
        for service in data["services"]:
            if service["addresses"]:
                echo(f"{service['name']} listens on {', '.join(service['addresses'])}")


def _row(i: dict[str, Any]) -> tuple[str, ...]:
    state = i["state"]
    if i.get("standby"):
        state += " (standby)"
    elif i["suspected"]:
        state += " (suspected)"
    elif i["done"]:
        state += " (done)"
    elif i.get("elsewhere"):
        state += " (elsewhere)"
    usage = i["usage"]
    cpu, memory = ("", "")
    if usage is not None and i["pid"]:
        cpu, memory = f"{usage['cpu_percent']:.1f}%", _size(usage["rss_bytes"])
    probes = " ".join(_probe(kind, p) for kind, p in i["probes"].items())
    pid = str(i["pid"] or "")
    return (
        i["slot"], state, _ago(i["since_s"]), pid, str(i["restarts"]), cpu, memory, probes or "-",
        _short(shown_line(i["last_exit"] or "-")),
    )  # fmt: skip


def _short(text: str) -> str:
    return text if len(text) <= _EXIT_WIDTH else text[: _EXIT_WIDTH - 3] + "..."


def _probe(kind: str, probe: dict[str, Any]) -> str:
    if probe["ok"]:
        return f"{kind} ok {probe['latency_s'] * 1000:.0f}ms"
    return f"{kind} FAILED x{probe['failures']}"


def _print_causes(here: Here, data: dict[str, Any]) -> None:
    """Why what failed has failed, if that is sure enough."""
    instances = [i for service in data["services"] for i in service["instances"]]
    failing = [i["slot"] for i in instances if i["state"] in _FAILING and not is_up(i)]
    if failing:
        from everup.rooms.locate.read import brief

        for slot, says in brief(here.place, failing).items():
            echo(shown_line(f"{slot}: because {says}  ({named(f'everup why {slot}')})"))


def _print_notes(data: dict[str, Any]) -> None:
    """Below the table: why what is not well is not."""
    _print_reload(data)
    for service in data["services"]:
        _print_rollout(service)
        name, now, says = service["name"], service["replicas"], service["configured_replicas"]
        if now != says:
            back = named(f"everup scale {name} {says}")
            echo(f"{name}: scaled to {now}, the config says {says} ({back})")
        for i in service["instances"]:
            if not is_up(i) or i["suspected"]:
                retry = f", again in {i['retry_in_s']:.0f} s" if i.get("retry_in_s") else ""
                why = i["reason"] or _failing(i) or i.get("doing") or i["last_exit"]
                why = why or "no reason known"
                echo(shown_line(f"{i['slot']}: {why}{retry}"))
            elif not i["want"] and not i["done"]:
                start = named(f"everup start {i['slot']}")
                echo(shown_line(f"{i['slot']}: {i['reason'] or 'stopped'} ({start})"))
            for dependency, told in i["dependencies"].items():
                if told["state"] not in ("", None, "closed"):
                    echo(f"{i['slot']}: its breaker of {dependency} is {told['state']}")
            if i["status_text"]:
                echo(shown_line(f"{i['slot']} says: {i['status_text']}"))
    if data["journal_degraded"]:
        echo(
            style("the journal cannot be written", fg="red")
            + f": {data['journal_degraded_reason']}; services go on, events wait in memory: "
            + f"mend {data['state_dir']}"
        )


def _print_reload(data: dict[str, Any]) -> None:
    reloading = data["reloading"]
    if reloading is None:
        return
    if reloading["rolling_back"]:
        words = shown_line(f"is being rolled back: {reloading['rolling_back']}")
    else:
        left = ", ".join(reloading["left"])
        words = f"for {_ago(reloading['since_s'])}" + (f", left: {left}" if left else "")
    echo(f"reload under way {words} ({named('everup events')})")


def _print_rollout(service: dict[str, Any]) -> None:
    """What is being replaced, and by what."""
    rollout = service["rollout"]
    if rollout is not None:
        left = f", left: {', '.join(rollout['left'])}" if rollout["left"] else ""
        echo(f"{service['name']}: {_HOW[rollout['how']]} under way{left}")
    new = {i["slot"]: i for i in service["instances"]}
    for old in service["outgoing"]:
        slot, state = old["slot"], old["state"]
        if slot not in new:
            continue
        was = f"run {old['run']} (pid {old['pid']})"
        now = f"run {new[slot]['run']} (pid {new[slot]['pid'] or 'none yet'})"
        if state in ("draining", "stopping"):
            for_s = _ago(old["since_s"])
            echo(f"{slot}: {now} is in its place, {was} is {state} for {for_s}")
        else:
            echo(f"{slot}: {now} replaces {was}, which serves until it is ready")


def _failing(i: dict[str, Any]) -> str:
    """The first probe that fails."""
    failed = [f"{kind} probe: {p['detail']}" for kind, p in i["probes"].items() if not p["ok"]]
    return failed[0] if failed else ""


def _ago(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f}s"
    minutes, hours, days = seconds / 60, seconds / 3600, seconds / 86400
    if minutes < 60:
        return f"{minutes:.0f}m"
    return f"{hours:.0f}h" if hours < 48 else f"{days:.0f}d"


def _size(size_bytes: float) -> str:
    for unit in ("B", "K", "M", "G"):
        if size_bytes < 1024:
            return f"{size_bytes:.3g}{unit}"
        size_bytes /= 1024
    return f"{size_bytes:.3g}T"
