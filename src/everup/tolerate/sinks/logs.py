"""Events of policies, to a logger."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from everup.tolerate._base import Event, Policy
from everup.tolerate._clock import SYSTEM, Clock
from everup.tolerate._options import real, whole

LEVELS: Mapping[str, int] = {
    "opened": logging.WARNING,
    "isolated": logging.WARNING,
    "gave_up": logging.WARNING,
    "injected": logging.WARNING,
    "would_open": logging.WARNING,
    "half_open": logging.INFO,
    "closed": logging.INFO,
    "reset": logging.INFO,
    "timed_out": logging.INFO,
    "cut": logging.INFO,
    "fell_back": logging.INFO,
    "drained": logging.INFO,
    "limit_changed": logging.INFO,
    "limited": logging.INFO,
}
"""Of each kind of event; all others: DEBUG."""
_MOST_KEYS = 1000


class _Bucket:
    """How many lines of one kind may still be written."""

    __slots__ = ("at", "left", "unsaid")

    def __init__(self, at: float, left: float) -> None:
        self.at = at
        self.left = left
        self.unsaid = 0


class LogSink:
    """Writes events of ``policies`` to a logger, as they happen.

    ``logger``: default ``logging.getLogger("everup.tolerate")``. ``levels``: by kind of event,
    instead of those in ``LEVELS``; None: not at all. A record's ``event`` is the event itself.

    Bounded: of each kind of each policy ``burst`` lines (1 or more, default 10) at once and
    ``per_s`` a second (above 0, default 1) on the whole; the next one that is written says how many
    were not. Two threads at once may write one more. Raises ``ValueError`` for options out of
    range.
    """

    def __init__(
        self,
        *policies: Policy,
        logger: logging.Logger | None = None,
        levels: Mapping[str, int | None] | None = None,
        per_s: float = 1.0,
        burst: int = 10,
        clock: Clock | None = None,
    ) -> None:
        self._logger = logging.getLogger("everup.tolerate") if logger is None else logger
        self._levels: dict[str, int | None] = {**LEVELS, **(levels or {})}
        self._per_s = real("per_s", per_s, above=True)
        self._burst = whole("burst", burst)
        self._now = (SYSTEM if clock is None else clock).now
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._ends: list[Callable[[], None]] = [p.subscribe(self._hear) for p in policies]

    def close(self) -> None:
        """Write no more."""
        while self._ends:
            self._ends.pop()()

    def _hear(self, event: Event) -> None:
        level = self._levels.get(event.kind, logging.DEBUG)
        if level is None or not self._logger.isEnabledFor(level):
            return
        unsaid = self._take((event.policy, event.kind))
        if unsaid is None:
            return
        text = " ".join(f"{name}={_plain(value)}" for name, value in event.detail.items())
        more = f" ({unsaid} more like it were not written)" if unsaid else ""
        self._logger.log(
            level, "%s: %s %s%s", event.policy, event.kind, text, more, extra={"event": event}
        )

    def _take(self, key: tuple[str, str]) -> int | None:
        """How many before this one were not written; None: nor is this one."""
        now, buckets = self._now(), self._buckets
        bucket = buckets.get(key)
        if bucket is None:
            if len(buckets) >= _MOST_KEYS:  # names made up at run time: they start anew
                buckets.clear()
            bucket = buckets[key] = _Bucket(now, self._burst)
        bucket.left = min(self._burst, bucket.left + (now - bucket.at) * self._per_s)
        bucket.at = now
        if bucket.left < 1:
            bucket.unsaid += 1
            return None
        bucket.left -= 1
        unsaid, bucket.unsaid = bucket.unsaid, 0
        return unsaid


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, BaseException):
        return repr(value)[:200]
    return str(getattr(value, "value", value))[:200]
