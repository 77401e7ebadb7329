"""At most one owner of a singleton at any time, whatever happens; and one again afterwards."""

import pytest
from cluster_world import World


@pytest.mark.parametrize("seed", range(40))
def test_there_is_never_more_than_one_owner_and_one_again_after_the_faults(seed: int) -> None:
    world = World(seed)
    world.go(200.0)
    world.heal(45.0)
    assert len(world.serving()) == 1, "\n".join(world.story[-80:])


def test_owners_change_in_these_worlds() -> None:
    """The property above would hold where nothing ever happens."""
    seen: set[str] = set()
    starts = 0
    for seed in range(5):
        world = World(seed)
        world.go(200.0)
        seen |= set(world.owners)
        starts += len(world.owners)
    assert seen == {"n1", "n2", "n3"}
    assert starts > 30
