"""Run many seeds of the simulated world, and say which fail.

    python tools/soak.py --first 10000000 --seeds 100000 --jobs 2

Each seed: a minute of faults and operators, then everything must become ready again, then an
orderly end; every third one with hangs of everup's own processes. A seed that fails is told at once
and the others go on. Ends with 1 where one failed.
"""

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator

from everup.testing import SimWorld

FAULTS_S = 60.0
WELL_S = 900.0
_TELL_S = 60.0


def one(seed: int) -> tuple[int, str, Counter[str]]:
    """Run one seed. Gives what went wrong, or nothing, and what it was made of."""
    wrong = ""
    world = SimWorld(seed, own_hangs=seed % 3 == 2)
    try:
        world.run_faults(FAULTS_S)
        world.heal(WELL_S)
        world.shut_down()
        if world.quit != 0:
            wrong = f"it ended with {world.quit}"
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    figures = Counter(steps=world.steps, entries=len(world.journal), seconds=int(world.now))
    figures.update(entry.kind for entry in world.journal if entry.kind.startswith("config."))
    return seed, wrong, figures


def results(seeds: range, jobs: int) -> Iterator[tuple[int, str, Counter[str]]]:
    if jobs == 1:
        yield from map(one, seeds)
        return
    with multiprocessing.Pool(jobs) as pool:
        yield from pool.imap_unordered(one, seeds, chunksize=20)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run many seeds of the simulated world.")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=100_000, help="how many")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    asked = parser.parse_args()
    began = told = time.monotonic()
    failed: list[int] = []
    sums: Counter[str] = Counter()
    done = 0
    for seed, wrong, figures in results(range(asked.first, asked.first + asked.seeds), asked.jobs):
        done += 1
        sums += figures
        if wrong:
            failed.append(seed)
            print(f"seed {seed}: {wrong}", flush=True)
        if time.monotonic() - told > _TELL_S:
            told = time.monotonic()
            print(f"{done} of {asked.seeds} seeds, {len(failed)} failed", flush=True)
    took_s = time.monotonic() - began
    hours, reloads = sums["seconds"] / 3600, sums["config.reloading"]
    print(
        f"{done} seeds from {asked.first} in {took_s:.0f} s: {hours:.0f} simulated hours, "
        f"{sums['steps']} steps, {sums['entries']} journal entries, "
        f"{reloads} reloads ({sums['config.rolled_back']} rolled back); failed: {failed or 'none'}"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
