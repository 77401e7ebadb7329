"""Fault trees: which combinations of events bring the top event about, and how probable it is.

A tree is made of :class:`Basic` events under :class:`And`, :class:`Or` and :class:`Vote` gates. A
basic event whose name occurs more than once is one event; a gate object used more than once is one
gate. The top probability is exact (binary decision diagram), not a sum over cut sets. With
:class:`Not` the tree is no longer coherent: its probability is exact too, but minimal cut sets do
not describe it (prime implicants would), so those are refused.

Assumption throughout: basic events are independent of each other. A common cause is drawn as a
basic event of its own.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from everup.reliability._bdd import (
    Formula,
    Structure,
    Zdd,
    compile_formula,
    minimal_solutions,
    reachable,
)


@dataclass(frozen=True, slots=True)
class Basic:
    """A basic event: a probability, or rates per second of failure and repair.

    ``probability``: 0 to 1. With rates and repair the long run, ``lambda / (lambda + mu)``, or at a
    time t, ``lambda / (lambda + mu) (1 - exp(-(lambda + mu) t))``; without repair only at a time,
    ``1 - exp(-lambda t)``. Raises ``ValueError``.
    """

    name: str
    probability: float | None = None
    failure_rate_per_s: float | None = None
    repair_rate_per_s: float | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("name '': a basic event needs a name")
        if (self.probability is None) == (self.failure_rate_per_s is None):
            raise ValueError(f"event {self.name}: give either probability or failure_rate_per_s")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ValueError(f"probability {self.probability} of {self.name}: between 0 and 1")
        if self.probability is not None and self.repair_rate_per_s is not None:
            raise ValueError(f"event {self.name}: repair_rate_per_s goes with failure_rate_per_s")
        for field in ("failure_rate_per_s", "repair_rate_per_s"):
            value = getattr(self, field)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{field} {value} of {self.name}: finite and above 0, per second")

    def at(self, time_s: float | None) -> tuple[float, float]:
        """(Probability, its complement) in the long run, or at ``time_s`` from all well."""
        if self.probability is not None:
            return self.probability, 1 - self.probability
        failure, repair = self.failure_rate_per_s, self.repair_rate_per_s
        assert failure is not None
        if repair is None:
            if time_s is None:
                raise ValueError(f"event {self.name} is never repaired: time_s is needed")
            return -math.expm1(-failure * time_s), math.exp(-failure * time_s)
        both = failure + repair
        if time_s is None:
            return failure / both, repair / both
        gone = -math.expm1(-both * time_s)
        return failure / both * gone, (repair + failure * math.exp(-both * time_s)) / both


@dataclass(frozen=True, slots=True, init=False)
class And:
    """Occurs where all of its inputs do."""

    inputs: "tuple[Event, ...]"

    def __init__(self, *inputs: "Event") -> None:
        object.__setattr__(self, "inputs", _checked("And", inputs))


@dataclass(frozen=True, slots=True, init=False)
class Or:
    """Occurs where at least one of its inputs does."""

    inputs: "tuple[Event, ...]"

    def __init__(self, *inputs: "Event") -> None:
        object.__setattr__(self, "inputs", _checked("Or", inputs))


@dataclass(frozen=True, slots=True, init=False)
class Vote:
    """Occurs where at least ``k`` of its inputs do; 1 to the number of inputs."""

    k: int
    inputs: "tuple[Event, ...]"

    def __init__(self, k: int, *inputs: "Event") -> None:
        object.__setattr__(self, "k", k)
        object.__setattr__(self, "inputs", _checked("Vote", inputs))
        if not 1 <= k <= len(inputs):
            raise ValueError(f"k {k}: between 1 and the number of inputs, {len(inputs)}")


@dataclass(frozen=True, slots=True)
class Not:
    """Occurs where its input does not. Makes the tree non-coherent: see the module's text."""

    input: "Event"


Event: TypeAlias = Basic | And | Or | Vote | Not


class CutSets(NamedTuple):
    """Minimal cut sets: each brings the top event about, none does without all of its events."""

    sets: tuple[frozenset[str], ...]
    """By order (size), within it most probable first where probabilities were given."""
    total: int
    """How many there are, counted exactly, listed or not."""
    by_order: dict[int, int]
    """How many of each order, of all."""
    truncated: str
    """Empty where all are listed, else a sentence that says which are not."""


