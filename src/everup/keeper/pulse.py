"""Whether the engine still lives: it says so every few seconds, once it can."""

_TICKS = 15
_LATE_S = 0.5


class Pulse:
    """Counts quiet ticks. A tick that comes late is a sign of a starved machine, or of a keeper
    that was stopped itself: then the engine is not to blame and counting starts again."""

    def __init__(self, hung_s: float) -> None:
        self._tick_s = max(hung_s, 0.1) / _TICKS
        self._due: float | None = None
        self._quiet = 0

    def stop(self) -> None:
        """There is no engine, or one that has yet to say that it is alive."""
        self._due = None

    def heard(self, now: float, *, alive: bool) -> None:
        """The engine said something; ``alive``: just that, which it will go on to do."""
        self._quiet = 0
        if alive and self._due is None:
            self._due = now + self._tick_s

    def wait_s(self, now: float) -> float | None:
        """Seconds until the next tick; None while nothing is expected."""
        return None if self._due is None else max(0.0, self._due - now)

    def hung(self, now: float) -> bool:
        """To be asked when the tick is due."""
        if self._due is None or now < self._due:
            return False
        late = now - self._due > max(self._tick_s, _LATE_S)
        self._due = now + self._tick_s
        self._quiet = 0 if late else self._quiet + 1
        return self._quiet > _TICKS
