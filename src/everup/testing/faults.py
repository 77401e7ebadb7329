"""What goes wrong in a simulated world, and what operators do meanwhile."""

from random import Random
from typing import TYPE_CHECKING

from everup.model.event import (
    Restart,
    Scale,
    SocketsLost,
    SocketsMoved,
    Start,
    Stop,
    Stranger,
    Strangers,
)
from everup.testing import hangs
from everup.testing.specs import changed_spec

if TYPE_CHECKING:
    from everup.testing.sim import SimWorld


def run(world: "SimWorld", seconds: float) -> None:
    """Random faults and random operators, for so long."""
    world.faulty = True
    end = world.now + seconds
    while world.now < end:
        world.run_until(min(end, world.now + world.rng.expovariate(1.5)))
        if world.own_hangs is not None and world.own_hangs.random() < 0.1:
            _hang(world, world.own_hangs)
        elif world.hang is None or world.hang.who == "keeper":
            _fault(world)
    world.faulty = False


def _hang(world: "SimWorld", rng: Random) -> None:
    who: hangs.Who = "engine" if rng.random() < 0.5 else "keeper"
    hangs.begin(world, who, rng.uniform(0.5, 12.0))


def _fault(world: "SimWorld") -> None:
    rng = world.rng
    alive = [p for p in world.processes.values() if p.alive]
    kind = rng.random()
    if alive and kind < 0.55:
        process = rng.choice(alive)
        match rng.randrange(6):
            case 0:
                world.end(process)
            case 1:
                world.end(process, code=rng.choice((0, 1, 7)))
            case 2:
                process.hung = True
            case 3:
                process.unready = not process.unready
            case 4:
                process.silent = True
            case _:
                process.ignores_term = True
    elif kind < 0.65:
        world.starved_until = world.now + rng.uniform(0.1, 5.0)
    elif kind < 0.72 and world.engine_deaths:
        world.die(rng.choice(("engine", "keeper", "both")))
    elif kind < 0.76:
        _meddle(world)
    else:
        _operate(world)


def _meddle(world: "SimWorld") -> None:
    """Somebody does something to the listening sockets of a service."""
    rng = world.rng
    names = [name for name, service in world.engine.services.items() if service.listen]
    if not names:
        return
    name = rng.choice(names)
    mine = [i for i in world.engine.all_of(name) if i.pid]
    match rng.randrange(4):
        case 0:
            world.dispatch(SocketsLost(name, ("main",), anew=rng.random() < 0.3))
        case 1:
            world.dispatch(SocketsMoved(name))
        case 2 if mine:
            one = rng.choice(mine)
            world.dispatch(Strangers(name, (Stranger("by itself", one.slot, one.run),)))
        case _:
            world.dispatch(Strangers(name, (Stranger("somebody"),)))


def leave_alone(world: "SimWorld") -> None:
    """Nobody is on the ports of services any more."""
    for name, service in list(world.engine.services.items()):
        if service.listen:
            world.dispatch(Strangers(name, ()))


def _operate(world: "SimWorld") -> None:
    rng, slots = world.rng, list(world.engine.instances)
    if not slots:
        return
    some = tuple(rng.sample(slots, rng.randint(1, min(3, len(slots)))))
    match rng.randrange(7):
        case 0 | 1:
            world.dispatch(Start(some, "operator"))
        case 2:
            world.dispatch(Stop(some, "operator"))
        case 3 | 4:
            world.dispatch(Restart(some, "operator"))
        case 5:
            world.reload(changed_spec(rng, world.spec))
        case _:
            names = [n for n, s in world.engine.services.items() if s.type == "service"]
            if names:
                world.dispatch(Scale(rng.choice(names), rng.randint(0, 4), "operator"))
