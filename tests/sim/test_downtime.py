"""The downtime that the journal tells of, against the truth of a simulated world.

Detection is late by nature: what is found by a probe began before. Over many faults at random
moments the reported outages must be neither too long nor too short, whatever the fault and
whatever found it: "right on average" is a promise of the reference.
"""

from collections.abc import Callable
from statistics import fmean

import pytest

from everup.model.instance import Slot, State
from everup.model.spec import Probe, Probes, Restart, Service, Spec, Watchdog
from everup.reliability.history import History
from everup.testing import SimWorld
from everup.testing.sim import Process

WEB = Slot("web", 1)
INTERVAL_S, TIMEOUT_S = 0.5, 2.0
READINESS = Probe(tcp="listen", interval=INTERVAL_S, timeout=TIMEOUT_S, failure_threshold=1)
LIVENESS = Probe(tcp="listen", interval=INTERVAL_S, timeout=TIMEOUT_S, failure_threshold=2)
ROUNDS = 250

Truth = tuple[float, float]
"""From when on the service did not serve, and from when on it did again."""


def world_with(probe: Probes, watchdog_s: float = 0.0) -> SimWorld:
    watchdog = Watchdog(interval=watchdog_s) if watchdog_s else None
    web = Service(
        name="web",
        command=("serve",),
        port=8080,
        probe=probe,
        watchdog=watchdog,
        restart=Restart(reset_after=5.0),
    )
    world = SimWorld(seed=33, spec=Spec(service={"web": web}), engine_deaths=False)
    settle(world)
    return world


def settle(world: SimWorld) -> Process:
    """Until the service has been ready for a while; its process."""
    ready = lambda: world.engine.instances[WEB].state is State.READY  # noqa: E731
    world.run_until(world.now + 120.0, ready)
    assert ready()
    world.run_until(world.now + 20.0 + world.rng.uniform(0.0, 3.0))
    process = world.process_of(WEB)
    assert process is not None
    assert ready()
    process.ignores_term = False
    return process


def successor(world: SimWorld, old: Process) -> Process:
    """The process that comes after this one."""
    world.run_until(world.now + 60.0, lambda: _newer(world, old) is not None)
    found = _newer(world, old)
    assert found is not None
    return found


def _newer(world: SimWorld, old: Process) -> Process | None:
    return next((p for p in world.processes.values() if p.run > old.run), None)


# -- faults


def hang(world: SimWorld, process: Process) -> Truth:
    process.hung = True
    return world.now, successor(world, process).up_at


def kill(world: SimWorld, process: Process) -> Truth:
    began = world.now
    world.end(process)
    return began, successor(world, process).up_at


def slow_death(world: SimWorld, process: Process) -> Truth:
    """It answers no more, and ends by itself some time later."""
    process.hung, began = True, world.now
    world.run_until(world.now + world.rng.uniform(0.3, 3.0))
    if process.alive:
        world.end(process, code=1)
    return began, successor(world, process).up_at


def not_ready(world: SimWorld, process: Process) -> Truth:
    process.unready, began = True, world.now
    world.run_until(world.now + world.rng.uniform(2.0, 5.0))
    process.unready = False
    return began, world.now


@pytest.mark.parametrize(
    ("fault", "probe", "watchdog_s"),
    [
        (hang, Probes(liveness=LIVENESS), 0.0),
        (hang, Probes(readiness=READINESS, liveness=LIVENESS), 0.0),
        (hang, Probes(), 2.0),
        (hang, Probes(readiness=READINESS), 3.0),
        (kill, Probes(readiness=READINESS), 0.0),
        (kill, Probes(readiness=READINESS, liveness=LIVENESS), 0.0),
        (slow_death, Probes(readiness=READINESS), 0.0),
        (slow_death, Probes(readiness=READINESS, liveness=LIVENESS), 0.0),
        (not_ready, Probes(readiness=READINESS), 0.0),
        (not_ready, Probes(readiness=READINESS, liveness=LIVENESS), 0.0),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_reported_downtime_is_right_on_average(
    fault: Callable[[SimWorld, Process], Truth], probe: Probes, watchdog_s: float
) -> None:
    world = world_with(probe, watchdog_s)
    truth = []
    for _ in range(ROUNDS):
        process = settle(world)
        truth.append(fault(world, process))
    settle(world)
    found = outages(world)
    assert len(found) == len(truth)
    late = fmean(seen[0] - true[0] for seen, true in zip(found, truth, strict=True))
    ends = fmean(seen[1] - true[1] for seen, true in zip(found, truth, strict=True))
    total = sum(until - since for since, until in found)
    true_total = sum(until - since for since, until in truth)
    print(f"begins {late:+.3f} s, ends {ends:+.3f} s, whole {total / true_total - 1:+.2%}")
    # Four standard errors of a moment that is even over an interval, and the keeper's report.
    assert abs(late) < 0.04 + 0.03
    if probe.readiness is not None:  # else it counts as up from its start on
        assert abs(ends) < 0.04 + 0.03
        if true_total > ROUNDS:  # of shorter outages the simulated keeper's delay is too much
            assert total == pytest.approx(true_total, rel=0.05)


def outages(world: SimWorld) -> list[tuple[float, float]]:
    history = History()
    history.feed(world.journal)
    return [(o.start / 1e6, o.end / 1e6) for o in history.services["web"].outages]
