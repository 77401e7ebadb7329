"""The report as one HTML file: no script, nothing from elsewhere; for screens and for paper."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from everup.cli._report_table import counted
from everup.cli._report_text import YOUNG_S, at_least, between, lapse, share, when
from everup.cli.context import named

if TYPE_CHECKING:
    from everup.reliability.account import Account
    from everup.reliability.history import History

_COLUMNS = 1032
"""Width of a chart: that of the text on a wide screen, so that its letters have the same size."""
_TALLEST = 68
"""Height of the tallest bar; above it stands what it counts."""
_WORST = ("down", "degraded", "unknown", "maintenance", "up")
_WORDS = {
    "up": "up", "degraded": "up, a replica down", "down": "down", "unknown": "not known",
    "maintenance": "maintenance",
}  # fmt: skip
_STYLE = """
:root{color-scheme:light dark;--bg:#fff;--ink:#1c2430;--dim:#5c6675;--line:#d8dde5;--card:#f6f7f9;
--up:#2f9e5f;--degraded:#d9a514;--down:#d33c3c;--maintenance:#8fa3bf;--unknown:#c3c8d0;
--bar:#4573c4}
@media(prefers-color-scheme:dark){:root{--bg:#14181f;--ink:#e4e8ee;--dim:#9aa5b5;--line:#323a47;
--card:#1c222c;--up:#3fb573;--degraded:#e3b93a;--down:#ef5b5b;--maintenance:#5d718f;
--unknown:#454d5a;--bar:#6f9bea}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1080px;padding:24px;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:26px;margin:0 0 4px}h2{font-size:20px;margin:32px 0 8px}h3{font-size:14px;
margin:16px 0 4px;color:var(--dim);font-weight:600}
p{margin:4px 0}.dim{color:var(--dim)}
table{border-collapse:collapse;width:100%;margin:8px 0;font-variant-numeric:tabular-nums}
th,td{padding:4px 10px 4px 0;text-align:left;border-bottom:1px solid var(--line);
vertical-align:top}th{color:var(--dim);font-weight:600;font-size:13px}
td.n,th.n{text-align:right}code{font-size:13px;overflow-wrap:anywhere}
.cards{display:flex;flex-wrap:wrap;gap:12px;margin:16px 0}
.card{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 16px;
min-width:150px}.card b{display:block;font-size:22px}
section{border-top:2px solid var(--line);margin-top:28px}
svg{display:block;width:100%;height:auto;max-width:100%}
svg text{fill:var(--dim);font:11px system-ui,sans-serif}
.up{fill:var(--up)}.degraded{fill:var(--degraded)}.down{fill:var(--down)}
.maintenance{fill:var(--maintenance)}.unknown{fill:var(--unknown)}.bar{fill:var(--bar)}
.axis{stroke:var(--line)}.curve{fill:none;stroke:var(--bar);stroke-width:2}
.spent{stroke:var(--down);stroke-dasharray:4 3}
.now-up{color:var(--up)}.now-down{color:var(--down)}.now-degraded{color:var(--degraded)}
.key span{margin-right:14px}.key i{display:inline-block;width:11px;height:11px;margin-right:4px}
.scroll{overflow-x:auto}
@media print{body{max-width:none;padding:0;font-size:11pt}section{break-inside:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""


def page(history: "History", found: "Account", start: int, end: int, edges: Sequence[int]) -> str:
    """The whole file."""
    whole = found.whole
    parts = [_head(found)]
    if not found.services:
        parts.append("<p>Nothing to report yet: no service was up, or meant to be.</p>")
    else:
        names = [s.name for s in found.services]
        parts += [
            _cards(found),
            _key(),
            _overview(found),
            "<h3>Failures over time, all services</h3>",
            _over_time(history, names, edges),
        ]
        if len(found.services) > 1:
            parts += ["<h3>Slowest recoveries</h3>", _incidents(whole.slowest)]
        parts += [_service(history, s, start, end, edges) for s in found.services]
    parts.append(_foot(found))
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>Availability {escape(_day(found.start))} to {escape(_day(found.end))}</title>\n"
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


# -- the whole


def _head(found: "Account") -> str:
    return (
        "<h1>Availability</h1>\n"
        f'<p class="dim">{escape(_moment(found.start))} to {escape(_moment(found.end))} '
        f"({lapse(found.end - found.start)}), written by everup</p>"
    )


def _cards(found: "Account") -> str:
    whole = found.whole
    down = [s.name for s in found.services if s.state == "down"]
    spent = sum(1 for s in found.services if s.slo and s.slo.left <= 0)
    promised = sum(1 for s in found.services if s.slo)
    cards = [
        (share(whole.every_service_up), "of the time every service was up"),
        (str(whole.failures.count), "failures of instances"),
        (lapse(whole.repairs.total.mean_s), "mean time to recover"),
        (at_least(whole.failures.mttf_s), "mean time to failure of an instance"),
    ]  # fmt: skip
    if promised:
        cards.append((f"{promised - spent} of {promised}", "objectives with budget left"))
    if down:
        cards.append((", ".join(down[:3]) + (" ..." if len(down) > 3 else ""), "down now"))
    inner = "".join(f'<div class="card"><b>{escape(b)}</b>{escape(t)}</div>' for b, t in cards)
    return f'<div class="cards">{inner}</div>'


def _key() -> str:
    items = "".join(
        f'<span><i style="background:var(--{name})"></i>{escape(text)}</span>'
        for name, text in _WORDS.items()
    )
    return f'<p class="key dim">{items}</p>'


def _overview(found: "Account") -> str:
    rows = []
    for s in found.services:
        slo = s.slo
        rows.append(
            [
                escape(s.name),
                f'<span class="now-{s.state}">{escape(_WORDS[s.state])}</span>',
                share(s.availability.value if s.availability else None),
                between(s.availability),
                lapse(s.times.down_s),
                str(s.failures.count),
                lapse(s.repairs.total.mean_s),
                f"{slo.objective:g} %" if slo else "-",
                f"{100 * slo.left:.0f} %" if slo else "-",
            ]
        )
    heads = ["Service", "Now", "Availability", "95 % interval", "Down", "Failures", "MTTR",
             "Objective", "Budget left"]  # fmt: skip
    return _table(heads, rows, numbers={2, 4, 5, 6, 7, 8})


def _foot(found: "Account") -> str:
    notes = [
        "Availability of a service: the share of the valid time in which at least one replica was "
        "ready. Maintenance and time in which everup or the machine was off are no valid time.",
        "Intervals are of 95 % confidence. A failure within 10 minutes after the one before on the "
        "same instance counts as downtime, and not in the mean time to failure.",
    ]
    if found.first == found.start and found.end - found.start < YOUNG_S:
        notes.append(
            f"Only {lapse(found.end - found.start)} of journal so far: the intervals say how "
            "little that proves."
        )
    if found.off_s >= 1:
        notes.append(f"everup or the machine was off for {lapse(found.off_s)}.")
    if found.lost_events:
        lost = counted(found.lost_events, "lost event")
        notes.append(f"{lost}: the numbers may be off by as many.")
    return "<section>" + "".join(f'<p class="dim">{escape(n)}</p>' for n in notes) + "</section>"


# -- a service


def _service(history: "History", s: Any, start: int, end: int, edges: Sequence[int]) -> str:
    parts = [f"<section><h2>{escape(s.name)}</h2>", f"<p>{escape(_headline(s))}</p>"]
    parts += ["<h3>When it was up</h3>", _timeline(history, s.name, start, end)]
    if s.failures.count:
        parts += ["<h3>Failures over time</h3>", _over_time(history, [s.name], edges)]
        parts += ["<h3>Recovery times</h3>", _histogram(history, s.name, start, end)]
        kinds = [[escape(kind), str(count)] for kind, count in s.failures.by_kind.items()]
        parts.append(_table(["Kind of failure", "Count"], kinds, numbers={1}))
    if s.slo is not None and s.slo.by == "time":
        parts += [
            f"<h3>Error budget over {lapse(s.slo.window_s)}</h3>",
            _burn_down(history, s, start, end, edges),
        ]
    if len(s.instances) > 1:
        rows = [
            [escape(i.name), escape(_WORDS[i.state]), share(i.availability), str(i.failures),
             lapse(i.times.down_s), lapse(i.times.maintenance_s)]
            for i in s.instances
        ]  # fmt: skip
        heads = ["Instance", "Now", "Availability", "Failures", "Down", "Maintenance"]
        parts.append(_table(heads, rows, numbers={2, 3, 4, 5}))
    if s.open or s.slowest:
        parts += ["<h3>Slowest recoveries</h3>", _incidents([*s.open, *s.slowest])]
    return "\n".join([*parts, "</section>"])


def _headline(s: Any) -> str:
    value = s.availability.value if s.availability else None
    text = f"{share(value)} available"
    if s.outages:
        text += f"; down {counted(s.outages, 'time')}, {lapse(s.times.down_s)} in all"
    elif value is not None:
        text += "; never down"
    if s.slo is not None:
        by = " of requests" if s.slo.by == "requests" else ""
        text += f". Objective {s.slo.objective:g} %{by} over {lapse(s.slo.window_s)}: "
        text += (
            f"{100 * s.slo.left:.0f} % of the error budget left"
            if s.slo.left > 0
            else "missed, the error budget is spent"
        )
    if s.requests is not None and s.requests.availability is not None:
        text += f". {share(s.requests.availability.value)} of requests answered"
    trend = {"more frequent": "Failures become more frequent.",
             "less frequent": "Failures become rarer."}.get(s.failures.trend, "")  # fmt: skip
    return f"{text}. {trend}".strip()


def _timeline(history: "History", name: str, start: int, end: int) -> str:
    """One strip; each column shows the worst of its time, so no outage is too short to be seen."""
    from everup.reliability.account import timeline

    begin, last = history.wall(start), history.wall(end)
    worst = [len(_WORST)] * _COLUMNS
    scale = _COLUMNS / max(1e-9, last - begin)
    for since, until, state in timeline(history, name, start, end):
        low = min(_COLUMNS - 1, max(0, int((since - begin) * scale)))
        high = min(_COLUMNS, max(low + 1, math.ceil((until - begin) * scale)))
        rank = _WORST.index(state)
        for column in range(low, high):
            worst[column] = min(worst[column], rank)
    rects, since = [], 0
    for column in range(1, _COLUMNS + 1):
        if column == _COLUMNS or worst[column] != worst[since]:
            if worst[since] < len(_WORST):
                state = _WORST[worst[since]]
                rects.append(
                    f'<rect class="{state}" x="{since}" y="0" width="{column - since}" height="26">'
                    f"<title>{escape(_WORDS[state])}, "
                    f"{escape(when(begin + since / scale))}</title></rect>"
                )
            since = column
    return _svg(f"0 0 {_COLUMNS} 42", "".join(rects) + _ends(begin, last, 39), "availability")


def _over_time(history: "History", names: Sequence[str], edges: Sequence[int]) -> str:
    from everup.reliability.account import bins

    found = bins(history, edges, names)
    most = max((count for count, _, _ in found), default=0) or 1
    width = _COLUMNS / len(found)
    parts = []
    for number, (count, down_s, _valid) in enumerate(found):
        height = _TALLEST * count / most
        since = when(history.wall(edges[number]))
        title = f"{counted(count, 'failure')}, {lapse(down_s)} down, from {since}"
        parts.append(
            f'<rect class="bar" x="{number * width:.2f}" y="{86 - height:.2f}" '
            f'width="{max(0.5, width - 1):.2f}" height="{height:.2f}">'
            f"<title>{escape(title)}</title></rect>"
        )
    parts.append(f'<text x="0" y="12">{counted(most, "failure")}</text>')
    ends = _ends(history.wall(edges[0]), history.wall(edges[-1]), 99)
    return _svg(f"0 0 {_COLUMNS} 102", "".join(parts) + _axis(86) + ends, "failures over time")


def _histogram(history: "History", name: str, start: int, end: int) -> str:
    """Recovery times over a logarithmic scale: three bars for each factor of ten."""
    from everup.reliability.account import recoveries

    times = [max(0.001, seconds) for seconds in recoveries(history, name, start, end)]
    if not times:
        return '<p class="dim">No recovery whose length is known.</p>'
    low = math.floor(3 * math.log10(min(times)))
    high = max(low + 3, math.floor(3 * math.log10(max(times))) + 1)
    counts = [0] * (high - low)
    for seconds in times:
        counts[min(high - low - 1, math.floor(3 * math.log10(seconds)) - low)] += 1
    width, most = _COLUMNS / len(counts), max(counts)
    parts = []
    for number, count in enumerate(counts):
        since, until = (10 ** ((low + number + n) / 3) for n in (0, 1))
        height = _TALLEST * count / most
        parts.append(
            f'<rect class="bar" x="{number * width:.2f}" y="{86 - height:.2f}" '
            f'width="{max(0.5, width - 1):.2f}" height="{height:.2f}">'
            f"<title>{count} of {lapse(since)} to {lapse(until)}</title></rect>"
        )
    marks = {0, len(counts) // 2, len(counts)}
    for mark in sorted(marks):
        anchor = "start" if mark == 0 else "end" if mark == len(counts) else "middle"
        parts.append(
            f'<text x="{mark * width:.1f}" y="99" text-anchor="{anchor}">'
            f"{lapse(10 ** ((low + mark) / 3))}</text>"
        )
    parts.append(f'<text x="0" y="12">{most}</text>')
    return _svg(f"0 0 {_COLUMNS} 102", "".join(parts) + _axis(86), "recovery times")


def _burn_down(history: "History", s: Any, start: int, end: int, edges: Sequence[int]) -> str:
    """What is left of the budget over the objective's window, as far as the report goes back."""
    from everup.reliability.account import bins

    window = int(s.slo.window_s * 1e6)
    inside = [max(start, end - window), *(e for e in edges if max(start, end - window) < e)]
    downs = [down_s for _, down_s, _ in bins(history, inside, [s.name])]
    before = s.slo.spent - sum(downs)  # in the window, and before the report begins
    left = [1 - max(0.0, before) / s.slo.allowed]
    for down_s in downs:
        left.append(left[-1] - down_s / s.slo.allowed)
    scale: float = 80 / (1 - min(0.0, *left))

    def y(value: float) -> float:
        return 6 + (1 - value) * scale

    length = max(1, inside[-1] - inside[0])
    points = " ".join(
        f"{(edge - inside[0]) / length * _COLUMNS:.1f},{y(value):.1f}"
        for edge, value in zip(inside, left, strict=True)
    )
    zero = y(0.0)
    parts = (
        f'<line class="spent" x1="0" x2="{_COLUMNS}" y1="{zero:.1f}" y2="{zero:.1f}"/>'
        f'<polyline class="curve" points="{points}"/>'
        f'<text x="2" y="16">100 %</text><text x="2" y="{zero - 3:.1f}">spent</text>'
    )
    ends = _ends(history.wall(inside[0]), history.wall(inside[-1]), 99)
    return _svg(f"0 0 {_COLUMNS} 102", parts + ends, "error budget left")


def _incidents(incidents: Sequence[Any]) -> str:
    rows = []
    for i in incidents:
        command = named(f"everup events -s {i.instance} --after {i.first_seq - 1}")
        rows.append(
            [
                escape(when(i.start)), escape(i.instance), escape(i.kind), escape(i.cause),
                lapse(i.down_s) + ("" if i.end else ", goes on"), lapse(i.detect_s),
                lapse(i.decide_s), lapse(i.recover_s), f"<code>{escape(command)}</code>",
            ]
        )  # fmt: skip
    heads = ["Began", "Instance", "Kind", "Cause", "Down", "Detect", "Decide", "Recover",
             "Look at it"]  # fmt: skip
    return _table(heads, rows, numbers={4, 5, 6, 7})


# -- pieces


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: set[int]) -> str:
    """Cells are HTML already."""

    def line(tag: str, cells: Sequence[str]) -> str:
        return "".join(
            f'<{tag} class="n">{cell}</{tag}>' if n in numbers else f"<{tag}>{cell}</{tag}>"
            for n, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>\n" for row in rows)
    head = line("th", [escape(text) for text in heads])
    return f'<div class="scroll"><table><tr>{head}</tr>\n{body}</table></div>'


def _svg(box: str, inner: str, label: str) -> str:
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(label)}">{inner}</svg>'


def _axis(y: int) -> str:
    return f'<line class="axis" x1="0" x2="{_COLUMNS}" y1="{y}" y2="{y}"/>'


def _ends(begin: float, last: float, y: int) -> str:
    return (
        f'<text x="0" y="{y}">{escape(when(begin))}</text>'
        f'<text x="{_COLUMNS}" y="{y}" text-anchor="end">{escape(when(last))}</text>'
    )


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).astimezone().strftime("%Y-%m-%d")


def _moment(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).astimezone().strftime("%Y-%m-%d %H:%M %Z")
