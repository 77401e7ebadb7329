"""``everup plan``."""

import difflib
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from everup.cli._mathematics import need_mathematics
from everup.cli.config import read_config
from everup.cli.context import FAILED, USAGE, Failure, Here, json_option, named, print_json
from everup.cli.screen import echo, style

if TYPE_CHECKING:
    from everup.model.spec import Spec
    from everup.reliability.plan import Observed, WhatIf

_SEED = 20_050_912
"""The same question gets the same answer."""


class Measured(NamedTuple):
    """What the journal says."""

    seen: "Mapping[str, Observed]"
    whole: tuple[float, float] | None
    """Seconds valid and availability of all services together."""
    length_s: float
    why: str
    """Why there is nothing; empty if there is."""


def _pairs(name: str, help_text: str) -> Callable[[Any], Any]:
    return click.option(
        f"--{name}", name.replace("-", "_"), multiple=True, metavar="SERVICE=VALUE", help=help_text
    )


@click.command()
@click.argument("service", required=False)
@_pairs("replicas", "What if it had so many replicas: web=3.")
@_pairs("standby", "What if it had so many warm standbys: web=1.")
@_pairs("mttr", "What if each of its repairs took so long, whatever the failure: db=10s.")
@_pairs("mttf", "What if a replica ran so long between failures: db=30d.")
@_pairs("coverage", "What if everup recovered this part of its failures: db=0.999.")
@_pairs("common-cause", "What if this part of its failures struck all replicas: web=0.01.")
@click.option("--target", metavar="PERCENT", help="What would have to change for 99.99.")
@click.option("--since", default="90d", show_default=True, help="Measure over this time.")
@json_option
@click.pass_obj
def plan(
    here: Here,
    /,
    service: str | None,
    target: str | None,
    since: str,
    as_json: bool,
    **options: tuple[str, ...],
) -> None:
    """Predict availability from the config, and say what to mend first.

    Of all services, or of SERVICE with what it depends on. Rates come from the journal where it
    has enough of them, and are assumed elsewhere; both are shown. everup need not run.
    """
    need_mathematics("plan")
    goal = None if target is None else _target(target)
    spec = _spec(here)
    what_if = _what_if(spec, options)
    names = _planned(spec, what_if)
    if service is not None and service not in names:
        raise _unknown("", service, names, spec)
    measured = _measured(here, since)

    import numpy as np

    from everup.reliability.plan import WhatIf, planned
    from everup.reliability.plan import plan as predict
    from everup.reliability.plan import route as find_route

    def predicted(what_if: "WhatIf") -> Any:
        rng = np.random.default_rng(_SEED)
        known = set(names) >= set(measured.seen)
        return predict(
            spec,
            rng,
            scope=service or "",
            seen=measured.seen,
            whole=measured.whole if known else None,
            what_if=what_if,
        )

    found = predicted(what_if)
    before = None
    base = planned(spec)
    if what_if.names() and (service in base if service else base):
        before = predicted(WhatIf())
    way = None
    if goal is not None:
        way = find_route(spec, goal, scope=service or "", seen=measured.seen, what_if=what_if)
    if as_json:
        print_json(_as_json(found, before, way, what_if, measured, since))
        return
    from everup.cli._plan_text import show

    show(found, before, way, what_if, measured)


# -- arguments


def _target(text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = float("nan")
    if not 0 < value < 100:
        raise Failure(
            f"--target {text}: expected a percentage above 0 and below 100, like 99.99",
            status=USAGE,
        )
    return value / 100


def _spec(here: Here) -> "Spec":
    from everup import config
    from everup.adapters.launch import user_exists

    path = here.config
    report = config.check(
        read_config(path), path=path, directory=str(Path(path).parent), known_users=user_exists
    )
    if report.spec is None:
        for problem in report.problems:
            echo(f"{style('error:', fg='red', bold=True)} {problem}", err=True)
        raise Failure(f"{path} is not valid", "see: everup check", USAGE)
    return report.spec


def _planned(spec: "Spec", what_if: "WhatIf") -> list[str]:
    from everup.reliability.plan import planned

    names = [n for n in spec.service if n in planned(spec) or what_if.replicas.get(n)]
    if not names:
        raise Failure("the config has no service that is to be up all the time", status=USAGE)
    return names


def _unknown(option: str, name: str, names: Iterable[str], spec: "Spec") -> Failure:
    where = f"{option}: " if option else ""
    if name in spec.service:
        one = spec.service[name]
        why = "is a oneshot" if one.type == "oneshot" else "has no replicas"
        return Failure(f"{where}{name} {why}: there is nothing to plan", status=USAGE)
    known = sorted(names)
    close = difflib.get_close_matches(name, known, 1)
    hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(known)}"
    return Failure(f"{where}there is no service {name!r} in the config", hint, USAGE)


