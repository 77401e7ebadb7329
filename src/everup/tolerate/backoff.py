"""How long to wait before the next attempt. Pure: chance comes from the caller.

The jitters are those of Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog,
March 2015. With many clients at one contended place, full jitter makes the fewest calls; without
any jitter they come back together, again and again.
"""

from collections.abc import Callable
from typing import Any

from everup.tolerate._functions import name_of, plain
from everup.tolerate._options import Seconds, as_seconds, real, seconds

Backoff = Callable[[int, float, Callable[[], float]], float]
"""Seconds to wait, given: how many attempts have failed so far (1, 2, ...), the wait before this
one (0.0: there was none), and a source of random numbers in [0, 1)."""


def constant(delay_s: Seconds = 1.0) -> Backoff:
    """Always ``delay_s`` seconds; 0 or more. Raises ``ValueError``."""
    each_s = float(seconds("delay_s", delay_s))

    def backoff(failed: int, previous_s: float, random: Callable[[], float]) -> float:
        return each_s

    return _named(backoff, "constant", each_s)


def exponential(base_s: Seconds = 0.1, cap_s: Seconds = 10.0, factor: float = 2.0) -> Backoff:
    """``base_s``, then ``factor`` times as long each time, never more than ``cap_s``; no jitter.

    ``base_s``: seconds, 0 or more. ``cap_s``: seconds, ``base_s`` or more. ``factor``: 1 or more.
    Raises ``ValueError``.
    """
    base = seconds("base_s", base_s)
    cap = seconds("cap_s", cap_s, base)
    real("factor", factor, 1.0)

    def backoff(failed: int, previous_s: float, random: Callable[[], float]) -> float:
        try:
            delay_s = base * factor ** (failed - 1)
        except OverflowError:  # after a thousand attempts, of a retry without a limit
            return cap if base else 0.0
        return delay_s if delay_s < cap else cap

    return _named(backoff, "exponential", base, cap, factor)


def full(base_s: Seconds = 0.1, cap_s: Seconds = 10.0, factor: float = 2.0) -> Backoff:
    """Anything between 0 and what ``exponential`` of the same options gives (Brooker's "full
    jitter"). Raises ``ValueError``."""
    longest = exponential(base_s, cap_s, factor)

    def backoff(failed: int, previous_s: float, random: Callable[[], float]) -> float:
        return longest(failed, previous_s, random) * random()

    return _named(backoff, "full", base_s, cap_s, factor)


def equal(base_s: Seconds = 0.1, cap_s: Seconds = 10.0, factor: float = 2.0) -> Backoff:
    """Half of what ``exponential`` of the same options gives, and anything up to the other half
    (Brooker's "equal jitter"): never a very short wait. Raises ``ValueError``."""
    longest = exponential(base_s, cap_s, factor)

    def backoff(failed: int, previous_s: float, random: Callable[[], float]) -> float:
        half_s = longest(failed, previous_s, random) / 2
        return half_s + half_s * random()

    return _named(backoff, "equal", base_s, cap_s, factor)


def decorrelated(base_s: Seconds = 0.1, cap_s: Seconds = 10.0, factor: float = 3.0) -> Backoff:
    """Anything between ``base_s`` and ``factor`` times the wait before, never more than ``cap_s``
    (Brooker's "decorrelated jitter", whose factor is 3).

    ``base_s``: seconds, 0 or more. ``cap_s``: seconds, ``base_s`` or more. ``factor``: 1 or more.
    Raises ``ValueError``.
    """
    base = seconds("base_s", base_s)
    cap = seconds("cap_s", cap_s, base)
    real("factor", factor, 1.0)

    def backoff(failed: int, previous_s: float, random: Callable[[], float]) -> float:
        most_s = factor * (previous_s if previous_s > base else base)
        delay_s = base + (most_s - base) * random()
        return delay_s if delay_s < cap else cap

    return _named(backoff, "decorrelated", base, cap, factor)


def linear(step_s: Seconds = 1.0, cap_s: Seconds = 10.0) -> Backoff:
    """``step_s``, then ``step_s`` longer each time, never more than ``cap_s``; no jitter.

    ``step_s``: seconds, 0 or more. ``cap_s``: seconds, ``step_s`` or more. Raises ``ValueError``.
    """
    step = seconds("step_s", step_s)
    cap = seconds("cap_s", cap_s, step)

    def backoff(failed: int, previous_s: float, random: Callable[[], float]) -> float:
        delay_s = step * failed
        return delay_s if delay_s < cap else cap

    return _named(backoff, "linear", step, cap)


def steps(*delays_s: Seconds) -> Backoff:
    """Each of these in turn, the last for ever; 0 or more, one at least. Raises ``ValueError``."""
    each_s = tuple(seconds("delays_s", delay_s) for delay_s in delays_s)
    if not each_s:
        raise ValueError("delays_s: give one at least")
    last = len(each_s) - 1

    def backoff(failed: int, previous_s: float, random: Callable[[], float]) -> float:
        return each_s[failed - 1 if failed <= last else last]

    return _named(backoff, "steps", *each_s)


def added(inner: Backoff, jitter_s: Seconds = 1.0) -> Backoff:
    """What ``inner`` gives, and anything up to ``jitter_s`` on top: ``added(exponential())`` is
    what tenacity calls ``wait_exponential_jitter``. ``jitter_s``: seconds, 0 or more. Raises
    ``ValueError``, and ``TypeError`` where ``inner`` is no function."""
    if inner is None:
        raise TypeError("inner must be a function, not None")
    plain("inner", inner)
    most_s = seconds("jitter_s", jitter_s)

    def backoff(failed: int, previous_s: float, random: Callable[[], float]) -> float:
        return inner(failed, previous_s, random) + most_s * random()

    backoff.__qualname__ = f"added({name_of(inner)}, {most_s:g})"
    return backoff


def _named(backoff: Any, name: str, *options: Seconds) -> Backoff:
    """With a name that says what it is, where a policy shows its options."""
    words = ", ".join(f"{as_seconds(option):g}" for option in options)
    backoff.__qualname__ = f"{name}({words})"
    return backoff  # type: ignore[no-any-return]
