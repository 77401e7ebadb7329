"""Random faults over many seeds: safety at every step, then liveness, then an orderly end."""

import os

import pytest

from everup.testing import SimWorld

SEEDS = int(os.environ.get("EVERUP_SEEDS", "200"))
BATCH = 20
FAULTS_S = 60.0
# Longest way back: a start timeout (60) on each level of a chain of six, parked retries (20)
# and backoffs (30) between them. Most worlds are well within a few seconds.
WELL_S = 900.0


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_faults_then_well_then_down(first: int) -> None:
    for seed in range(first, min(first + BATCH, SEEDS)):
        world = SimWorld(seed)
        world.run_faults(FAULTS_S)
        world.heal(WELL_S)
        world.shut_down()
        assert world.quit == 0, seed
