"""A process that says READY=1 before the engine has read that it was started was never ready: on a
busy machine its word overtakes the keeper's, and was dropped because nobody was there yet."""

import pytest
from _bench import WEB, Bench, of, web

from everup.model.action import Spawn
from everup.model.event import Notified, Spawned, Up
from everup.model.instance import State
from everup.model.spec import Hooks

READY = (("READY", "1"), ("STATUS", "fine"))


def test_what_is_said_before_the_start_is_told_counts() -> None:
    bench = Bench(web(1, notify=True))
    (spawn,) = of(bench.tell(Up()), Spawn)
    bench.tell(Notified(WEB, READY, spawn.run))
    assert bench.state(WEB) is State.STARTING
    bench.tell(Spawned(WEB, spawn.run, 77))
    assert bench.engine.instances[WEB].said_ready
    bench.accept(WEB, spawn.run)
    assert bench.state(WEB) is State.READY
    assert bench.engine.instances[WEB].status_text == "fine"
    assert not bench.engine.early


@pytest.mark.parametrize("run", [0, 2])
def test_not_what_another_run_has_said(run: int) -> None:
    bench = Bench(web(1, notify=True))
    (spawn,) = of(bench.tell(Up()), Spawn)
    bench.tell(Notified(WEB, READY, run))
    bench.tell(Spawned(WEB, spawn.run, 77))
    assert not bench.engine.instances[WEB].said_ready


def test_nor_what_its_hook_says() -> None:
    bench = Bench(web(1, notify=True, hooks=Hooks(pre_start=("hook",))))
    bench.tell(Up())
    run = bench.engine.instances[WEB].run
    bench.tell(Notified(WEB, READY, run))
    assert not bench.engine.early


def test_a_flood_before_the_start_is_bounded() -> None:
    bench = Bench(web(1, notify=True))
    (spawn,) = of(bench.tell(Up()), Spawn)
    for number in range(1000):
        bench.tell(Notified(WEB, (("STATUS", str(number)),), spawn.run))
    assert len(bench.engine.early[WEB]) == 16
    bench.tell(Spawned(WEB, spawn.run, 77))
    assert bench.engine.instances[WEB].status_text == "999"