def _what_if(spec: "Spec", options: Mapping[str, tuple[str, ...]]) -> "WhatIf":
    from everup.reliability.plan import WhatIf

    readers: dict[str, tuple[str, Callable[[str], Any], str]] = {
        "replicas": ("replicas", _count(1, 1000), "a number from 1 to 1000"),
        "standby": ("standby", _count(0, 100), "a number from 0 to 100"),
        "mttr": ("mttr_s", _duration, 'a duration above 0 with a unit, like "10s" or "5m"'),
        "mttf": ("mttf_s", _duration, 'a duration above 0 with a unit, like "12h" or "30d"'),
        "coverage": ("coverage", _part, "a part from 0 to 1, like 0.999"),
        "common_cause": ("common_cause", _part, "a part from 0 to 1, like 0.01"),
    }
    found: dict[str, dict[str, Any]] = {}
    given_replicas = {pair.partition("=")[0] for pair in options.get("replicas", ())}
    running = {
        name: service
        for name, service in spec.service.items()
        if service.type == "service" and (service.replicas or name in given_replicas)
    }
    for name, given in options.items():
        field, read, valid = readers[name]
        option = f"--{name.replace('_', '-')}"
        for pair in given:
            service, equals, text = pair.partition("=")
            if not equals:
                raise Failure(f"{option} {pair}: expected SERVICE=VALUE", status=USAGE)
            if service not in running:
                raise _unknown(f"{option} {pair}", service, running, spec)
            try:
                found.setdefault(field, {})[service] = read(text)
            except ValueError:
                raise Failure(f"{option} {pair}: expected {valid}", status=USAGE) from None
    return WhatIf(**found)


def _count(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise ValueError(text)
        return value

    return read


def _duration(text: str) -> float:
    from everup.model.units import parse_duration

    value = parse_duration(text)
    if value <= 0:
        raise ValueError(text)
    return value


def _part(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(text)
    return value


# -- the journal


def _measured(here: Here, since: str) -> Measured:
    from everup.adapters import history as adapter
    from everup.adapters import trusted
    from everup.adapters._journal_file import boot_id
    from everup.cli.client import keeper_lives
    from everup.cli.report import _moment
    from everup.reliability.account import account
    from everup.reliability.plan import observed

    place, began = here.place, _moment(since)
    try:
        with trusted.as_owner(place.weakness()):
            history = adapter.advance(Path(place.journal), Path(place.state_dir))
    except FileNotFoundError:
        return Measured({}, None, 0.0, "everup has not run with this config yet")
    except (adapter.HistoryError, OSError) as error:
        raise Failure(
            f"no plan: {error}",
            "is the journal yours to read? everup puts a damaged one aside when it starts",
            FAILED,
        ) from None
    if not history.marks:
        return Measured({}, None, 0.0, "the journal is empty")
    end = history.moment(time.time(), time.monotonic(), boot_id())
    history.close(end, running=keeper_lives(place))
    first = history.marks[0][0]
    start = max(first, end - int(began * 1e6) if isinstance(began, float) else began(history))
    start = min(start, end - 1)
    found = account(history, start, end)
    whole = None
    if found.whole.every_service_up is not None:
        whole = (found.whole.times.valid_s, found.whole.every_service_up)
    seen = observed(history, found, start, end)
    why = "" if seen else "the journal has nothing of a service in this time"
    return Measured(seen, whole, found.end - found.start, why)


# -- output


def _as_json(
    found: Any, before: Any, way: Any, what_if: "WhatIf", measured: Measured, since: str
) -> Any:
    from everup.reliability.account import plain

    return {
        "version": 1,
        "since": since,
        "measured_s": measured.length_s,
        "what_if": plain(what_if),
        "plan": plain(found),
        "without_what_if": plain(before),
        "target": plain(way),
    }


def next_command(found: Any, way: Any, measured: Measured) -> str:
    """What is useful after this."""
    if way is not None:
        return named("everup check") if way.changes else named("everup report")
    value = found.availability.value
    nines = next((n for n in (0.99, 0.999, 0.9999, 0.99999, 0.999999) if n > value), None)
    if nines is None:
        return named("everup report")
    scope = f" {found.scope}" if found.scope else ""
    return named(f"everup plan{scope} --target {100 * nines:.6g}")
