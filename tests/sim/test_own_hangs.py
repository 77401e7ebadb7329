"""Engine and keeper stopped at random beside all other faults: safe at every step, well after."""

import pytest

from everup.testing import SimWorld

SEEDS = 60
BATCH = 20
FAULTS_S = 90.0
WELL_S = 900.0


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_stopped_engines_and_keepers(first: int) -> None:
    missed = 0
    for seed in range(first, first + BATCH):
        world = SimWorld(seed, own_hangs=True)
        world.run_faults(FAULTS_S)
        missed += world.missed
        world.heal(WELL_S)
        world.shut_down()
        assert world.quit == 0, seed
    assert missed > BATCH  # verdicts: the simulation reaches what it is about
