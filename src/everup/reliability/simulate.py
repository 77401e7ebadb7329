"""Discrete-event simulation of the structures that the other modules solve.

Written against the description of the system (units that fail, wait in a queue for a crew, take
over, get stuck), not against its equations, so that each checks the other. Every function takes a
numpy ``Generator``: the same seed gives the same numbers.

Standard errors: of groups and of diagrams with crews by regenerative cycles, which begin whenever
all units are well again (ratio estimator; Crane and Lemoine, An Introduction to the Regenerative
Method for Simulation Analysis, 1977); of diagrams with independent repair by batch means. Both lie
where failures of the whole are so rare that the run saw only a few: look at ``failures``.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from everup.reliability import blocks, trees
from everup.reliability.repairable import Group

if TYPE_CHECKING:
    from numpy.random import Generator

_EVENTS_MOST = 30_000_000
"""Of one run of :func:`diagram`; bounds memory to about 2 GB."""
_FAILED, _HALTED, _WAITING, _LOADED = -1, 0, 1, 2


class Simulated(NamedTuple):
    """What a run saw, each with its standard error."""

    availability: float
    availability_error: float
    frequency_per_s: float
    frequency_error_per_s: float
    mttf_s: float | None
    """From all units well to the first failure; None where not measured or none was seen."""
    mttf_error_s: float | None
    failures: int
    cycles: int
    """Regenerative cycles, or batches."""


class Sampled(NamedTuple):
    probability: float
    error: float


def group(of: Group, rng: "Generator", cycles: int) -> Simulated:
    """``cycles`` (>= 2) regenerative cycles of a group with crews, standby, coverage and common
    cause."""
    _check_least("cycles", cycles, 2)
    run = _GroupRun(of, _exponential(rng), _uniform(rng))
    for _ in range(cycles):
        run.cycle()
    return run.seen.result()


def diagram_with_crews(block: blocks.Block, rng: "Generator", cycles: int, crews: int) -> Simulated:
    """``cycles`` (>= 2) regenerative cycles of a block diagram whose units share ``crews`` (>= 1),
    first failed first repaired. For a few units: a cycle ends when all are well at once."""
    _check_least("cycles", cycles, 2)
    _check_least("crews", crews, 1)
    units = _units(block)
    draw, seen = _exponential(rng), _Seen()
    down: set[str] = set()
    events = [(next(draw) / u.failure_rate_per_s, u.name) for u in units if u.failure_rate_per_s]
    heapq.heapify(events)
    waiting: deque[str] = deque()
    rates = {unit.name: _rates(unit) for unit in units}
    busy, now, up = 0, 0.0, True
    while len(seen.rows) < cycles:
        then, name = heapq.heappop(events)
        seen.pass_time(then - now, up)
        now = then
        if name not in down:
            down.add(name)
            waiting.append(name)
        else:
            down.discard(name)
            busy -= 1
            heapq.heappush(events, (now + next(draw) / rates[name][0], name))
        while busy < crews and waiting:
            repaired = waiting.popleft()
            busy += 1
            heapq.heappush(events, (now + next(draw) / rates[repaired][1], repaired))
        was, up = up, _up_now(block, lambda unit: unit not in down)
        if was and not up:
            seen.fail()
        if not down:
            seen.end()
    return seen.result()


def diagram(
    block: blocks.Block, rng: "Generator", horizon_s: float, batches: int = 50
) -> Simulated:
    """A block diagram of independent units with exponential up and down times, for ``horizon_s``,
    begun in the long run; errors from ``batches`` (>= 2) equal parts."""
    import numpy as np

    _check_least("batches", batches, 2)
    if not 0 < horizon_s < math.inf:
        raise ValueError(f"horizon_s {horizon_s}: finite and above 0")
    units = _units(block)
    expected = sum(2 * horizon_s / (1 / r[0] + 1 / r[1]) for r in map(_rates, units) if r[0])
    if expected > _EVENTS_MOST:
        raise ValueError(
            f"horizon_s {horizon_s}: about {expected:.0f} events, at most {_EVENTS_MOST}"
        )
    changes = {unit.name: _changes(unit, rng, horizon_s) for unit in units}
    edges = np.linspace(0.0, horizon_s, batches + 1)
    times = np.sort(np.concatenate([times for times, _ in changes.values()] + [edges[:-1]]))

    def state(name: str) -> Any:
        changed, begins_up = changes[name]
        return (np.searchsorted(changed, times, side="right") % 2 == 0) == begins_up

    ups = _up_now(block, state)
    lengths = np.diff(np.append(times, horizon_s))
    batch = np.minimum((times / horizon_s * batches).astype(int), batches - 1)
    part = horizon_s / batches
    shares = np.bincount(batch, weights=lengths * ups, minlength=batches) / part
    fails = np.zeros(len(times))
    fails[1:] = ups[:-1] & ~ups[1:]
    rates = np.bincount(batch, weights=fails, minlength=batches) / part
    root = math.sqrt(batches)
    return Simulated(
        float(shares.mean()),
        float(shares.std(ddof=1) / root),
        float(rates.mean()),
        float(rates.std(ddof=1) / root),
        None,
        None,
        int(fails.sum()),
        batches,
    )


def tree(top: trees.Event, rng: "Generator", samples: int, time_s: float | None = None) -> Sampled:
    """The top event's probability by ``samples`` (>= 1) independent draws of all basic events."""
    _check_least("samples", samples, 1)
    drawn: dict[str, Any] = {}
    hits = int(_occurs(top, rng, samples, time_s, drawn, {}).sum())
    share = hits / samples
    return Sampled(share, math.sqrt(share * (1 - share) / samples))


