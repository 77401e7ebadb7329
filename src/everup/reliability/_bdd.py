"""Binary decision diagrams: the exact evaluation behind block diagrams and fault trees.

A :class:`Formula` is a monotone (or, with ``negate``, any) function of named events, as votes over
votes. :func:`compile_formula` turns it into a reduced ordered binary decision diagram (Bryant,
Graph-Based Algorithms for Boolean Function Manipulation, IEEE Trans. Computers C-35 (1986)). From
that the probability is one pass over its nodes, ``P(x, f1, f0) = q P(f1) + p P(f0)``: only sums
and products of positive numbers, so that 1e-12 comes out with all its digits, and shared events
are counted once.

Everything is iterative: the depth of a diagram is its number of events, beyond Python's recursion.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_LEAF = 1 << 60
"""Level of the two leaves: below every event."""
NODE_LIMITS = (20_000, 100_000, 500_000)
"""Nodes each order of the events may make before the next one is tried; then all again with more.
The last is some 300 MB and 5 s."""


class StructureTooLargeError(ValueError):
    """The decision diagram of a structure does not fit in memory."""


class Formula:
    """A function of named events, built from below; every method returns the index of a node."""

    def __init__(self) -> None:
        self.kinds: list[tuple[str, int, tuple[int, ...]]] = []
        """(event name or "" or "not", votes needed, parts)."""
        self._events: dict[str, int] = {}
        self.coherent = True
        self.top = -1

    def event(self, name: str) -> int:
        found = self._events.get(name)
        if found is None:
            self.kinds.append((name, -1, ()))
            found = self._events[name] = len(self.kinds) - 1
        return found

    def vote(self, needed: int, parts: Sequence[int]) -> int:
        """True where at least ``needed`` of ``parts`` are."""
        self.kinds.append(("", needed, tuple(parts)))
        return len(self.kinds) - 1

    def negate(self, part: int) -> int:
        self.coherent = False
        self.kinds.append(("not", 0, (part,)))
        return len(self.kinds) - 1

    @property
    def events(self) -> dict[str, int]:
        return self._events


class Bdd:
    """Nodes ``(level, high, low)``; 0 and 1 are the leaves; children come before their parents."""

    def __init__(self, limit: int) -> None:
        self.level: list[int] = [_LEAF, _LEAF]
        self.high: list[int] = [0, 1]
        self.low: list[int] = [0, 1]
        self._unique: dict[tuple[int, int, int], int] = {}
        self._done: tuple[dict[tuple[int, int], int], ...] = ({}, {})
        self._limit = limit

    def node(self, level: int, high: int, low: int) -> int:
        if high == low:
            return low
        key = (level, high, low)
        found = self._unique.get(key)
        if found is None:
            found = len(self.level)
            if found > self._limit:
                raise StructureTooLargeError(f"decision diagram: more than {self._limit} nodes")
            self.level.append(level)
            self.high.append(high)
            self.low.append(low)
            self._unique[key] = found
        return found

    def both(self, f: int, g: int) -> int:
        return self._apply(0, f, g)

    def either(self, f: int, g: int) -> int:
        return self._apply(1, f, g)

    def _apply(self, op: int, f: int, g: int) -> int:
        """And (op 0) or or (op 1): the leaf ``op`` absorbs, the other one is neutral."""
        done, level, high, low = self._done[op], self.level, self.high, self.low

        def known(f: int, g: int) -> int:
            if f == g:
                return f
            if f > g:
                f, g = g, f
            if f < 2:
                return op if f == op else g
            if g < 2:
                return op if g == op else f
            return done.get((f, g), -1)

        result = known(f, g)
        stack = [] if result >= 0 else [(f, g)]
        while stack:
            f, g = stack[-1]
            if f > g:
                f, g = g, f
            top = min(level[f], level[g])
            f1, f0 = (high[f], low[f]) if level[f] == top else (f, f)
            g1, g0 = (high[g], low[g]) if level[g] == top else (g, g)
            upper, lower = known(f1, g1), known(f0, g0)
            if upper < 0:
                stack.append((f1, g1))
            elif lower < 0:
                stack.append((f0, g0))
            else:
                result = done[f, g] = self.node(top, upper, lower)
                stack.pop()
        return result

    def negate(self, f: int) -> int:
        flipped = {0: 1, 1: 0}
        for node in reachable(self, f):
            flipped[node] = self.node(
                self.level[node], flipped[self.high[node]], flipped[self.low[node]]
            )
        return flipped[f]

    def vote(self, needed: int, parts: Sequence[int]) -> int:
        """At least ``needed`` of ``parts``."""
        parts = sorted(parts, key=lambda part: self.level[part], reverse=True)
        if needed in (1, len(parts)):
            join = self.either if needed == 1 else self.both
            # Pairs of neighbours, then pairs of pairs: no step walks all that was joined before.
            while len(parts) > 1:
                joined = [join(f, g) for f, g in zip(parts[::2], parts[1::2], strict=False)]
                parts = joined + parts[len(joined) * 2 :]
            return parts[0]
        # Lowest part first: each step stays on top of what is there.
        at_least = [1] + [0] * needed
        for seen, part in enumerate(parts, 1):
            left = len(parts) - seen
            for count in range(min(seen, needed), max(0, needed - left - 1), -1):
                with_part = self.both(part, at_least[count - 1])
                at_least[count] = self.either(with_part, at_least[count])
        return at_least[needed]


class Structure:
    """A compiled formula: ``order[level]`` is the event at that level of the diagram."""

    def __init__(self, bdd: Bdd, root: int, order: tuple[str, ...], coherent: bool) -> None:
        self.bdd = bdd
        self.root = root
        self.order = order
        self.coherent = coherent
        self.nodes = reachable(bdd, root)

    def pair(self, down: Mapping[str, Any], up: Mapping[str, Any]) -> tuple[Any, Any]:
        """Probability that the formula is true, and that it is false.

        ``down[name]`` is the probability of the event and ``up[name]`` its complement: numbers, or
        numpy arrays for many cases at once.
        """
        true = self.values(down, up, 0.0, 1.0)
        false = self.values(down, up, 1.0, 0.0)
        return true[self.root], false[self.root]

    def values(
        self, down: Mapping[str, Any], up: Mapping[str, Any], zero: Any, one: Any
    ) -> dict[int, Any]:
        """Value of every node where the leaves are worth ``zero`` and ``one``."""
        bdd, value = self.bdd, {0: zero, 1: one}
        q = [down[name] for name in self.order]
        p = [up[name] for name in self.order]
        level, high, low = bdd.level, bdd.high, bdd.low
        for node in self.nodes:
            at = level[node]
            value[node] = q[at] * value[high[node]] + p[at] * value[low[node]]
        return value

    def slopes(self, down: Mapping[str, float], up: Mapping[str, float]) -> dict[str, float]:
        """Birnbaum importance of every event, ``dP/dq``, in one pass up and one down.

        At each node the difference is taken on that side (true or false) where the numbers are
        small, so that it keeps its digits.
        """
        bdd = self.bdd
        true = self.values(down, up, 0.0, 1.0)
        false = self.values(down, up, 1.0, 0.0)
        reach: dict[int, float] = dict.fromkeys(self.nodes, 0.0)
        reach[0] = reach[1] = 0.0
        reach[self.root] = 1.0
        slope = [0.0] * len(self.order)
        for node in reversed(self.nodes):
            at, high, low = bdd.level[node], bdd.high[node], bdd.low[node]
            name, here = self.order[at], reach[node]
            if max(true[high], true[low]) <= max(false[high], false[low]):
                slope[at] += here * (true[high] - true[low])
            else:
                slope[at] += here * (false[low] - false[high])
            reach[high] += here * down[name]
            reach[low] += here * up[name]
        return dict(zip(self.order, slope, strict=True))


def compile_formula(formula: Formula, limits: Sequence[int] = NODE_LIMITS) -> Structure:
    """The diagram of ``formula.top``; several orders of the events are tried, small first.

    Raises :class:`StructureTooLargeError`.
    """
    names: dict[tuple[str, ...], None] = dict.fromkeys(_orders(formula))
    for limit in limits:
        for order in names:
            try:
                return _compile(formula, order, limit)
            except StructureTooLargeError:
                continue
    raise StructureTooLargeError(
        f"structure of {len(formula.events)} events: its decision diagram has more than"
        f" {limits[-1]} nodes in each of {len(names)} orders tried; split it into modules, or"
        " share fewer events between them"
    )


def _compile(formula: Formula, order: tuple[str, ...], limit: int) -> Structure:
    bdd = Bdd(limit)
    levels = {name: level for level, name in enumerate(order)}
    built: list[int] = []
    wanted = _below(formula)
    for index, (name, needed, parts) in enumerate(formula.kinds):
        if index not in wanted:
            built.append(0)
        elif needed < 0:
            built.append(bdd.node(levels[name], 1, 0))
        elif name == "not":
            built.append(bdd.negate(built[parts[0]]))
        else:
            built.append(bdd.vote(needed, [built[part] for part in parts]))
    return Structure(bdd, built[formula.top], order, formula.coherent)


def _below(formula: Formula) -> set[int]:
    seen: set[int] = set()
    stack = [formula.top]
    while stack:
        index = stack.pop()
        if index not in seen:
            seen.add(index)
            stack.extend(formula.kinds[index][2])
    return seen


def _orders(formula: Formula) -> list[tuple[str, ...]]:
    """Orders of the events worth trying: depth first, with the parts of each gate as written,
    smallest first, most shared first, and largest first; and all shared events before the others.

    Depth first keeps the events of a module together; which module comes first matters where
    events are shared (Bouissou, Bruyere, Rauzy, BDD Based Fault-Tree Processing, ESREL 1997). A few
    hosts under everything belong on top: what is below them then falls apart into modules.
    """
    wanted = _below(formula)
    used: dict[int, int] = dict.fromkeys(wanted, 0)
    size: dict[int, int] = {}
    for index in sorted(wanted):
        parts = formula.kinds[index][2]
        size[index] = 1 + sum(size[part] for part in parts)
        for part in parts:
            used[part] += 1
    shared = dict.fromkeys(wanted, 0)
    for index in sorted(wanted):
        parts = formula.kinds[index][2]
        shared[index] = (used[index] > 1) + max((shared[part] for part in parts), default=0)

    def depth_first(key: Callable[[int], int]) -> tuple[str, ...]:
        found: dict[str, None] = {}
        seen: set[int] = set()
        stack = [formula.top]
        while stack:
            index = stack.pop()
            if index in seen:
                continue
            seen.add(index)
            name, needed, parts = formula.kinds[index]
            if needed < 0:
                found[name] = None
            stack.extend(sorted(parts, key=key)[::-1])
        return tuple(found)

    written = depth_first(lambda index: 0)
    uses = {name: used[formula.events[name]] for name in written}
    return [
        written,
        tuple(sorted(written, key=lambda name: uses[name] < 2)),
        depth_first(lambda index: size[index]),
        depth_first(lambda index: -shared[index]),
        depth_first(lambda index: -size[index]),
    ]


class Zdd:
    """Families of sets, zero-suppressed: 0 no set, 1 the empty set alone (Minato 1993)."""

    def __init__(self, limit: int) -> None:
        self.level: list[int] = [_LEAF, _LEAF]
        self.high: list[int] = [0, 1]
        self.low: list[int] = [0, 1]
        self._unique: dict[tuple[int, int, int], int] = {}
        self._done: dict[tuple[int, int], int] = {}
        self._limit = limit

    def node(self, level: int, high: int, low: int) -> int:
        if high == 0:
            return low
        key = (level, high, low)
        found = self._unique.get(key)
        if found is None:
            found = len(self.level)
            if found > self._limit:
                raise StructureTooLargeError(
                    f"minimal cut sets: more than {self._limit} nodes to hold them; split the"
                    " tree into modules"
                )
            self.level.append(level)
            self.high.append(high)
            self.low.append(low)
            self._unique[key] = found
        return found

    def minus(self, f: int, g: int) -> int:
        """The sets of ``f`` that are not in ``g``."""
        level, high, low, done = self.level, self.high, self.low, self._done

        def known(f: int, g: int) -> tuple[int, int]:
            """The result or -1, and ``g`` without the sets that begin above those of ``f``."""
            while level[g] < level[f]:
                g = low[g]
            if f in (0, g):
                return 0, g
            if g == 0 or f == 1:
                return f, g
            return done.get((f, g), -1), g

        result, g = known(f, g)
        stack = [] if result >= 0 else [(f, g)]
        while stack:
            f, g = stack[-1]
            same = level[g] == level[f]
            upper, g1 = known(high[f], high[g] if same else 0)
            lower, g0 = known(low[f], low[g] if same else g)
            if upper < 0:
                stack.append((high[f], g1))
            elif lower < 0:
                stack.append((low[f], g0))
            else:
                result = done[f, g] = self.node(level[f], upper, lower)
                stack.pop()
        return result


def reachable(diagram: Bdd | Zdd, root: int) -> list[int]:
    """The nodes below ``root`` and itself, children before parents; no leaves."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node > 1 and node not in seen:
            seen.add(node)
            stack += (diagram.high[node], diagram.low[node])
    return sorted(seen)


def minimal_solutions(structure: Structure, limit: int = NODE_LIMITS[-1]) -> tuple[Zdd, int]:
    """The minimal cut sets of a coherent structure, as a family of sets.

    ``M(x, f1, f0)``: ``M(f0)``, and x with each set of ``M(f1)`` that contains none of ``M(f0)``
    (Rauzy, New algorithms for fault trees analysis, Reliability Engineering and System Safety 40
    (1993)). In a coherent function ``f0`` implies ``f1``, so that a minimal set of ``f1`` that
    contains one of ``f0`` is that one: a plain difference of families is enough.
    """
    bdd, family = structure.bdd, Zdd(limit)
    minimal = {0: 0, 1: 1}
    for node in structure.nodes:
        low = minimal[bdd.low[node]]
        high = family.minus(minimal[bdd.high[node]], low)
        minimal[node] = family.node(bdd.level[node], high, low)
    return family, minimal[structure.root]
