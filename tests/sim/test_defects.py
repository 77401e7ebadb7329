"""A defect of everup's own in the middle of a step, in each room: the process ends, and the next
engine, which goes by the journal, brings all to a good end."""

import random
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from everup.detect import probes, starvation
from everup.engine import (
    lanes,
    narrate,
    observe,
    reload,
    rollout,
    settle,
    slots,
    spare,
)
from everup.rooms.dependencies.room import Dependencies
from everup.rooms.slo.room import Objectives
from everup.supervise import lifecycle
from everup.testing import SimWorld
from everup.testing.sim import KilledError

ROOMS: list[tuple[ModuleType | type, str]] = [
    (settle, "settle"),
    (settle, "_start_if_allowed"),
    (settle, "_stop_pending"),
    (lanes, "choose"),
    (lanes, "settle"),
    (rollout, "roll"),
    (rollout, "begin"),
    (rollout, "fail"),
    (reload, "advance"),
    (reload, "take_up"),
    (slots, "stop"),
    (slots, "resize"),
    (Dependencies, "step"),
    (Objectives, "step"),
    (observe, "probed"),
    (observe, "notified"),
    (spare, "spared"),
    (narrate, "records"),
    (lifecycle, "step"),
    (probes, "step"),
    (starvation, "step"),
]
DEFECTS = 4
"""In one story, at calls drawn by lot."""


@pytest.mark.parametrize(("module", "name"), ROOMS, ids=lambda x: getattr(x, "__name__", x))
def test_a_defect_in_any_room_is_survived(
    module: ModuleType | type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound: Callable[..., Any] = getattr(module, name)
    rng, left, planted = random.Random(1), 0, 0
    world: SimWorld | None = None

    def defective(*arguments: Any, **more: Any) -> Any:
        nonlocal left, planted
        if left and world is not None and world.faulty and rng.random() < 0.05:
            left -= 1
            planted += 1
            if rng.random() < 0.5:
                sound(*arguments, **more)  # half of what was to be done
            raise KilledError
        return sound(*arguments, **more)

    monkeypatch.setattr(module, name, defective)
    for seed in range(3000, 3040):
        left, world = DEFECTS, None
        world = SimWorld(seed, engine_deaths=False)
        world.run_faults(30.0)
        world.heal(900.0)
        world.shut_down()
        if planted >= DEFECTS:
            break
    assert planted, f"{name} was never called in a story of faults"