class _Seen:
    """Sums over regenerative cycles."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, int, float]] = []
        """Of each cycle: length, time up, failures, time until the first failure or the end."""
        self._length = self._up = self._first = 0.0
        self._failures = 0

    def pass_time(self, length: float, up: bool) -> None:
        self._length += length
        if up:
            self._up += length
        if not self._failures:
            self._first += length

    def fail(self) -> None:
        self._failures += 1

    def end(self) -> None:
        self.rows.append((self._length, self._up, self._failures, self._first))
        self._length = self._up = self._first = 0.0
        self._failures = 0

    def result(self) -> Simulated:
        import numpy as np

        length, up, failures, first = np.array(self.rows).T
        share, share_error = _ratio(up, length)
        rate, rate_error = _ratio(failures, length)
        mean: tuple[float | None, float | None] = (None, None)
        if failures.any():
            mean = _ratio(first, (failures > 0).astype(float))
        count = int(failures.sum())
        return Simulated(share, share_error, rate, rate_error, *mean, count, len(length))


def _ratio(above: Any, below: Any) -> tuple[float, float]:
    """``sum(above) / sum(below)`` and its standard error."""
    total = below.sum()
    ratio = above.sum() / total
    spread = ((above - ratio * below) ** 2).sum() * len(above) / (len(above) - 1)
    return float(ratio), float(math.sqrt(spread) / total)


class _GroupRun:
    """Units of a group, each with its own clock; loads, queue and crews as in real life."""

    def __init__(self, of: Group, draw: Iterator[float], chance: Iterator[float]) -> None:
        self.of = of
        self.seen = _Seen()
        self._draw, self._chance = draw, chance
        self._now = 0.0
        self._events: list[tuple[float, int, int]] = []
        """(when, unit or -1 for the common cause, number of the plan)."""
        self._failed: set[int] = set()
        self._role = [_HALTED] * of.units
        self._plan = [0] * of.units
        """A unit's plans with another number were given up."""
        self._queue: deque[int] = deque()
        self._crews = of.units if of.crews is None else of.crews
        self._busy = 0
        self._assign()
        self._plan_common()

    def cycle(self) -> None:
        while True:
            then, unit, plan = heapq.heappop(self._events)
            if unit >= 0 and plan != self._plan[unit]:
                continue
            self.seen.pass_time(then - self._now, self._up())
            self._now = then
            if unit < 0:
                self._common()
            elif unit in self._failed:
                self._mended(unit)
            else:
                self._fails(unit)
            self._assign()
            if not self._failed and unit >= 0:
                self.seen.end()
                return

    def _up(self) -> bool:
        return self.of.units - len(self._failed) >= self.of.need

    def _fails(self, unit: int) -> None:
        loaded, was_up = self._role[unit] == _LOADED, self._up()
        self._break(unit)
        if was_up and not self._up():
            self.seen.fail()
        elif was_up and loaded and next(self._chance) >= self.of.coverage:
            assert self.of.recovery_rate_per_s is not None
            self.seen.fail()
            # The world stands still meanwhile: only the books move.
            self.seen.pass_time(next(self._draw) / self.of.recovery_rate_per_s, False)

    def _common(self) -> None:
        if self._up():
            self.seen.fail()
        for unit in range(self.of.units):
            if unit not in self._failed:
                self._break(unit)
        self._plan_common()

    def _break(self, unit: int) -> None:
        self._failed.add(unit)
        self._plan[unit] += 1
        self._role[unit] = _FAILED
        self._queue.append(unit)

    def _mended(self, unit: int) -> None:
        self._failed.discard(unit)
        self._role[unit] = _HALTED
        self._busy -= 1

    def _plan_common(self) -> None:
        if rate := self.of.together_per_s:
            heapq.heappush(self._events, (self._now + next(self._draw) / rate, -1, 0))

    def _assign(self) -> None:
        """Crews to failed units, loads to working ones."""
        while self._busy < self._crews and self._queue:
            self._busy += 1
            self._put(self._queue.popleft(), self.of.repair_rate_per_s)
        halted = not self._up() and not self.of.fails_when_down
        wanted = self.of.units if self.of.kind == "active" else self.of.need
        alone = (1 - self.of.common_cause) * self.of.failure_rate_per_s
        rates = {_HALTED: 0.0, _WAITING: alone * self.of.dormancy, _LOADED: alone}
        working = [unit for unit in range(self.of.units) if unit not in self._failed]
        # A unit that carries load keeps it; a repaired one waits.
        working.sort(key=lambda unit: -self._role[unit])
        for place, unit in enumerate(working):
            role = _HALTED if halted else _LOADED if place < wanted else _WAITING
            if role != self._role[unit]:
                self._role[unit] = role
                self._plan[unit] += 1
                if rates[role]:
                    self._put(unit, rates[role])

    def _put(self, unit: int, rate: float) -> None:
        when = self._now + next(self._draw) / rate
        heapq.heappush(self._events, (when, unit, self._plan[unit]))


