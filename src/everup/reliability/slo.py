"""Objectives, error budgets, burn rates, and the alerts that go by them.

Source: Beyer et al., The Site Reliability Workbook (O'Reilly 2018), chapter 5, "Alerting on SLOs",
6: multiwindow, multi-burn-rate alerts.
"""

import bisect
import math
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

DAY_S = 86400.0


class Budget(NamedTuple):
    """What an objective allows, and what of it is spent. In events, or in seconds where the
    availability is measured by time."""

    allowed: float
    spent: float

    @property
    def left(self) -> float:
        """Part that is left, 1: all of it; below 0: overspent. 0 where nothing is allowed."""
        return 1 - self.spent / self.allowed if self.allowed > 0 else 0.0


def budget(objective: float, valid: float, bad: float) -> Budget:
    """The error budget: ``allowed = (1 - objective / 100) * valid``.

    ``objective`` in per cent, above 0 and below 100; ``valid`` and ``bad`` events or seconds,
    ``0 <= bad <= valid``. Over a window that is not over yet, ``valid`` is that of the whole
    window, so that the budget does not grow while it is spent. Raises ``ValueError``.
    """
    _check(objective, valid, bad)
    return Budget((1 - objective / 100) * valid, bad)


def burn_rate(objective: float, valid: float, bad: float) -> float:
    """How many times faster than allowed the budget is spent: ``(bad / valid) / (1 - objective)``.

    1 spends it exactly by the end of the window. 0 where nothing was valid: nobody was let down.
    Raises ``ValueError`` as ``budget`` does.
    """
    _check(objective, valid, bad)
    return bad / valid / (1 - objective / 100) if valid else 0.0


def exhausted_in_s(left: float, rate: float, window_s: float) -> float:
    """Seconds until a budget of which the part ``left`` is left is spent, at this burn rate:
    ``left * window / rate``; ``inf`` at rate 0, 0 when nothing is left."""
    if left <= 0:
        return 0.0
    return left * window_s / rate if rate > 0 else math.inf


def _check(objective: float, valid: float, bad: float) -> None:
    if not 0 < objective < 100:
        raise ValueError(f"objective {objective}: per cent, above 0 and below 100")
    if not 0 <= bad <= valid:
        raise ValueError(f"bad {bad}: between 0 and valid, {valid}")


class Urgency(StrEnum):
    """Who is to look at it, and when."""

    PAGE = "page"
    """A person, now."""
    TICKET = "ticket"
    """A person, on a working day."""


class Rule(NamedTuple):
    """Alert while the budget burns faster than ``rate`` over both windows: the long one says that
    it matters, the short one that it goes on."""

    part: float
    """Of the whole budget, spent within ``long_s``, that is worth the alert."""
    long_s: float
    short_s: float
    urgency: Urgency

    def rate(self, window_s: float) -> float:
        """The burn rate that spends ``part`` of the budget of ``window_s`` in ``long_s``."""
        return self.part * window_s / self.long_s


RULES = (
    Rule(0.02, 3600, 300, Urgency.PAGE),
    Rule(0.05, 6 * 3600, 1800, Urgency.PAGE),
    Rule(0.10, DAY_S, 7200, Urgency.TICKET),
    Rule(0.10, 3 * DAY_S, 6 * 3600, Urgency.TICKET),
)
"""Over 30 days: 14.4, 6, 3 and 1 times (the workbook's chapter, section 6)."""


class Burn(NamedTuple):
    """How one rule stands."""

    rule: Rule
    rate: float
    """Burn rate over the long window now."""
    short_rate: float
    threshold: float
    failures: int
    """That touch the long window."""

    @property
    def burning(self) -> bool:
        return self.rate >= self.threshold and self.short_rate >= self.threshold


