"""Which unit matters: what to mend first.

All measures are exact, from the decision diagram of the structure, not from a list of cut sets.
``Q`` is the probability that the whole is down, ``q_i`` that unit i is, ``Q(1_i)`` and ``Q(0_i)``
those with unit i certainly down and certainly up; ``Q = q_i Q(1_i) + (1 - q_i) Q(0_i)``.

Assumption: units are independent, as in :mod:`everup.reliability.blocks`. Source of the measures:
Rausand, Barros and Hoyland, System Reliability Theory (3rd ed. 2021), the chapter on component
importance; Vesely et al., Measures of Risk Importance and Their Applications, NUREG/CR-3385.
"""

import math
from typing import Any, NamedTuple

from everup.reliability import blocks, trees
from everup.reliability._bdd import NODE_LIMITS, Bdd, Structure, minimal_solutions, reachable

YEAR_S = 365.25 * 86400
"""A Julian year."""
_CASES_AT_ONCE = 4_000_000
"""Bounds the memory: nodes times units evaluated together."""


class Importance(NamedTuple):
    """Of one unit or basic event."""

    name: str
    birnbaum: float
    """``Q(1_i) - Q(0_i)``: probability that the state of the whole hangs on this unit alone; 0 to
    1 (negative is possible only with Not). Says nothing about how often the unit fails."""
    criticality: float
    """``B_i q_i / Q``: probability that it is down and the whole hangs on it, given that the whole
    is down. The part of the downtime that a perfect unit would save."""
    fussell_vesely: float | None
    """Probability that a minimal cut set with this unit is down, given that the whole is. At least
    criticality; None where not asked for, and with Not."""
    raw: float
    """Risk achievement worth ``Q(1_i) / Q``: how many times worse while it is down; >= 1."""
    rrw: float
    """Risk reduction worth ``Q / Q(0_i)``: how many times better if it never failed; >= 1, inf
    where nothing else brings the whole down."""
    saved_s_per_year: float
    """Downtime of the whole saved if it never failed: ``B_i q_i`` years."""
    saved_by_half_mttr_s_per_year: float
    """Downtime saved if its repair took half the time: ``B_i (q_i - q_i')`` years with
    ``q_i' = q_i / (2 - q_i)``, hence ``q_i - q_i' = q_i (1 - q_i) / (2 - q_i)``."""


def of_block(block: blocks.Block, fussell_vesely: bool = True) -> tuple[Importance, ...]:
    """Importance of every unit of a block diagram in the long run, highest criticality first.

    ``fussell_vesely=False`` spares a decision diagram for each unit: milliseconds mostly, but
    seconds where many units are shared.
    """
    structure, units = blocks.compiled(block)
    return _importance(structure, *blocks.steady_inputs(units), fussell_vesely)


def of_tree(
    top: trees.Event, time_s: float | None = None, fussell_vesely: bool = True
) -> tuple[Importance, ...]:
    """Importance of every basic event of a fault tree, in the long run or at ``time_s``.

    The two savings read the top probability as the part of time that the top event lasts.
    ``fussell_vesely`` as in :func:`of_block`.
    """
    structure, events = trees.compiled(top)
    return _importance(structure, *trees.inputs(events, time_s), fussell_vesely)


def _importance(
    structure: Structure, down: dict[str, float], up: dict[str, float], fussell_vesely: bool
) -> tuple[Importance, ...]:
    total = float(structure.pair(down, up)[0])
    never, surely = _without_and_with(structure, down, up)
    slopes = structure.slopes(down, up)
    with_cut: dict[str, float] = {}
    if fussell_vesely and structure.coherent:
        with_cut = _in_cut_sets(structure, down, up)
    result = []
    for name in down:
        q, p, slope = down[name], up[name], slopes.get(name, 0.0)
        cut = with_cut.get(name, 0.0) / total if total else 0.0
        result.append(
            Importance(
                name=name,
                birnbaum=slope,
                criticality=slope * q / total if total else 0.0,
                fussell_vesely=cut if fussell_vesely and structure.coherent else None,
                raw=_ratio(surely.get(name, total), total),
                rrw=_ratio(total, never.get(name, total)),
                saved_s_per_year=slope * q * YEAR_S,
                saved_by_half_mttr_s_per_year=slope * q * p / (1 + p) * YEAR_S,
            )
        )
    return tuple(sorted(result, key=lambda each: (-each.criticality, each.name)))


def _ratio(above: float, below: float) -> float:
    if below == 0:
        return math.inf if above else 1.0
    return above / below


def _without_and_with(
    structure: Structure, down: dict[str, float], up: dict[str, float]
) -> tuple[dict[str, float], dict[str, float]]:
    """``Q(0_i)`` and ``Q(1_i)`` of every unit, many units in one pass."""
    import numpy as np

    names = structure.order
    never: dict[str, float] = {}
    surely: dict[str, float] = {}
    at_once = max(1, _CASES_AT_ONCE // (len(structure.nodes) + 1))
    for begin in range(0, len(names), at_once):
        chosen = names[begin : begin + at_once]
        for found, is_down in ((never, 0.0), (surely, 1.0)):
            q: dict[str, Any] = dict(down)
            p: dict[str, Any] = dict(up)
            for at, name in enumerate(chosen):
                q[name] = np.full(len(chosen), down[name])
                p[name] = np.full(len(chosen), up[name])
                q[name][at], p[name][at] = is_down, 1 - is_down
            values = structure.pair(q, p)[0] + np.zeros(len(chosen))
            found.update(zip(chosen, values.tolist(), strict=True))
    return never, surely


def _in_cut_sets(
    structure: Structure, down: dict[str, float], up: dict[str, float]
) -> dict[str, float]:
    """For each unit the probability that all of some minimal cut set with it is down."""
    family, root = minimal_solutions(structure)
    bdd = Bdd(NODE_LIMITS[-1])
    as_function = {0: 0, 1: 1}
    nodes = reachable(family, root)
    for node in nodes:
        high, low = as_function[family.high[node]], as_function[family.low[node]]
        as_function[node] = bdd.node(family.level[node], bdd.either(high, low), low)
    result: dict[str, float] = {}
    for level, name in enumerate(structure.order):
        # The cut sets with this unit: of every node keep only those.
        picked = {0: 0, 1: 0}
        for node in nodes:
            at, high, low = family.level[node], family.high[node], family.low[node]
            if at > level:
                picked[node] = 0
            elif at == level:
                picked[node] = bdd.node(at, as_function[high], 0)
            else:
                upper, lower = picked[high], picked[low]
                picked[node] = bdd.node(at, bdd.either(upper, lower), lower)
        result[name] = _probability(bdd, picked[root], structure.order, down, up)
    return result


def _probability(
    bdd: Bdd, root: int, order: tuple[str, ...], down: dict[str, float], up: dict[str, float]
) -> float:
    return float(Structure(bdd, root, order, coherent=True).pair(down, up)[0])
