"""The cluster in the simulated world of one machine: there is none. Several machines at once are
simulated in ``tests/sim/test_cluster.py``."""

from typing import Any, Final

from everup.rooms.cluster.actions import Acquire, Hurry, Join, Leave, Move, Release, Tell


def _nothing(_action: object, _world: Any) -> None:
    return


SOURCES: Final = ()
PERFORMERS: Final = dict.fromkeys((Hurry, Join, Leave, Acquire, Release, Move, Tell), _nothing)
