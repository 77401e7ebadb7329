"""A service that was scaled to 0 and up again stayed stopped, and the command said "scaled"."""

import pytest
from _bench import WEB, Bench, web

from everup.model.event import Scale, Stop
from everup.model.instance import State


def scaled(bench: Bench, replicas: int) -> None:
    bench.finish(bench.tell(Scale("web", replicas, "op")))


@pytest.mark.parametrize("at_once", [True, False])
def test_up_from_zero_runs(at_once: bool) -> None:
    bench = Bench(web(2))
    bench.up()
    if at_once:  # while the old ones are still on their way out
        actions = bench.tell(Scale("web", 0, "op"))
        bench.finish([*actions, *bench.tell(Scale("web", 2, "op"))])
    else:
        scaled(bench, 0)
        assert bench.engine.of("web") == []
        scaled(bench, 2)
    assert [i.state.alive for i in bench.engine.of("web")] == [True, True]
    assert all(i.since > 0 for i in bench.engine.of("web"))


def test_configured_with_none() -> None:
    bench = Bench(web(0))
    bench.up()
    scaled(bench, 1)
    assert bench.engine.instances[WEB].state.alive


def test_what_an_operator_stopped_stays_stopped() -> None:
    bench = Bench(web(1))
    bench.up()
    bench.finish(bench.tell(Stop((WEB,), "op")))
    scaled(bench, 0)
    scaled(bench, 1)
    assert bench.engine.instances[WEB].state is State.STOPPED
