"""The report in a terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from everup.cli._report_table import counted, table
from everup.cli.context import named
from everup.cli.screen import echo, style

if TYPE_CHECKING:
    from everup.reliability.account import Account
    from everup.reliability.history import History
    from everup.reliability.interval import Interval

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LEVELS = "▁▂▃▄▅▆▇█"
_WIDTH = 12
_COLOURS = {"up": "green", "degraded": "yellow", "down": "red", "unknown": "yellow"}
_RIGHT = frozenset(("FAILURES", "MTTF", "MTTR", "DOWN", "BURN 1H", "LEFT", "AVAILABILITY"))
_SPARE = ("FAILURES OVER TIME", "OBJECTIVE", "BURN 1H", "MTTF", "MTTR", "95 % INTERVAL")
YOUNG_S = 86400.0


def show(
    history: "History",
    found: "Account",
    edges: Sequence[int],
    service: str | None,
    html: str | None,
) -> None:
    """Tables, what they mean in one line, and what to do next."""
    if not found.services:
        what = "nothing to report yet: no service was up, or meant to be, in this time"
        if service:
            what = f"nothing to report of {service}: it was not meant to be up in this time"
        echo(f"{what}  " + style(f"(next: {named('everup status')})", dim=True))
        return
    if html is not None:
        echo(f"wrote {html}")
    days = [datetime.fromtimestamp(t, UTC).astimezone() for t in (found.start, found.end)]
    until = " to ".join(day.strftime("%Y-%m-%d %H:%M:%S") for day in days)
    echo(style(f"{until} ({lapse(found.end - found.start)})", bold=True))
    _services(history, found, edges)
    chosen: Any = found.services[0] if service else found.whole
    _failures(chosen.failures)
    _repairs(chosen.repairs)
    if service:
        _instances(found.services[0])
    _maintenance(found)
    _slowest([i for s in found.services for i in s.open], "down now")
    _slowest(chosen.slowest, "slowest recoveries")
    _notes(found)
    _summary(found, service)


def _services(history: "History", found: "Account", edges: Sequence[int]) -> None:
    from everup.reliability.account import bins

    heads = ["SERVICE", "NOW", "AVAILABILITY", "95 % INTERVAL", "DOWN", "FAILURES", "MTTF", "MTTR"]
    objectives = any(s.slo for s in found.services)
    heads += ["OBJECTIVE", "BUDGET LEFT", "BURN 1H"] if objectives else []
    rows, colours = [[*heads, "FAILURES OVER TIME"]], {}
    for number, s in enumerate(found.services, 1):
        counts = [count for count, _, _ in bins(history, edges, [s.name])]
        row = [
            s.name, s.state, share(s.availability and s.availability.value),
            between(s.availability), lapse(s.times.down_s), str(s.failures.count),
            at_least(s.failures.mttf_s), lapse(s.repairs.total.mean_s),
        ]  # fmt: skip
        colours[number, 1] = _COLOURS.get(s.state, "")
        if objectives:
            slo = s.slo
            if slo:
                colours[number, 9] = "green" if slo.left > 0.25 else "red"
            row += [
                _promise(slo) if slo else "-",
                f"{bar(slo.left)} {100 * slo.left:.0f} %" if slo else "-",
                f"{slo.burn_1h:.1f}x" if slo else "-",
            ]
        rows.append([*row, spark(counts)])
    table(rows, _RIGHT, colours, _SPARE)


def _promise(slo: Any) -> str:
    of = " of calls" if slo.by == "requests" else ""
    return f"{slo.objective:g} %{of} in {lapse(slo.window_s)}"


def _failures(failures: Any) -> None:
    if not failures.count:
        return
    echo()
    most = max(failures.by_kind.values())
    rows = [["FAILURES", "KIND", ""]]
    for kind, count in failures.by_kind.items():
        rows.append([str(count), kind, bar(count / most)])
    table(rows, _RIGHT)
    if failures.relapses:
        echo(relapsed(failures.relapses))
    if failures.mttf_s is not None:
        low, high = failures.mttf_s.low, failures.mttf_s.high
        words = {
            "more frequent": "failures become more frequent",
            "less frequent": "failures become rarer",
            "no trend shown": "no trend shown",
        }.get(failures.trend, "")
        p = f" (p = {failures.trend_p:.2g})" if words and failures.trend_p is not None else ""
        echo(
            f"an instance runs {lapse(failures.mttf_s.value)} between failures, "
            f"95 %: {lapse(low)} to {lapse(high)}" + (f"; {words}{p}" if words else "")
        )


def _repairs(repairs: Any) -> None:
    if not repairs.total.count:
        return
    echo()
    rows = [["RECOVERY", "MEDIAN", "P95", "MEAN", "", "COUNT"]]
    whole = repairs.total.mean_s or 1.0
    for name in ("detect", "decide", "recover", "total"):
        part = getattr(repairs, name)
        share = bar((part.mean_s or 0.0) / whole) if name != "total" else ""
        rows.append(
            [name, lapse(part.median_s), lapse(part.p95_s), lapse(part.mean_s), share,
             str(part.count)]
        )  # fmt: skip
    table(rows, spare=("COUNT", ""))


def _instances(s: Any) -> None:
    echo()
    rows = [["INSTANCE", "NOW", "AVAILABILITY", "FAILURES", "UP", "DOWN", "MAINTENANCE", "UNKNOWN"]]
    for i in s.instances:
        t = i.times
        rows.append(
            [i.name, i.state, share(i.availability), str(i.failures), lapse(t.up_s),
             lapse(t.down_s), lapse(t.maintenance_s), lapse(t.unknown_s)]
        )  # fmt: skip
    colours = {(n, 1): _COLOURS.get(row[1], "") for n, row in enumerate(rows) if n}
    table(rows, _RIGHT, colours, ("UNKNOWN", "MAINTENANCE", "UP"))
    if s.replica_weighted is not None:
        echo(
            f"any replica ready: {share(s.availability and s.availability.value)}; "
            f"of its capacity (replica-weighted): {share(s.replica_weighted)}"
        )
    if s.requests is not None:
        r = s.requests
        echo(
            f"by requests, as its callers told: {share(r.availability and r.availability.value)} "
            f"({r.ok} ok, {r.failed} failed, {r.rejected} turned away by breakers and limits)"
        )


def _maintenance(found: "Account") -> None:
    planned = [s for s in found.services if s.times.maintenance_s >= 0.5 or s.deploys]
    if not planned:
        return
    parts = []
    for s in planned[:8]:
        words = [lapse(s.times.maintenance_s)] if s.times.maintenance_s >= 0.5 else []
        failed = f" ({s.deploys_failed} failed)" if s.deploys_failed else ""
        words += [f"{counted(s.deploys, 'rollout')}{failed}"] if s.deploys else []
        parts.append(f"{s.name} {', '.join(words)}")
    more = f" and {len(planned) - 8} more" if len(planned) > 8 else ""
    echo()
    echo(f"maintenance, left out of availability: {'; '.join(parts)}{more}")


def _slowest(incidents: Sequence[Any], title: str) -> None:
    if not incidents:
        return
    echo()
    rows = [
        [title.upper(), "INSTANCE", "KIND", "DOWN", "DETECT", "DECIDE", "RECOVER", "LOOK AT IT"]
    ]
    for i in incidents:
        rows.append(
            [when(i.start), i.instance, i.kind, lapse(i.down_s), lapse(i.detect_s),
             lapse(i.decide_s), lapse(i.recover_s),
             named(f"everup events -s {i.instance} --after {i.first_seq - 1}")]
        )  # fmt: skip
    table(rows, _RIGHT, spare=("DETECT", "DECIDE", "RECOVER", "KIND", "INSTANCE", "DOWN"))


def _notes(found: "Account") -> None:
    if found.first == found.start and found.end - found.start < YOUNG_S:
        length = lapse(found.end - found.start)
        echo(f"only {length} of journal so far: the intervals say how little that proves")
    if found.off_s >= 1:
        echo(f"everup or the machine was off for {lapse(found.off_s)}: neither up nor down")
    if found.lost_events:
        lost = counted(found.lost_events, "lost event")
        echo(f"{lost}: the numbers may be off by as many")


def _summary(found: "Account", service: str | None) -> None:
    """One line, and the next useful command."""
    echo()
    spent = [s for s in found.services if s.slo and s.slo.left <= 0]
    down = [s for s in found.services if s.state == "down"]
    worst = min(
        found.services, key=lambda s: s.availability.value or 0.0 if s.availability else 1.0
    )
    target = service or worst.name
    if down:
        text = f"{', '.join(s.name for s in down)} {'is' if len(down) == 1 else 'are'} down now"
        following = f"everup events -s {down[0].name}"
    elif spent:
        text = f"the error budget is spent: {', '.join(s.name for s in spent)}"
        following = (
            f"everup report {spent[0].name}" if not service else f"everup events -s {target}"
        )
    elif not found.whole.failures.count:
        text, following = "nothing failed in this time", "everup status"
    else:
        text = (
            f"{counted(found.whole.failures.count, 'failure')}, {service or 'every service'} up "
            f"{share(found.whole.every_service_up)} of the time"
        )
        following = f"everup report {target}" if not service else f"everup events -s {target}"
    echo(text + style(f"  (next: {named(following)})", dim=True))


# -- pieces


def bar(part: float) -> str:
    """A part of a whole as a small bar."""
    eighths = round(max(0.0, min(1.0, part)) * _WIDTH * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(_WIDTH)


def spark(counts: Sequence[int]) -> str:
    """At most 32 columns; a dot for none."""
    size = -(-len(counts) // 32)
    sums = [sum(counts[n : n + size]) for n in range(0, len(counts), size)]
    most = max(sums, default=0)
    return "".join("·" if not n else _LEVELS[(n * 7) // most] for n in sums)


def relapsed(count: int) -> str:
    """What is done with them."""
    came = f"{count} of them came within 10 min of the one before"
    return (
        f"{came}: {'it counts' if count == 1 else 'they count'} as downtime, not in MTTF and trend"
    )


def at_least(mttf_s: "Interval | None") -> str:
    """A mean time, or its lower bound where there was no failure."""
    if mttf_s is None:
        return "-"
    return lapse(mttf_s.value) if mttf_s.value is not None else f">{lapse(mttf_s.low)}"


def lapse(seconds: float | None) -> str:
    """A length of time in two or three digits; - for none."""
    if seconds is None:
        return "-"
    if seconds == float("inf"):
        return "∞"
    for limit, unit, size in (
        (0.0005, "0", 0), (0.9995, "ms", 0.001), (119.5, "s", 1), (7170, "m", 60),
        (172_000, "h", 3600),
    ):  # fmt: skip
        if seconds < limit:
            return "0" if not size else f"{seconds / size:.3g}{unit}"
    days = seconds / 86400
    return f"{days:.3g}d" if days < 1000 else f"{days:.0f}d"


def share(value: float | None) -> str:
    """Per cent with as many nines as there are."""
    if value is None:
        return "-"
    if value == 1:
        return "100 %"
    if value == 0:
        return "0 %"
    digits = 2
    while digits < 6 and 1 - value < 10 ** -(digits + 1):
        digits += 1
    return f"{100 * value:.{digits}f} %"


def between(interval: "Interval | None") -> str:
    """The interval of a share; - where it says nothing."""
    if interval is None or (interval.low == 0 and interval.high == 1):
        return "-"
    low, high = (share(value).removesuffix(" %") for value in (interval.low, interval.high))
    return f"{low} to {high}"


def when(moment: float) -> str:
    """In the user's zone."""
    return datetime.fromtimestamp(moment, UTC).astimezone().strftime("%m-%d %H:%M:%S")