def _exponential(rng: "Generator") -> Iterator[float]:
    while True:
        yield from rng.standard_exponential(4096).tolist()


def _uniform(rng: "Generator") -> Iterator[float]:
    while True:
        yield from rng.random(1024).tolist()


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} {value}: at least {least}")


def _units(block: blocks.Block) -> tuple[blocks.Unit, ...]:
    found: dict[str, blocks.Unit] = {}
    stack: list[blocks.Block] = [block]
    while stack:
        each = stack.pop()
        if isinstance(each, blocks.Unit):
            if found.setdefault(each.name, each) != each:
                raise ValueError(f"unit {each.name}: occurs twice with different numbers")
        else:
            stack.extend(each.parts)
    for unit in found.values():
        _rates(unit)
    return tuple(found[name] for name in sorted(found))


def _rates(unit: blocks.Unit) -> tuple[float, float]:
    """Failure and repair rate; of a unit that never fails 0 and 1."""
    failure, repair = unit.failure_rate_per_s, unit.repair_rate_per_s
    if failure == 0:
        return 0.0, 1.0
    if failure is None or repair is None:
        raise ValueError(f"unit {unit.name}: a simulation needs its failure and repair rates")
    return failure, repair


def _up_now(block: blocks.Block, state: Callable[[str], Any]) -> Any:
    """Whether the whole is up, straight from the diagram; ``state`` of a unit is a bool or an
    array of bools."""
    if isinstance(block, blocks.Unit):
        return state(block.name)
    needed = len(block.parts) if isinstance(block, blocks.Series) else 1
    needed = block.k if isinstance(block, blocks.KofN) else needed
    return sum(_up_now(part, state) for part in block.parts) >= needed


def _changes(unit: blocks.Unit, rng: "Generator", horizon_s: float) -> tuple[Any, bool]:
    """Times at which a unit changes between up and down, and whether it begins up."""
    import numpy as np

    failure, repair = _rates(unit)
    if failure == 0:
        return np.empty(0), True
    up = bool(rng.random() < repair / (failure + repair))
    means = (1 / failure, 1 / repair) if up else (1 / repair, 1 / failure)
    times = np.empty(0)
    last = 0.0
    while last < horizon_s:
        pairs = int((horizon_s - last) / sum(means) * 1.1) + 16
        more = rng.standard_exponential((pairs, 2)) * np.array(means)
        times = np.append(times, last + np.cumsum(more.ravel()))
        last = float(times[-1])
    return times[times < horizon_s], up


def _occurs(
    event: trees.Event,
    rng: "Generator",
    samples: int,
    time_s: float | None,
    drawn: dict[str, Any],
    gates: dict[int, Any],
) -> Any:
    if isinstance(event, trees.Basic):
        if event.name not in drawn:
            drawn[event.name] = rng.random(samples) < event.at(time_s)[0]
        return drawn[event.name]
    if id(event) not in gates:
        if isinstance(event, trees.Not):
            gates[id(event)] = ~_occurs(event.input, rng, samples, time_s, drawn, gates)
        else:
            needed = len(event.inputs) if isinstance(event, trees.And) else 1
            needed = event.k if isinstance(event, trees.Vote) else needed
            inputs = (_occurs(each, rng, samples, time_s, drawn, gates) for each in event.inputs)
            gates[id(event)] = sum(inputs) >= needed
    return gates[id(event)]
