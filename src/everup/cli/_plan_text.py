"""The plan in a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from everup.cli._report_table import table
from everup.cli._report_text import bar, lapse, share
from everup.cli.plan import Measured, next_command
from everup.cli.screen import echo, style

if TYPE_CHECKING:
    from everup.reliability.interval import Interval
    from everup.reliability.plan import (
        Assumption,
        Comparison,
        Plan,
        Route,
        ServicePlan,
        WhatIf,
    )

_RIGHT = frozenset(
    ("ALONE", "WITH WHAT IT NEEDS", "DOWN/YEAR", "OUTAGES/YEAR", "WAS", "SAVES/YEAR", "THEN",
     "VALUE", "MTTF", "MTTR", "MEASURED")
)  # fmt: skip
_MOST_MENDS = 6
_MOST_ROWS = 12
_LEAST_SHARE = 0.001
"""Of the downtime: what would save less is not shown."""
_SHORT_S = 86400.0
_LEAST_ELASTICITY = 0.0005
_COST_COLOURS = ("green", "green", "yellow", "red")


def show(
    found: "Plan",
    before: "Plan | None",
    way: "Route | None",
    what_if: "WhatIf",
    measured: Measured,
) -> None:
    """Warnings, the services, what to mend first, what carries the answer, what was measured."""
    for text in found.warnings:
        echo(f"{style('mend first:', fg='yellow', bold=True)} {text}", err=True)
    _title(found, what_if, measured)
    _services(found, before)
    _mend(found)
    _assumptions(found)
    _compared(found, measured)
    if way is not None:
        _route(way)
    echo()
    value, down = found.availability, found.downtime_s_per_year
    echo(
        f"{_caution(measured)}{found.scope or 'every service'} up {share(value.value)} of the time,"
        f" down {lapse(down.value)} a year (95 %: {_between(down)})"
        + style(f"  (next: {next_command(found, way, measured)})", dim=True)
    )


def _title(found: "Plan", what_if: "WhatIf", measured: Measured) -> None:
    of = f"{found.scope} with what it needs" if found.scope else "all services"
    if measured.why:
        source = f"nothing measured ({measured.why}): all rates are assumed"
    else:
        source = f"rates measured over {lapse(measured.length_s)} where there were enough"
    echo(style(f"{_caution(measured)}plan of {of}; {source}", bold=True))
    if given := [_given(name, service, what_if) for name, service in what_if.names()]:
        echo(f"what if: {'; '.join(given)}")
    for note in found.notes:
        echo(f"{style('note:', fg='yellow', bold=True)} {note}")


def _caution(measured: Measured) -> str:
    """Before any prediction: how little it rests on."""
    if measured.why or measured.length_s >= _SHORT_S:
        return ""
    return f"{lapse(measured.length_s)} of journal prove little, the interval says how little: "


def _given(name: str, service: str, what_if: "WhatIf") -> str:
    value = getattr(what_if, name)[service]
    text = lapse(value) if name.endswith("_s") else f"{value:g}"
    return f"{name.removesuffix('_s').replace('_', ' ')} of {service} {text}"


def _services(found: "Plan", before: "Plan | None") -> None:
    measured = any(s.comparison for s in found.services)
    was = {s.name: s.downtime_s_per_year.value for s in before.services} if before else {}
    heads = ["SERVICE", "REPLICAS", "MTTF", "MTTR", "ALONE", "WITH WHAT IT NEEDS", "DOWN/YEAR"]
    heads += ["95 % INTERVAL", "OUTAGES/YEAR"]
    rows = [[*heads, *(["MEASURED"] if measured else []), *(["WAS"] if before else [])]]
    for s in found.services:
        row = [
            s.name, f"{s.replicas}" + (f"+{s.standby}" if s.standby else ""), lapse(s.mttf_s),
            lapse(s.mttr_s), share(s.alone.value), *_cells(s, s.availability, measured),
        ]  # fmt: skip
        rows.append([*row, lapse(was.get(s.name))] if before else row)
    if not found.scope and len(found.services) > 1:
        row = ["all", "", "", "", "", *_cells(found, found.availability, measured)]
        rows.append([*row, lapse(before.downtime_s_per_year.value)] if before else row)
    table(rows, _RIGHT, spare=("OUTAGES/YEAR", "REPLICAS", "MTTR", "MTTF", "ALONE", "MEASURED"))


def _cells(of: "Plan | ServicePlan", availability: "Interval", measured: bool) -> list[str]:
    down = of.downtime_s_per_year
    cells = [share(availability.value), lapse(down.value)]
    cells += [_between(down), f"{of.outages_per_year:.2g}"]
    return [*cells, share(of.comparison.measured if of.comparison else None)] if measured else cells


def _between(down: "Interval") -> str:
    """- where all numbers were given."""
    if down.high - down.low <= 1e-6 * down.high:
        return "-"
    return f"{lapse(down.low)} to {lapse(down.high)}"


def _mend(found: "Plan") -> None:
    whole = found.downtime_s_per_year.value or 0.0
    mends = [m for m in found.mend if m.saved_s_per_year >= _LEAST_SHARE * whole][:_MOST_MENDS]
    if not mends:
        return
    echo()
    rows = [["MEND FIRST", "WHAT", "SAVES/YEAR", ""]]
    for m in mends:
        rows.append([m.service, m.text, lapse(m.saved_s_per_year), bar(m.saved_s_per_year / whole)])
    table(rows, _RIGHT, spare=("",))


def _assumptions(found: "Plan") -> None:
    echo()
    rows = [["WHAT IT RESTS ON", "OF", "VALUE", "95 % INTERVAL", "FROM", "CARRIES"]]
    chosen = [a for a in found.assumptions if abs(a.elasticity) >= _LEAST_ELASTICITY][:_MOST_ROWS]
    for a in chosen:
        note = f" ({a.note})" if a.note else ""
        carries = f"{bar(abs(a.elasticity))} {100 * abs(a.elasticity):.3g} %"
        rows.append(
            [a.name, _some(a.services), _value(a, a.value), _range(a), f"{a.source}{note}", carries]
        )
    table(rows, _RIGHT, spare=("95 % INTERVAL", "CARRIES", "OF"))
    if hidden := len(found.assumptions) - len(chosen):
        echo(f"and {hidden} more that carry next to nothing (--json has them)")
    echo(
        "carries: so much does the predicted downtime grow if this was twice as bad (it falls by "
        "half as much if it was twice as good), to first order"
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more if names else "all"


def _value(row: "Assumption", value: float) -> str:
    return lapse(value) if row.unit == "s" else f"{100 * value:.4g} %"


def _range(row: "Assumption") -> str:
    if row.low == row.high:
        return "-"
    return f"{_value(row, row.low)} to {_value(row, row.high)}"


def _compared(found: "Plan", measured: Measured) -> None:
    compared: list[tuple[str, Comparison]] = [
        (s.name, s.comparison) for s in found.services if s.comparison
    ]
    if found.comparison is not None and len(found.services) > 1:
        compared.append(("all", found.comparison))
    if not compared:
        return
    echo()
    rows = [["COMPARED", "MEASURED", "PREDICTED FOR SUCH A TIME", "VALID TIME", ""]]
    for name, c in compared:
        low, high = share(c.predicted.low).removesuffix(" %"), share(c.predicted.high)
        words = {
            "": "inside",
            "optimistic": "outside: worse than predicted, the plan is optimistic",
            "pessimistic": "outside: better than predicted, the plan is pessimistic",
        }[c.errs]
        rows.append([name, share(c.measured), f"{low} to {high}", lapse(c.valid_s), words])
    table(rows, _RIGHT, spare=("VALID TIME",))


def _route(way: "Route") -> None:
    _way(way)
    for note in way.notes:
        echo(note)


def _way(way: "Route") -> None:
    from everup.reliability.plan import COSTS, YEAR_S

    echo()
    target = f"{100 * way.target:.10g} %"
    goal = f"{target} ({lapse((1 - way.target) * YEAR_S)} down a year)"
    if way.reached and not way.changes:
        echo(f"the target of {goal} is reached as it is: {share(way.before)}")
        return
    rows = [["COST", f"FOR {target}, CHEAPEST FIRST", "SAVES/YEAR", "THEN"]]
    rows += [
        [COSTS[c.cost], c.text, lapse(c.saved_s_per_year), share(c.availability)]
        for c in way.changes
    ]
    if way.changes:
        table(rows, _RIGHT, spare=("COST", "SAVES/YEAR"))
    if way.reached:
        echo(f"with these the target of {goal} is reached: {share(way.after)}")
    else:
        limits = "; ".join(way.limits) or "nothing that is known"
        echo(
            style("not reached: ", fg="red")
            + f"{goal} is out of reach, {share(way.after)} at best; what limits it: {limits}"
        )
