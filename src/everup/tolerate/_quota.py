"""So many places in so much time, and when the next one is free: two ways to count, both pure."""

from array import array
from math import inf
from typing import NamedTuple

CLOSE_S = 1e-6  # rounding: who waits for ``retry_after_s`` and not a bit more is admitted
MOST = 1_000_000  # places of a sliding window: 8 bytes each


class Place(NamedTuple):
    """A place booked in the future."""

    at: float
    before: float  # what undoes the booking
    after: float  # what the bucket shows while this is the last one


class Tokens:
    """A token bucket in one number, when the next call may go: the generic cell rate algorithm
    (ITU-T I.371, annex A) with ``next_at`` = theoretical arrival time - tolerance."""

    __slots__ = ("burst", "every_s", "next_at", "slack_s")

    def __init__(self, every_s: float, burst: int) -> None:
        self.next_at = -inf
        self.every_s = every_s
        self.burst = burst
        self.slack_s = (burst - 1) * every_s

    def set(self, every_s: float, burst: int, now: float) -> None:
        """Another rate from now on. As many calls as could go before may go now, or must wait."""
        if self.next_at > -inf:
            ahead = (self.next_at - now) / self.every_s
            self.next_at = now + max(ahead, 1 - burst) * every_s
        self.every_s = every_s
        self.burst = burst
        self.slack_s = (burst - 1) * every_s

    def take(self, now: float, weight: int = 1) -> float | None:
        """Take so many places now; None: taken, else when they are free."""
        early = now - self.slack_s
        next_at = self.next_at if self.next_at > early else early
        at = next_at + (weight - 1) * self.every_s
        if at > now + CLOSE_S:
            return at
        self.next_at = next_at + weight * self.every_s
        return None

    def book(self, weight: int = 1) -> Place:
        """Take the next places, which are in the future."""
        before = self.next_at
        self.next_at = after = before + weight * self.every_s
        return Place(after - self.every_s, before, after)

    def undo(self, place: Place) -> bool:
        """Give a place back: works for the last one alone, those behind it count on it."""
        if self.next_at != place.after:
            return False
        self.next_at = place.before
        return True

    def drain(self, until: float) -> None:
        """No call before then, and one then."""
        self.next_at = max(self.next_at, until)


class Window:
    """A sliding window: the times of the last ``size`` calls, in a ring. Exact: the next call may
    go when the oldest of them leaves the window."""

    __slots__ = ("per_s", "ring", "size", "taken")

    def __init__(self, size: int, per_s: float) -> None:
        self.size = size
        self.per_s = per_s
        self.ring = array("d", [-inf]) * size
        self.taken = 0

    def set(self, size: int, per_s: float) -> None:
        """Another rate from now on. The calls of late count."""
        oldest_first = [self.ring[(self.taken + n) % self.size] for n in range(self.size)]
        # The oldest is at the start of the ring, and no booking made before can be undone.
        self.taken = (self.taken // size + 2) * size
        self.ring = array("d", [-inf] * (size - self.size) + oldest_first[-size:])
        self.size = size
        self.per_s = per_s

    def take(self, now: float, weight: int = 1) -> float | None:
        """Take a place now, whatever its weight; None: taken, else when the next one is free."""
        index = self.taken % self.size
        at = self.ring[index] + self.per_s
        if at > now + CLOSE_S:
            return at
        self.taken += 1  # first: a fork in between costs its child no place
        self.ring[index] = now
        return None

    def book(self, weight: int = 1) -> Place:
        """Take the next place, which is in the future."""
        index = self.taken % self.size
        before = self.ring[index]
        at = before + self.per_s
        self.taken += 1
        self.ring[index] = at
        return Place(at, before, self.taken)

    def undo(self, place: Place) -> bool:
        """Give a place back: works for the last one alone, those behind it count on it."""
        if self.taken != place.after:
            return False
        self.taken -= 1
        self.ring[self.taken % self.size] = place.before
        return True

    def drain(self, until: float) -> None:
        """No call before then."""
        for index, at in enumerate(self.ring):
            self.ring[index] = max(at, until - self.per_s)
