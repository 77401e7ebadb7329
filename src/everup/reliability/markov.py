"""Continuous-time Markov chains: long run, at a time, and until absorption.

For what block diagrams can't say: shared repair crews, failovers that go wrong, order of events.
A state is left at constant rates: sojourn times are exponential. Where a repair takes a nearly
fixed time that lies for transients, and little for long-run availability.
"""

import math
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

State: TypeAlias = Hashable


@dataclass(frozen=True, slots=True)
class Chain:
    """States and the rates between them, per second.

    ``rates[(a, b)]`` is the rate from ``a`` to ``b``: finite, not negative, ``a != b``. ``states``
    gives the order; left out, it is that of first mention. Solved with dense matrices: meant for
    up to about 1000 states. Raises ``ValueError``.
    """

    rates: Mapping[tuple[State, State], float]
    states: tuple[State, ...] = ()
    _index: dict[State, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.states:
            mentioned = dict.fromkeys(state for pair in self.rates for state in pair)
            object.__setattr__(self, "states", tuple(mentioned))
        object.__setattr__(self, "_index", {state: at for at, state in enumerate(self.states)})
        if not self.states:
            raise ValueError("states: at least one is needed")
        if len(self._index) != len(self.states):
            raise ValueError(f"states {self.states}: one is given twice")
        for (here, there), rate in self.rates.items():
            if here not in self._index or there not in self._index:
                raise ValueError(f"rates: {here!r} -> {there!r} is not between known states")
            if here == there or not 0 <= rate < math.inf:
                raise ValueError(
                    f"rate {rate} of {here!r} -> {there!r}: between two states, finite, not"
                    " negative, per second"
                )

    def index(self, state: State) -> int:
        found = self._index.get(state)
        if found is None:
            raise ValueError(f"state {state!r}: not in the chain; there are {self.states}")
        return found

    def matrix(self) -> Any:
        """Rates off the diagonal as a numpy array; the diagonal is 0."""
        import numpy as np

        rates = np.zeros((len(self.states), len(self.states)))
        for (here, there), rate in self.rates.items():
            rates[self._index[here], self._index[there]] = rate
        return rates


class Transient(NamedTuple):
    """The chain at a time."""

    probability: dict[State, float]
    time_in_s: dict[State, float]
    """Mean time spent in each state from 0 to then; divided by it, interval availability."""
    error: float
    """Bound of what cutting off the Poisson sum adds to any probability; rounding (about 1e-14)
    is not in it."""


class Absorption(NamedTuple):
    """From one state until the chain stops for good."""

    mean_s: float
    probability: dict[State, float]
    """Of ending in each absorbing state."""


def steady_state(chain: Chain) -> dict[State, float]:
    """Long-run probability of each state.

    ``pi Q = 0, sum pi = 1`` by elimination of states after Grassmann, Taksar and Heyman
    (Regenerative analysis and steady state distributions for Markov chains, Operations Research 33
    (1985)): no subtraction, so each probability, however small, has a relative error of a few
    rounding errors (O'Cinneide, Numerische Mathematik 65 (1993)). States that are left for ever
    get 0. Raises ``ValueError`` where the chain falls apart into several closed classes of states:
    then the long run depends on the start, and :func:`absorption` has an answer.
    """
    import numpy as np

    closed = _closed_classes(chain)
    if len(closed) > 1:
        samples = ", ".join(repr(chain.states[at[0]]) for at in closed[:4])
        raise ValueError(
            f"chain: reducible, with {len(closed)} closed classes of states (around {samples});"
            " it has no single long-run distribution"
        )
    keep = closed[0]
    rates = chain.matrix()[np.ix_(keep, keep)]
    count = len(keep)
    for last in range(count - 1, 0, -1):
        out = rates[last, :last].sum()
        rates[:last, last] /= out
        rates[:last, :last] += np.outer(rates[:last, last], rates[last, :last])
    weights = np.ones(count)
    for state in range(1, count):
        weights[state] = weights[:state] @ rates[:state, state]
        if weights[state] > 1e200:
            weights[: state + 1] /= weights[state]
    weights /= weights.sum()
    probability = dict.fromkeys(chain.states, 0.0)
    for at, weight in zip(keep, weights, strict=True):
        probability[chain.states[at]] = float(weight)
    return probability


def transient(
    chain: Chain, start: State | Mapping[State, float], time_s: float, tolerance: float = 1e-14
) -> Transient:
    """State probabilities at ``time_s`` (>= 0) and the mean time in each state until then.

    Uniformization (Jensen 1953): with ``q`` the largest exit rate and ``P = I + Q/q``,
    ``p(t) = sum_k Poisson(k; q t) p P^k``, the weights computed outwards from their largest
    (Fox and Glynn, Computing Poisson Probabilities, CACM 31 (1988)) and cut where what is left out
    is below ``tolerance``. A stiff chain (``q t`` large) is solved over a short step and squared:
    ``P(2h) = P(h)^2``, ``L(2h) = L(h) + P(h) L(h)``. All terms are positive: no cancellation.
    ``start`` is a state or probabilities of states. Raises ``ValueError``.
    """
    import numpy as np

    if not 0 <= time_s < math.inf:
        raise ValueError(f"time_s {time_s}: finite and not negative")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance {tolerance}: between 0 and 1")
    first = _start(chain, start)
    rates = chain.matrix()
    exits = rates.sum(axis=1)
    fastest = float(exits.max(initial=0.0))
    count, jumps = len(chain.states), fastest * time_s
    if jumps == 0:
        then, spent, error = first, first * time_s, 0.0
    elif jumps <= 100 + 30 * count:
        then, spent, error = _uniformized(rates, exits, first[None, :], time_s, tolerance)
        then, spent = then[0], spent[0]
    else:
        halvings = math.ceil(math.log2(jumps))
        step = time_s / 2.0**halvings
        power, total, error = _uniformized(rates, exits, np.eye(count), step, 1e-18)
        for _ in range(halvings):
            total = total + power @ total
            power = power @ power
            # Rounding must not leak probability: a factor per row keeps small entries exact.
            power /= power.sum(axis=1, keepdims=True)
            error *= 2
        total *= time_s / total.sum(axis=1, keepdims=True)
        then, spent = first @ power, first @ total
    return Transient(
        dict(zip(chain.states, then.tolist(), strict=True)),
        dict(zip(chain.states, spent.tolist(), strict=True)),
        float(error),
    )


def absorption(
    chain: Chain,
    start: State,
    targets: Collection[State] = (),
    reward: Mapping[State, float] | None = None,
) -> Absorption:
    """Mean time from ``start`` until a state without exit, or one of ``targets``, is reached.

    MTTF is this with the failed states as targets. Elimination of states without subtraction, as
    in :func:`steady_state`: ``m_i = (c_i + sum_j q_ij m_j) / q_i``. ``reward``: what a second in a
    state counts for, 1 where not given (0 for the down states gives the mean up time). Raises
    ``ValueError`` where a state can be reached from which no target is.
    """
    import numpy as np

    begin = chain.index(start)
    rates = chain.matrix()
    ends = {chain.index(state) for state in targets} or {
        at for at in range(len(chain.states)) if not rates[at].any()
    }
    for at in ends:
        rates[at] = 0.0
    if begin in ends:
        return Absorption(0.0, {chain.states[at]: float(at == begin) for at in sorted(ends)})
    inner = [at for at in _reached(rates, begin) if at not in ends]
    outer = sorted(ends)
    stuck = [at for at in inner if not ends.intersection(_reached(rates, at))]
    if stuck:
        raise ValueError(
            f"state {chain.states[stuck[0]]!r}: can be reached from {start!r} and never leads to"
            " an absorbing state or a target; the mean time is infinite"
        )
    inner.sort(key=lambda at: at != begin)
    moves = rates[np.ix_(inner, inner)]
    finals = rates[np.ix_(inner, outer)]
    worth = reward or {}
    cost = np.array([float(worth.get(chain.states[at], 1.0)) for at in inner])
    for last in range(len(inner) - 1, 0, -1):
        out = moves[last, :last].sum() + finals[last].sum()
        share = moves[:last, last] / out
        moves[:last, :last] += np.outer(share, moves[last, :last])
        finals[:last] += np.outer(share, finals[last])
        cost[:last] += share * cost[last]
    out = finals[0].sum()
    chances = finals[0] / out
    return Absorption(
        float(cost[0] / out),
        {chain.states[at]: float(chance) for at, chance in zip(outer, chances, strict=True)},
    )


def birth_death(up_per_s: Collection[float], down_per_s: Collection[float]) -> Chain:
    """States 0..n: ``up_per_s[i]`` from i to i+1, ``down_per_s[i]`` from i+1 to i."""
    if len(up_per_s) != len(down_per_s):
        raise ValueError(
            f"down_per_s has {len(down_per_s)} rates: as many as up_per_s, {len(up_per_s)}"
        )
    rates: dict[tuple[State, State], float] = {}
    for at, (rise, fall) in enumerate(zip(up_per_s, down_per_s, strict=True)):
        rates[at, at + 1] = rise
        rates[at + 1, at] = fall
    return Chain(rates, tuple(range(len(up_per_s) + 1)))


def _uniformized(
    rates: Any, exits: Any, first: Any, time_s: float, tolerance: float
) -> tuple[Any, Any, float]:
    """Rows of ``first`` carried to ``time_s``, their time in each state, and the bound."""
    import numpy as np

    # A little faster than the fastest exit: P keeps a self loop, so that it is never periodic.
    pace = 1.02 * float(exits.max())
    jump = rates / pace
    jump[np.diag_indices_from(jump)] = 1 - exits / pace
    weights, left, error = _poisson(pace * time_s, tolerance)
    tail = np.append(np.cumsum(weights[::-1])[::-1][1:], 0.0)
    row, then, spent = first.copy(), np.zeros_like(first), np.zeros_like(first)
    for k in range(left + len(weights)):
        if k >= left:
            then += weights[k - left] * row
            spent += tail[k - left] * row
        else:
            spent += row
        row = row @ jump
    return then, spent / pace, error


def _poisson(mean: float, tolerance: float) -> tuple[Any, int, float]:
    """Weights of the Poisson distribution, the count of the first, and what was left out."""
    import numpy as np

    least = tolerance / 100
    mode = int(mean)
    below: list[float] = []
    above = [1.0]
    while mode - len(below) > 0:
        weight = (below[-1] if below else 1.0) * (mode - len(below)) / mean
        if weight < least * 1e-3:
            break
        below.append(weight)
    count = mode
    while above[-1] > least * 1e-3 or count < mean:
        count += 1
        above.append(above[-1] * mean / count)
    weights = np.array([*reversed(below), *above])
    left = mode - len(below)
    rest = above[-1] * (mean / (count + 1)) / (1 - mean / (count + 1))
    if left > 0:
        rest += weights[0] * (left / mean) / (1 - left / mean)
    total = np.sort(weights).sum()
    return weights / total, left, float(rest / total)


def _start(chain: Chain, start: State | Mapping[State, float]) -> Any:
    import numpy as np

    first = np.zeros(len(chain.states))
    if isinstance(start, Mapping):
        for state, probability in start.items():
            if not 0 <= probability <= 1:
                raise ValueError(f"start {probability} of {state!r}: between 0 and 1")
            first[chain.index(state)] = probability
        if abs(first.sum() - 1) > 1e-9:
            raise ValueError(f"start: the probabilities add up to {first.sum()}, not 1")
    else:
        first[chain.index(start)] = 1.0
    return first


def _closed_classes(chain: Chain) -> list[list[int]]:
    """Classes of states that lead to each other and nowhere else."""
    import numpy as np
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    linked = chain.matrix() > 0
    count, labels = connected_components(csr_array(linked), connection="strong")
    leaves = np.zeros(count, dtype=bool)
    here, there = np.nonzero(linked)
    leaves[labels[here[labels[here] != labels[there]]]] = True
    return [np.flatnonzero(labels == label).tolist() for label in np.flatnonzero(~leaves)]


def _reached(rates: Any, begin: int) -> list[int]:
    seen, stack = {begin}, [begin]
    while stack:
        for there in rates[stack.pop()].nonzero()[0].tolist():
            if there not in seen:
                seen.add(there)
                stack.append(there)
    return sorted(seen)