class Track:
    """When one service was down lately, by the seconds of one monotonic clock.

    Exact to the moment: it keeps the times of the changes, not samples. What lies further back
    than ``keep_s`` (default 3 days) is forgotten, and of more than ``limit`` outages (default
    20 000) the oldest. Time that does not count (stopped on purpose, everup was off) is neither
    up nor down.
    """

    __slots__ = ("_counted", "_down", "_keep_s", "_limit", "_state")

    def __init__(self, keep_s: float = 3 * DAY_S, limit: int = 20_000) -> None:
        self._keep_s = keep_s
        self._limit = limit
        self._down: list[tuple[float, float]] = []
        self._counted: list[tuple[float, float]] = []
        self._state: tuple[float, bool | None] = (-math.inf, None)

    @property
    def up(self) -> bool | None:
        """True: up, False: down, None: does not count."""
        return self._state[1]

    @property
    def since(self) -> float:
        """When that began."""
        return self._state[0]

    def note(self, now: float, up: bool | None) -> None:
        """From ``now`` on it is up, down, or does not count."""
        since, before = self._state
        if up == before:
            return
        self._take(since, now, before)
        self._state = (now, up)
        self._forget(now)

    def restore(self, spans: Iterable[tuple[float, float, bool]]) -> None:
        """What was before the first ``note``: (from, until, up) in order. What overlaps with what
        is known is left out."""
        known = self._counted[0][0] if self._counted else self._state[0]
        if self._state[1] is None and not self._counted:
            known = math.inf
        counted, down = self._counted, self._down
        self._counted, self._down = [], []
        for since, until, up in spans:
            self._take(since, min(until, known), up)
        for since, until in counted:
            _join(self._counted, since, until)
        for since, until in down:
            _join(self._down, since, until)

    def seen(self, now: float, window_s: float) -> tuple[float, float, int]:
        """Seconds that counted in the last ``window_s``, seconds down of them, and outages."""
        since, up = self._state
        start = now - window_s
        counted, _ = _overlap(self._counted, start, now)
        down, outages = _overlap(self._down, start, now)
        if up is not None and now > since:
            counted += now - max(since, start)
            if not up:
                down += now - max(since, start)
                outages += 1
        return counted, min(down, counted), outages

    def _take(self, since: float, until: float, up: bool | None) -> None:
        if up is None or until <= since or since == -math.inf:
            return
        _join(self._counted, since, until)
        if not up:
            _join(self._down, since, until)

    def _forget(self, now: float) -> None:
        for spans in (self._counted, self._down):
            old = bisect.bisect_left(spans, now - self._keep_s, key=lambda span: span[1])
            del spans[: max(old, len(spans) - self._limit)]


def _join(spans: list[tuple[float, float]], since: float, until: float) -> None:
    if spans and spans[-1][1] >= since:
        spans[-1] = (spans[-1][0], max(spans[-1][1], until))
    else:
        spans.append((since, until))


def _overlap(spans: list[tuple[float, float]], start: float, end: float) -> tuple[float, int]:
    first = bisect.bisect_right(spans, start, key=lambda span: span[1])
    seconds = sum(min(until, end) - max(since, start) for since, until in spans[first:])
    return seconds, len(spans) - first


def burns(track: Track, objective: float, window_s: float, now: float) -> list[Burn]:
    """How each rule stands; a rule whose long window is no shorter than the objective's is left
    out. A window that the track does not fill yet counts as if it had been up before: a service
    that starts badly does not spend a month's budget in its first minute."""
    found = []
    for rule in RULES:
        if rule.long_s >= window_s:
            continue
        _, down, outages = track.seen(now, rule.long_s)
        _, short_down, _ = track.seen(now, rule.short_s)
        rate = burn_rate(objective, rule.long_s, min(down, rule.long_s))
        short = burn_rate(objective, rule.short_s, min(short_down, rule.short_s))
        found.append(Burn(rule, rate, short, rule.rate(window_s), outages))
    return found


class Alert(NamedTuple):
    """A rule began or ceased to hold."""

    burn: Burn
    begins: bool


class Alarm:
    """Says when an alert begins and when it is over; pure but for what it remembers.

    ``least``: so many outages must touch the long window, default 2: one outage is an incident
    and told as such; unless it alone has lasted for ``alone_s``, default 5 minutes.
    """

    __slots__ = ("_alone_s", "_least", "_on")

    def __init__(self, least: int = 2, alone_s: float = 300.0) -> None:
        self._least = least
        self._alone_s = alone_s
        self._on: set[Rule] = set()

    @property
    def on(self) -> frozenset[Rule]:
        return frozenset(self._on)

    def resume(self, windows_s: Iterable[float]) -> None:
        """These were on when somebody else had the watch: by their long windows."""
        known = set(windows_s)
        self._on = {rule for rule in RULES if rule.long_s in known}

    def keep(self, rules: Iterable[Rule]) -> list[Rule]:
        """Only these count from now on; returns the others that were on."""
        gone = sorted(self._on - set(rules), key=lambda rule: rule.long_s)
        self._on -= set(gone)
        return gone

    def step(self, burns: Iterable[Burn], down_s: float) -> list[Alert]:
        """``down_s``: how long the outage that goes on now has lasted; 0: none."""
        alerts = []
        for burn in burns:
            enough = burn.failures >= self._least or down_s >= self._alone_s
            if burn.rule not in self._on and burn.burning and enough:
                self._on.add(burn.rule)
                alerts.append(Alert(burn, True))
            elif burn.rule in self._on and not burn.burning:
                self._on.discard(burn.rule)
                alerts.append(Alert(burn, False))
        return alerts