class Quantified(NamedTuple):
    """The top event in numbers."""

    probability: float
    """Exact for independent basic events."""
    complement: float
    """1 - probability with its own digits."""
    frequency_per_s: float | None
    """Occurrences of the top event per second in the long run; None where a basic event that
    matters has no rates, at a time, or with Not."""
    rare_event: float | None
    """Sum of the probabilities of all minimal cut sets: an upper bound, above 1 where events are
    not rare; None with Not."""
    min_cut_upper_bound: float | None
    """``1 - prod (1 - P(C))``: an upper bound for coherent trees; None with Not or where
    ``cut_sets`` is truncated."""
    cut_sets: CutSets | None


def top_probability(top: Event, time_s: float | None = None) -> float:
    """Exact probability of the top event: in the long run, or at ``time_s`` from all well.

    One pass over the binary decision diagram: ``P = q P(event) + (1 - q) P(no event)`` at each
    node (Rauzy, New algorithms for fault trees analysis, Reliability Engineering and System Safety
    40 (1993)). Also for non-coherent trees. Lies where events are dependent. Raises
    ``ValueError``, of it ``StructureTooLargeError``.
    """
    structure, events = compiled(top)
    return float(structure.pair(*inputs(events, time_s))[0])


def minimal_cut_sets(
    top: Event, max_order: int | None = None, limit: int = 100_000, time_s: float | None = None
) -> CutSets:
    """All minimal cut sets of a coherent tree, or those of lowest order up to ``limit`` of them.

    Sound and complete (Rauzy 1993, minimal solutions of the decision diagram, as a zero-suppressed
    diagram): counted without listing, so that ``total`` is exact however many there are.
    ``max_order`` and ``limit`` (>= 1) bound the list only. Raises ``ValueError`` for a tree with
    Not.
    """
    structure, events = compiled(top)
    return _cut_sets(structure, events, max_order, limit, time_s)[0]


def quantify(
    top: Event,
    time_s: float | None = None,
    max_order: int | None = None,
    limit: int = 100_000,
) -> Quantified:
    """Exact top probability and frequency, cut sets, and the two usual approximations beside.

    ``time_s`` as for :func:`top_probability`; frequency ``sum_i B_i (1 - q_i) lambda_i``, in the
    long run only. The rare-event sum runs over all cut sets, listed or not. Source of the
    approximations: NUREG-0492, Fault Tree Handbook; they err upwards, the more the less rare the
    events.
    """
    structure, events = compiled(top)
    down, up = inputs(events, time_s)
    probability, complement = structure.pair(down, up)
    if not structure.coherent:
        return Quantified(probability, complement, None, None, None, None)
    found, rare = _cut_sets(structure, events, max_order, limit, time_s)
    bound = None
    if not found.truncated:
        logs = 0.0
        for cut in found.sets:
            one = math.prod(down[name] for name in cut)
            logs += math.log1p(-one) if one < 1 else -math.inf
        bound = -math.expm1(logs)
    frequency = _frequency(structure, events, down, up) if time_s is None else None
    return Quantified(probability, complement, frequency, rare, bound, found)


def compiled(top: Event) -> tuple[Structure, dict[str, Basic]]:
    """The decision diagram of the top event and the basic events by name. For the other modules
    of this package."""
    formula, events = Formula(), dict[str, Basic]()
    formula.top = _add(formula, events, top, {})
    return compile_formula(formula), events


def inputs(
    events: dict[str, Basic], time_s: float | None
) -> tuple[dict[str, float], dict[str, float]]:
    if time_s is not None and not 0 <= time_s < math.inf:
        raise ValueError(f"time_s {time_s}: finite and not negative")
    pairs = {name: event.at(time_s) for name, event in events.items()}
    return {n: pair[0] for n, pair in pairs.items()}, {n: pair[1] for n, pair in pairs.items()}


def _add(formula: Formula, events: dict[str, Basic], event: Event, seen: dict[int, int]) -> int:
    at = seen.get(id(event))
    if at is not None:
        return at
    if isinstance(event, Basic):
        if events.setdefault(event.name, event) != event:
            raise ValueError(f"event {event.name}: occurs twice with different numbers")
        at = formula.event(event.name)
    elif isinstance(event, Not):
        at = formula.negate(_add(formula, events, event.input, seen))
    else:
        parts = [_add(formula, events, part, seen) for part in event.inputs]
        all_needed = len(parts) if isinstance(event, And) else 1
        needed = event.k if isinstance(event, Vote) else all_needed
        at = formula.vote(needed, parts)
    seen[id(event)] = at
    return at


