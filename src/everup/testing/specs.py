"""Random specs for the simulation."""

import random
from collections.abc import Mapping
from dataclasses import replace

from everup.model.spec import (
    Everup,
    Group,
    Hooks,
    Intensity,
    Listener,
    Probe,
    Probes,
    Restart,
    Rollout,
    Service,
    Spec,
    StormBrake,
    Strategy,
    Watchdog,
)

_NAMES = ("db", "cache", "migrate", "web", "worker", "mail")


def random_spec(rng: random.Random) -> Spec:
    """Two to six services over a random acyclic graph."""
    names = list(_NAMES[: rng.randint(2, len(_NAMES))])
    services: dict[str, Service] = {}
    for name in names:
        known = list(services)
        depends_on = tuple(rng.sample(known, rng.randint(0, min(2, len(known)))))
        services[name] = _service(rng, name, depends_on)
    groups = {}
    plain = [name for name, s in services.items() if s.type == "service"]
    if len(plain) >= 2 and rng.random() < 0.4:
        members = tuple(rng.sample(plain, rng.randint(2, len(plain))))
        groups["app"] = Group("app", members, rng.choice(list(Strategy)))
    brake = StormBrake(rng.choice((0, 20, 100)), rng.choice((10.0, 60.0)))
    return Spec(service=services, group=groups, everup=Everup(storm_brake=brake))


def changed_spec(rng: random.Random, spec: Spec) -> Spec:
    """Another config for the same site, as operators change it: some of it cannot work."""
    services = dict(spec.service)
    for name in list(services):
        if name not in services:  # gone with what it needed
            continue
        service = services[name]
        used = any(name in other.depends_on for other in services.values())
        grouped = any(name in group.services for group in spec.group.values())
        match rng.randrange(11):
            case 0 | 1 if service.type == "service":
                command = ("serve", f"v{rng.randrange(100)}")
                services[name] = replace(service, command=command)
            case 2 if service.type == "service":
                services[name] = replace(service, command=("serve", "broken"))
            case 3 if service.type == "service":
                probe = Probes(liveness=_probe(rng, 3)) if rng.random() < 0.5 else Probes()
                services[name] = replace(service, probe=probe, replicas=rng.randint(1, 3))
            case 4 if service.listen:
                address = Listener("main", f"127.0.0.1:{rng.randint(1, 60000)}")
                services[name] = replace(service, listen=(address,))
            case 5 if not used and not grouped and len(services) > 2:
                del services[name]
            case 6 if not grouped:
                _remove_with_users(services, name, spec.group)
            case 7:
                before = list(services)[: list(services).index(name)]
                edges = tuple(rng.sample(before, rng.randint(0, min(2, len(before)))))
                services[name] = replace(service, depends_on=edges)
            case _:
                pass
    if rng.random() < 0.3:
        name = f"extra{rng.randrange(3)}"
        services.setdefault(name, _service(rng, name, ()))
    services = {n: replace(s, command=("serve",)) if "broken" in s.command and rng.random() < 0.5
                else s for n, s in services.items()}  # fmt: skip
    group = spec.group
    if group and rng.random() < 0.3:  # another strategy, or none: each stands for itself again
        group = {
            name: replace(g, strategy=rng.choice(list(Strategy)))
            for name, g in group.items()
            if rng.random() < 0.5
        }
    return replace(spec, service=services, group=group)


def _remove_with_users(
    services: dict[str, Service], name: str, groups: Mapping[str, Group]
) -> None:
    """Remove a service together with all that depend on it, if enough is left."""
    going = {name}
    while more := {n for n, s in services.items() if going & set(s.depends_on)} - going:
        going |= more
    grouped = any(going & set(group.services) for group in groups.values())
    if not grouped and len(services) - len(going) >= 1:
        for gone in going:
            del services[gone]


def _service(rng: random.Random, name: str, depends_on: tuple[str, ...]) -> Service:
    restart = Restart(
        delay=rng.choice((0.0, 0.1, 1.0)),
        max_delay=rng.choice((1.0, 30.0)),
        jitter=rng.choice(("full", "equal", "none")),
        reset_after=rng.choice((0.5, 10.0)),
        intensity=Intensity(rng.randint(2, 6), rng.choice((5.0, 10.0, 30.0))),
        park_interval=rng.choice((5.0, 20.0)),
    )
    if name == "migrate":
        again = Restart(policy="on-failure", delay=0.5, max_delay=5.0, park_interval=5.0)
        return Service(name, ("migrate",), type="oneshot", depends_on=depends_on, restart=again)
    listen = (Listener("main", "127.0.0.1:80"),) if rng.random() < 0.6 else ()
    notify = rng.random() < 0.3
    return Service(
        name,
        ("serve",),
        listen=listen,
        replicas=rng.randint(1, 3),
        standby=rng.randint(0, 1) if listen else 0,
        depends_on=depends_on,
        probe=Probes(
            startup=_probe(rng, 60) if rng.random() < 0.3 else None,
            readiness=_probe(rng, 3) if rng.random() < 0.6 else None,
            liveness=_probe(rng, 3) if rng.random() < 0.6 else None,
        ),
        notify=notify,
        watchdog=Watchdog(rng.choice((1.0, 5.0))) if notify and rng.random() < 0.5 else None,
        restart=restart,
        start_timeout=rng.choice((5.0, 60.0)),
        stop_timeout=rng.choice((0.0, 1.0, 5.0)),
        drain_timeout=rng.choice((0.0, 0.0, 2.0)),
        overlap=rng.choice((None, None, None, False, True)),
        rollout=Rollout(rng.randint(1, 2), rng.choice((0.0, 0.0, 1.0))),
        hooks=Hooks(
            pre_start=("hook",) if rng.random() < 0.2 else None,
            post_start=("hook",) if rng.random() < 0.1 else None,
            pre_stop=("hook",) if rng.random() < 0.1 else None,
            post_stop=("hook",) if rng.random() < 0.1 else None,
        ),
    )


def _probe(rng: random.Random, failures: int) -> Probe:
    return Probe(
        tcp="listen",
        interval=rng.choice((0.2, 1.0)),
        timeout=rng.choice((0.1, 0.5)),
        failure_threshold=rng.randint(1, failures),
        success_threshold=rng.randint(1, 2),
        grace=1.0,  # above the longest start of a healthy process: else it could never come up
    )
