"""How long the mathematics of structures takes: block diagrams, fault trees, chains, simulation.

Each row is the whole call, from the description of the structure to the number: the median of
several runs in one process, after one that is not counted (it imports numpy). What is counted
(nodes, cut sets) is printed beside. About 20 s.
"""

import argparse
import gc
import random
import time
from collections.abc import Callable
from typing import Any

from _common import Stats, Table, number
from everup.reliability import blocks, importance, markov, repairable, simulate, trees
from everup.reliability.blocks import Block, KofN, Replicated, Series, Unit
from everup.reliability.trees import And, Basic, Event, Or, Vote


def tiers() -> Block:
    """200 components: 50 tiers in series, each 2 of 4."""
    return Series(*(KofN(2, *(Unit(f"{t}.{r}", 1e-5, 1e-2) for r in range(4))) for t in range(50)))


def placed() -> Block:
    """200 components: 64 services of 3 replicas, one needed, spread over 8 shared hosts by a fixed
    seed; every service depends on two earlier ones; the whole."""
    rng = random.Random(5)
    hosts = [Unit(f"host{at}", 1e-6, 1e-3) for at in range(8)]
    services = []
    for at in range(64):
        places = rng.sample(hosts, 3)
        replicas = tuple(
            Series(host, Unit(f"s{at}.{r}", 1e-5, 1e-1)) for r, host in enumerate(places)
        )
        needs = tuple(f"s{n}" for n in rng.sample(range(at), min(at, 2)))
        services.append(Replicated(f"s{at}", replicas, 1, needs))
    return blocks.from_graph(services)


def wide_tree() -> Event:
    """200 basic events, 20 002 minimal cut sets by combinatorics: C(41, 3) = 10 660, C(20, 2) x 43
    = 8170, 26 x 45 = 1170, and 2; the rest is absorbed."""
    e = [Basic(f"e{at:03}", 1e-3 * (1 + at % 7)) for at in range(200)]
    pair = And(Vote(2, *e[41:61]), Or(*e[61:104]))
    cross = And(Or(*e[104:130]), Or(*e[130:175]))
    rest = Or(And(e[175], Or(e[176], And(e[177], e[178]))), And(e[175], e[176], *e[179:200]))
    return Or(Vote(3, *e[:41]), pair, cross, rest)


def shared_tree() -> Event:
    """200 basic events, many of them shared: four trains of five stages that hang on three support
    systems with two redundant halves each; lost where three of the four trains are."""
    support = [
        And(
            Or(*(Basic(f"support{s}.a{at}", 2e-3) for at in range(6))),
            Or(*(Basic(f"support{s}.b{at}", 3e-3) for at in range(6))),
        )
        for s in range(3)
    ]
    lost = []
    for train in range(4):
        stages: list[Event] = []
        for stage in range(5):
            names = (Basic(f"t{train}.{stage}.{at}", 1e-3 * (at + 1)) for at in range(8))
            stages.append(Or(*list(names)[:7], support[(train + stage) % 3]))
        stages.append(Basic(f"t{train}", 1e-4))
        lost.append(Or(*stages))
    feeds = [Basic(f"feed{at}", 1e-2) for at in range(20)]
    return Or(Vote(3, *lost), And(Vote(4, *feeds[:10]), Or(*feeds[10:])))


def timed(call: Callable[[], Any], runs: int) -> tuple[Any, Stats]:
    result = call()
    times = []
    for _ in range(runs):
        gc.collect()
        begin = time.perf_counter()
        call()
        times.append((time.perf_counter() - begin) * 1000)
    return result, Stats.of(times)


def tree_rows(name: str, build: Callable[[], Event]) -> list[tuple[str, str, Callable[[], Any]]]:
    structure, events = trees.compiled(build())
    found = trees.minimal_cut_sets(build(), limit=1)
    size = f"{len(events)} events, {found.total} cut sets, {len(structure.nodes)} nodes"
    return [
        (f"fault tree {name}: top probability", size, lambda: trees.top_probability(build())),
        (
            f"fault tree {name}: all of quantify, every cut set listed",
            size,
            lambda: trees.quantify(build(), limit=10_000_000),
        ),
        (
            f"fault tree {name}: importance",
            size,
            lambda: importance.of_tree(build(), fussell_vesely=False),
        ),
        (
            f"fault tree {name}: importance with Fussell-Vesely",
            size,
            lambda: importance.of_tree(build()),
        ),
    ]


def block_rows(name: str, build: Callable[[], Block]) -> list[tuple[str, str, Callable[[], Any]]]:
    structure, units = blocks.compiled(build())
    size = f"{len(units)} components, {len(structure.nodes)} nodes"
    return [
        (f"block diagram {name}: steady state", size, lambda: blocks.steady_state(build())),
        (f"block diagram {name}: mission", size, lambda: blocks.mission(build(), 86400)),
        (f"block diagram {name}: MTTF", size, lambda: blocks.mttf_s(build())),
        (
            f"block diagram {name}: importance with Fussell-Vesely",
            size,
            lambda: importance.of_block(build()),
        ),
    ]


def other_rows() -> list[tuple[str, str, Callable[[], Any]]]:
    import numpy as np

    group = repairable.Group(60, 50, 1e-4, 1e-2, 5, coverage=0.99, recovery_rate_per_s=1.0)
    small = repairable.Group(4, 2, 0.1, 1.0, 1, coverage=0.9, recovery_rate_per_s=2.0)
    chain, _ = repairable.chain(group)
    size = f"{len(chain.states)} states"
    ring = markov.birth_death([1.0] * 399, [1e3] * 399)
    return [
        ("group of 60: closed form", size, lambda: repairable.solve(group)),
        ("group of 60: chain, steady state", size, lambda: markov.steady_state(chain)),
        (
            "group of 60: chain, after a year",
            size,
            lambda: markov.transient(chain, 0, 365.25 * 86400),
        ),
        ("chain: steady state", "400 states", lambda: markov.steady_state(ring)),
        (
            "simulation: group of 4",
            "10 000 cycles",
            lambda: simulate.group(small, np.random.default_rng(1), 10_000),
        ),
        (
            "simulation: 200 components",
            "about 180 000 events",
            lambda: simulate.diagram(tiers(), np.random.default_rng(1), 4.5e7),
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="runs per row (default 5)")
    rounds = parser.parse_args().rounds
    rows = [
        *block_rows("of tiers", tiers),
        *block_rows("with shared hosts", placed),
        *tree_rows("wide", wide_tree),
        *tree_rows("shared", shared_tree),
        *other_rows(),
    ]
    table = Table("Structures, one call, ms", ["call", "size", "median", "max"])
    for name, size, call in rows:
        _, stats = timed(call, rounds)
        table.rows.append([name, size, number(stats.median, 1), number(stats.max, 1)])
    print(table.markdown())


if __name__ == "__main__":
    main()
