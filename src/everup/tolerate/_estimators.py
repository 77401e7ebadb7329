"""How many calls at once a dependency takes, estimated from their latency. Pure: a state and a
sample give the next state; ``Limit`` keeps the state.

All three keep two rules. The limit stays within ``min`` and ``max`` whatever is seen. And it does
not grow while fewer calls are under way than half of it: such calls show nothing of what more of
them would do.
"""

from math import ceil, log10
from typing import NamedTuple, Protocol, TypeVar

from everup.tolerate._options import Seconds, Spec, real, seconds, whole


class Sample(NamedTuple):
    """What one window of calls showed."""

    latency_s: float | None
    """Mean latency of the calls that succeeded, seconds; None: none did."""
    under_way: int
    """The most calls that were under way at once, each counted as it began."""
    dropped: bool
    """Whether a call failed in a way that speaks of overload."""
    chance: float = 0.5
    """A random number in [0, 1)."""


class _State(Protocol):
    @property
    def limit(self) -> float: ...


S = TypeVar("S", bound=_State)


class Estimator(Protocol[S]):
    """What ``Limit`` needs of an algorithm: a state to start from, and the step to the next."""

    def start(self) -> S: ...

    def step(self, state: S, sample: Sample, /) -> S: ...


class AIMDState(NamedTuple):
    """State of ``AIMD``."""

    limit: float


class AIMD(Spec):
    """One more for each window without a drop, a share less for each with one: Chiu and Jain,
    "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance" (1989).

    It learns only from drops, so the limit swings around what the dependency takes.

    ``initial`` 20, ``min`` 20, ``max`` 200: calls at once; 1 <= min <= initial <= max.
    ``backoff``: what is left of the limit after a drop, [0.5, 1), default 0.9; at least one call
    goes. ``timeout_s``: a mean latency above it is a drop, too, seconds > 0, default 5.
    """

    __slots__ = ("backoff", "initial", "max", "min", "timeout_s")

    def __init__(
        self,
        initial: int = 20,
        min: int = 20,
        max: int = 200,
        backoff: float = 0.9,
        timeout_s: Seconds = 5.0,
    ) -> None:
        _range(initial, min, max)
        self.initial, self.min, self.max = initial, min, max
        self.backoff = real("backoff", backoff, 0.5, 1, below=True)
        self.timeout_s = seconds("timeout_s", timeout_s, above=True)

    def start(self) -> AIMDState:
        """The state before the first sample."""
        return AIMDState(float(self.initial))

    def step(self, state: AIMDState, sample: Sample, /) -> AIMDState:
        """The state after one more sample."""
        limit, latency = state.limit, sample.latency_s
        if sample.dropped or (latency is not None and latency > self.timeout_s):
            less = min(limit - 1, limit * self.backoff)
            return AIMDState(max(float(self.min), less))
        if latency is None or sample.under_way * 2 < limit:
            return state
        return AIMDState(min(float(self.max), limit + 1))


class GradientState(NamedTuple):
    """State of ``Gradient2``."""

    limit: float
    long_s: float
    """Average latency over the long window, seconds."""
    samples: int
    """How many samples there were, as far as the warm-up counts them."""


class Gradient2(Spec):
    """Compares the latency now with its long-term average: Netflix concurrency-limits,
    ``Gradient2Limit``.

    The gradient is tolerance x long / now, held in [0.5, 1]; the limit moves by the share
    ``smoothing`` towards gradient x limit, plus ``queue`` where the gradient is 1. The last
    condition is not in Netflix' code, where the queue is added always, so that the limit grows
    under a gradient near 0.8 (Netflix/concurrency-limits#134). A drop counts as gradient 0.5.

    Under an overload that lasts, the long average creeps up to the latency of the overload, and
    the limit after it, as far as ``max``: choose as ``max`` what the dependency survives.

    ``initial`` 20, ``min`` 20, ``max`` 200: calls at once; 1 <= min <= initial <= max.
    ``smoothing``: (0, 1], default 0.2. ``long_window``: samples of the long average, >= 1, default
    600. ``tolerance``: how many times the average is no overload yet, >= 1, default 1.5.
    ``queue``: calls that may wait in the dependency, which is how the limit grows, > 0, default 4.
    """

    __slots__ = ("initial", "long_window", "max", "min", "queue", "smoothing", "tolerance")
    _WARM_UP = 10

    def __init__(
        self,
        initial: int = 20,
        min: int = 20,
        max: int = 200,
        smoothing: float = 0.2,
        long_window: int = 600,
        tolerance: float = 1.5,
        queue: float = 4,
    ) -> None:
        _range(initial, min, max)
        self.initial, self.min, self.max = initial, min, max
        self.smoothing = real("smoothing", smoothing, 0, 1, above=True)
        self.long_window = whole("long_window", long_window)
        self.tolerance = real("tolerance", tolerance, 1)
        self.queue = real("queue", queue, above=True)

    def start(self) -> GradientState:
        """The state before the first sample."""
        return GradientState(float(self.initial), 0.0, 0)

    def step(self, state: GradientState, sample: Sample, /) -> GradientState:
        """The state after one more sample."""
        limit, long_s, samples = state
        gradient = 1.0
        latency = sample.latency_s
        if latency is not None:
            samples = min(samples + 1, self._WARM_UP + 1)
            # The mean of the first few, then exponential: one odd first sample must not stand
            # for hundreds of windows.
            warm = samples > self._WARM_UP
            long_s += (latency - long_s) * (2 / (self.long_window + 1) if warm else 1 / samples)
            if latency > 0:
                gradient = max(0.5, min(1.0, self.tolerance * long_s / latency))
            if long_s > 2 * latency:
                long_s *= 0.95  # back to normal after a long overload: forget that faster
        if sample.dropped:
            gradient = 0.5
        elif latency is None or sample.under_way * 2 < limit:
            return GradientState(limit, long_s, samples)
        target = limit * gradient + (self.queue if gradient == 1.0 else 0.0)
        limit += (target - limit) * self.smoothing
        return GradientState(min(float(self.max), max(float(self.min), limit)), long_s, samples)


