"""A recorded run, killed at every step boundary: each prefix of it must be a good beginning.

A boundary is before an event is handled, before its records are written, and before each of its
actions is carried out. What dies there is the engine, the keeper, or both. Each story goes on for
two seconds of probes after the last thing that happens in it.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from everup.model.event import Restart, Scale, Start, Stop
from everup.model.instance import Slot
from everup.model.journal import Kind
from everup.model.spec import (
    Hooks,
    Listener,
    Probe,
    Probes,
    Service,
    Spec,
)
from everup.testing import SimWorld

READINESS = Probes(readiness=Probe(tcp="listen", interval=0.2, timeout=0.1, grace=1.0))
LISTEN = (Listener("main", "127.0.0.1:80"),)
WEB = Service(
    "web", ("serve",), listen=LISTEN, replicas=2, depends_on=("db",), probe=READINESS,
    drain_timeout=1.0, stop_timeout=5.0,
)  # fmt: skip
DB = Service("db", ("db",), stop_timeout=5.0, hooks=Hooks(pre_start=("hook",)))
SETUP = Service("setup", ("setup",), type="oneshot", depends_on=("db",))
ONE = Service("one", ("serve",), listen=LISTEN, probe=READINESS, stop_timeout=5.0)
OLD = Spec({s.name: s for s in (DB, SETUP, WEB, ONE)})
NEW = Spec(
    {
        "db": replace(DB, start_timeout=50.0),
        "setup": SETUP,
        "web": replace(WEB, command=("serve", "v2")),
        "extra": Service("extra", ("extra",)),
    }
)
BROKEN = Spec(OLD.service | {"web": replace(WEB, command=("serve", "broken"))})
SLOT = {name: Slot(name, 1) for name in OLD.service}


def start_and_stop(world: SimWorld) -> None:
    world.run_until(3.0)
    world.dispatch(Stop((SLOT["db"],), "ann"))
    world.run_until(8.0)
    world.dispatch(Start((SLOT["db"],), "ann"))
    world.dispatch(Scale("web", 3, "ann"))
    world.run_until(14.0)
    world.dispatch(Scale("web", 1, "ann"))
    world.run_until(20.0)


def restart(world: SimWorld) -> None:
    world.run_until(3.0)
    world.dispatch(Restart((Slot("web", 1), Slot("web", 2), SLOT["db"]), "ann"))
    world.run_until(8.0)


def reload(world: SimWorld) -> None:
    world.run_until(3.0)
    world.reload(NEW)
    world.run_until(10.0)


def broken(world: SimWorld) -> None:
    world.run_until(3.0)
    world.reload(BROKEN)
    world.run_until(6.0)


STORIES = [start_and_stop, restart, reload, broken]


Story = Callable[[SimWorld], None]


def told(story: Story, kill_at: int | None, who: str) -> SimWorld:
    world = SimWorld(11, OLD)
    world.kill_at, world.kills = kill_at, who
    story(world)
    return world


@pytest.mark.parametrize("who", ["engine", "keeper", "both"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_killed_at_every_step(story: Story, who: str) -> None:
    steps = told(story, None, who).steps
    assert steps > 60
    for kill_at in range(1, steps + 1):
        world = told(story, kill_at, who)
        world.heal(200.0)
        check(world, f"killed {who} at step {kill_at} of {steps}", story)
        world.shut_down()


@pytest.mark.parametrize("who", ["engine", "keeper"])
def test_who_was_told_to_stop_stays_so_although_killed_at_any_step(who: str) -> None:
    def down(world: SimWorld) -> None:
        world.run_until(3.0)
        world.shut_down()

    steps = told(down, None, who).steps
    began = told(lambda world: world.run_until(3.0), None, who).steps
    for kill_at in range(began + 4, steps + 1):  # from the records of the stop on
        world = told(down, kill_at, who)
        where = f"killed {who} at step {kill_at} of {steps}"
        assert world.quit == 0, where
        stopped = world.entries(Kind.ENGINE_STOPPING)[0].seq
        late = [e for e in world.entries(Kind.STARTING) if e.seq > stopped]
        assert not late, f"{where}: started again: {late[0]}"
        opened = {e.subject for e in world.entries(Kind.SOCKETS_OPENED)}
        assert {e.subject for e in world.entries(Kind.SOCKETS_CLOSED)} >= opened, where


BREAKS = {broken: ("exit 1", "ended unseen")}
"""How processes end by themselves; nobody sees it while there is no keeper."""


def check(world: SimWorld, where: str, story: Story) -> None:
    """Nothing ends that was not told to, and what was asked for is there in the end."""
    asked: set[tuple[str, int]] = set()
    for entry in world.journal:
        run = int(entry.payload.get("run", 0))
        if entry.kind in (Kind.STOPPING.value, Kind.KILLING.value, Kind.DRAINING.value):
            asked.add((entry.subject, run))
        if entry.kind == Kind.EXITED.value and not entry.subject.startswith("setup"):
            ours = (entry.subject, run) in asked
            broke = entry.payload["cause"] in BREAKS.get(story, ("exit 1",))
            assert ours or broke, f"{where}: {entry} came by itself"
    alive = [(p.slot, p.run) for p in world.processes.values() if p.alive]
    assert len({slot for slot, _ in alive}) == len(alive), f"{where}: two of one: {alive}"
    assert world.candidate is None, f"{where}: a reload is left over"
    for slot, instance in world.engine.instances.items():
        assert instance.service is None, f"{where}: {slot} goes by an old definition"