def _frequency(
    structure: Structure, events: dict[str, Basic], down: dict[str, float], up: dict[str, float]
) -> float | None:
    total = 0.0
    for name, slope in structure.slopes(down, up).items():
        event = events[name]
        if slope and (event.failure_rate_per_s is None or event.repair_rate_per_s is None):
            return None
        total += slope * up[name] * (event.failure_rate_per_s or 0.0)
    return total


def _cut_sets(
    structure: Structure,
    events: dict[str, Basic],
    max_order: int | None,
    limit: int,
    time_s: float | None,
) -> tuple[CutSets, float | None]:
    """The list, and the sum of the probabilities of all where they can be told."""
    if not structure.coherent:
        raise ValueError(
            "tree with Not: it is not coherent and has prime implicants, which are not computed;"
            " its top probability is exact nevertheless"
        )
    for name, value in (("max_order", max_order), ("limit", limit)):
        if value is not None and value < 1:
            raise ValueError(f"{name} {value}: at least 1")
    family, root = minimal_solutions(structure)
    counts = _counted(family, root)
    by_order = {order: count for order, count in enumerate(counts[root]) if count}
    total = sum(by_order.values())
    whole, listed = 0, 0
    for order, count in by_order.items():
        if listed + count > limit or (max_order is not None and order > max_order):
            break
        whole, listed = order, listed + count
    chosen = _listed(family, root, counts, whole, None)
    following = next((order for order in by_order if order > whole), None)
    if following is not None and listed < limit and (max_order is None or following <= max_order):
        chosen += _listed(family, root, counts, following, limit - listed, only=following)
    names = structure.order
    try:
        down, _ = inputs(events, time_s)
    except ValueError:
        # Cut sets are a matter of structure: they are listed without rates or a time as well.
        down = {}
    rare = _sum(family, root, [down[name] for name in names]) if down else None

    def weight(cut: tuple[int, ...]) -> tuple[int, float]:
        return len(cut), -math.prod(down[names[at]] for at in cut) if down else 0.0

    chosen.sort(key=weight)
    sets = tuple(frozenset(names[at] for at in cut) for cut in chosen)
    left = "" if len(sets) == total else _left(sets, total, max_order, limit)
    return CutSets(sets, total, by_order, left), rare


def _left(sets: tuple[frozenset[str], ...], total: int, max_order: int | None, limit: int) -> str:
    why = f"limit {limit}" if len(sets) == limit else f"max_order {max_order}"
    return f"{len(sets)} of {total} minimal cut sets are listed, lowest orders first ({why})"


def _counted(family: Zdd, root: int) -> dict[int, list[int]]:
    """For every node, how many sets of each order lie below it."""
    counts: dict[int, list[int]] = {0: [], 1: [1]}
    for node in reachable(family, root):
        high, low = counts[family.high[node]], counts[family.low[node]]
        merged = [0] * max(len(high) + 1, len(low))
        for order, count in enumerate(high):
            merged[order + 1] += count
        for order, count in enumerate(low):
            merged[order] += count
        counts[node] = merged
    return counts


def _sum(family: Zdd, root: int, down: list[float]) -> float:
    value = {0: 0.0, 1: 1.0}
    for node in reachable(family, root):
        value[node] = down[family.level[node]] * value[family.high[node]] + value[family.low[node]]
    return value[root]


def _listed(
    family: Zdd,
    root: int,
    counts: dict[int, list[int]],
    most: int,
    limit: int | None,
    only: int | None = None,
) -> list[tuple[int, ...]]:
    """Sets of order up to ``most``, or of order ``only``, at most ``limit`` of them."""
    least = {node: next((o for o, n in enumerate(c) if n), math.inf) for node, c in counts.items()}

    def fits(node: int, taken: int) -> bool:
        if only is None:
            return taken + least[node] <= most
        return only - taken < len(counts[node]) and counts[node][only - taken] > 0

    found: list[tuple[int, ...]] = []
    stack: list[tuple[int, tuple[int, ...]]] = [(root, ())]
    while stack and (limit is None or len(found) < limit):
        node, taken = stack.pop()
        while node > 1:
            low, high = family.low[node], family.high[node]
            if fits(low, len(taken)):
                stack.append((low, taken))
            taken = (*taken, family.level[node])
            node = high if fits(high, len(taken)) else 0
        if node == 1:
            found.append(taken)
    return found


def _checked(kind: str, events: "tuple[Event, ...]") -> "tuple[Event, ...]":
    if not events:
        raise ValueError(f"inputs of {kind}: at least one is needed")
    for event in events:
        if not isinstance(event, (Basic, And, Or, Vote, Not)):
            raise ValueError(f"input {event!r} of {kind}: a Basic, And, Or, Vote or Not")
    return events