class VegasState(NamedTuple):
    """State of ``Vegas``."""

    limit: float
    least_s: float | None
    """Latency without load, seconds; None: not known yet."""
    left: int
    """Samples until the latency without load is taken anew."""


class Vegas(Spec):
    """Estimates how many calls queue in the dependency, limit x (1 - least / latency), and keeps
    them between ``alpha`` and ``beta``: TCP Vegas (Brakmo and Peterson, 1995) as in Netflix
    concurrency-limits, ``VegasLimit``.

    Both are multiples of log10(limit), rounded down, at least 1. Up to one such unit in the queue
    the limit grows by ``beta`` units, below ``alpha`` by one, above ``beta`` it shrinks by one, as
    for a drop. The latency without load is taken anew after ``probe`` x limit samples or up to
    half of that, by chance, so that many clients do not do it together; taken under load, it is
    too high, and the limit grows for a time: choose as ``max`` what the dependency survives.

    ``initial`` 20, ``min`` 1, ``max`` 1000: calls at once; 1 <= min <= initial <= max. ``alpha`` 3
    and ``beta`` 6: 1 <= alpha <= beta. ``smoothing``: (0, 1], default 1. ``probe``: >= 1,
    default 30.
    """

    __slots__ = ("alpha", "beta", "initial", "max", "min", "probe", "smoothing")

    def __init__(
        self,
        initial: int = 20,
        min: int = 1,
        max: int = 1000,
        alpha: float = 3,
        beta: float = 6,
        smoothing: float = 1.0,
        probe: int = 30,
    ) -> None:
        _range(initial, min, max)
        self.initial, self.min, self.max = initial, min, max
        self.alpha = real("alpha", alpha, 1)
        self.beta = real("beta", beta, 1)
        if beta < alpha:
            raise ValueError(f"beta must be alpha ({alpha!r}) or more, not {beta!r}")
        self.smoothing = real("smoothing", smoothing, 0, 1, above=True)
        self.probe = whole("probe", probe)

    def start(self) -> VegasState:
        """The state before the first sample."""
        return VegasState(float(self.initial), None, 0)

    def step(self, state: VegasState, sample: Sample, /) -> VegasState:
        """The state after one more sample."""
        limit, least_s, left = state
        unit = max(1, int(log10(limit)))
        latency = sample.latency_s
        if sample.dropped:
            return self._moved(state, -unit)
        if latency is None or latency <= 0:
            return state
        left -= 1
        if least_s is None or left <= 0:
            left = int((0.5 + sample.chance / 2) * self.probe * limit)
            return VegasState(limit, latency, left)
        state = VegasState(limit, min(latency, least_s), left)
        if latency < least_s or sample.under_way * 2 < limit:
            return state
        queue = ceil(limit * (1 - least_s / latency))
        if queue <= unit:
            return self._moved(state, self.beta * unit)
        if queue < self.alpha * unit:
            return self._moved(state, unit)
        if queue > self.beta * unit:
            return self._moved(state, -unit)
        return state

    def _moved(self, state: VegasState, change: float) -> VegasState:
        limit = state.limit + change * self.smoothing
        limit = min(float(self.max), max(float(self.min), limit))
        return VegasState(limit, state.least_s, state.left)


def _range(initial: int, least: int, most: int) -> None:
    whole("initial", initial)
    whole("min", least)
    whole("max", most)
    if not least <= initial <= most:
        raise ValueError(f"initial must be from min ({least}) to max ({most}), not {initial!r}")
