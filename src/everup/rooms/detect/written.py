"""Conditions of what services write: many errors, and errors never seen before."""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from everup.observer.events import Output, Wrote
from everup.rooms.detect.board import Begin, End

WINDOW_S: Final = 10.0
LEAST: Final = 10
"""Fewer errors within ``WINDOW_S`` are no burst."""
TIMES: Final = 5.0
"""So many times the usual is a burst."""
CALM_S: Final = 60.0
NEW_S: Final = 3600.0
_HALF_S: Final = 600.0
"""The usual number of errors follows what is with this half-life."""
_MOST_NEW: Final = 20
"""Active new errors of one instance."""


@dataclass(slots=True)
class _Rate:
    errors: deque[tuple[float, int]] = field(default_factory=deque)
    sum: int = 0
    usual: float = 0.0
    """Errors within ``WINDOW_S``, as it uses to be."""
    at: float = 0.0
    calm_since: float | None = None
    burst: bool = False


class Written:
    """Follows output. ``begin`` and ``end`` take conditions."""

    def __init__(self, begin: Begin, end: End) -> None:
        self._begin, self._end = begin, end
        self._rates: dict[str, _Rate] = {}
        self._new: dict[str, deque[tuple[float, str]]] = {}

    def restore(self, kind: str, subject: str, now: float) -> None:
        """A condition is active already."""
        if kind == "error_burst":
            self._rates[subject] = _Rate(at=now, burst=True, calm_since=now)
        elif kind == "new_error":
            self._new.setdefault(subject, deque()).append((now, subject))

    def take(self, output: Output) -> None:
        """Take what was written; those that wrote nothing are calm."""
        now = output.at
        for name, wrote in output.wrote.items():
            if wrote.errors and name not in self._rates:
                self._rates[name] = _Rate(at=now)
            for text in wrote.new:
                self._is_new(name, text, now)
        for name, rate in list(self._rates.items()):
            self._rate(name, rate, output.wrote.get(name, Wrote(0)), now)
        for name, found in list(self._new.items()):
            if found and now - found[-1][0] >= NEW_S:
                self._end("new_error", name, "an hour without another one")
                del self._new[name]

    def _is_new(self, name: str, text: str, now: float) -> None:
        found = self._new.setdefault(name, deque(maxlen=_MOST_NEW))
        if not found:
            words = f"writes an error that it has never written before: {text}"
            self._begin("new_error", name, words, now, (f"output: {text}",))
        found.append((now, text))

    def _rate(self, name: str, rate: _Rate, wrote: Wrote, now: float) -> None:
        rate.errors.append((now, wrote.errors))
        rate.sum += wrote.errors
        while rate.errors and now - rate.errors[0][0] >= WINDOW_S:
            rate.sum -= rate.errors.popleft()[1]
        passed, rate.at = max(0.0, now - rate.at), now
        if not rate.burst:
            if rate.sum >= LEAST and rate.sum >= TIMES * (rate.usual + 1.0):
                rate.burst, rate.calm_since = True, None
                text = (
                    f"has written {rate.sum} errors within {WINDOW_S:.0f} s, mostly: {wrote.most}"
                )
                usual = f"output: {rate.usual:.1f} in {WINDOW_S:.0f} s are usual"
                self._begin("error_burst", name, text, now, (f"output: {wrote.most}", usual))
                return
            # A minute at the most: after a pause what was usual before still counts.
            rate.usual += (rate.sum - rate.usual) * (1 - 0.5 ** (min(passed, 60.0) / _HALF_S))
            if rate.sum == 0 and rate.usual < 0.01:
                del self._rates[name]
            return
        if rate.sum > max(LEAST / 2, 2.0 * (rate.usual + 1.0)):
            rate.calm_since = None
        elif rate.calm_since is None:
            rate.calm_since = now
        elif now - rate.calm_since >= CALM_S:
            rate.burst = False
            self._end("error_burst", name, f"{CALM_S:.0f} s with no more than usual")
