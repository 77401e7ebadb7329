"""Which replicas get new connections."""

from collections.abc import Mapping

from everup.model.instance import State
from everup.model.record import Instance

_COMING = (State.STARTING, State.RUNNING)


def choose(
    active: tuple[int, ...], replicas: int, instances: Mapping[int, Instance]
) -> tuple[int, ...]:
    """The lanes to steer to, given those that were active and how many should be.

    An active one that is ready stays; one that is lost is replaced at once by a ready standby and
    is itself the standby when it comes back, so nothing moves without need. A suspected replica
    counts as ready only when there is no better one: suspicion alone never empties the balance.
    With none ready, connections wait where a process is likeliest to come up first.
    """
    ready = [n for n, inst in sorted(instances.items()) if inst.state is State.READY]
    trusted = [n for n in ready if not instances[n].suspected]
    replicas = max(1, replicas)  # scaled to none: the last ones serve until they are down
    # The active ones first, then by number: that is the whole preference.
    order = sorted(trusted, key=lambda n: (n not in active, n))
    chosen = order[:replicas]
    if not chosen:
        chosen = sorted(ready, key=lambda n: (n not in active, n))[:replicas]
    if not chosen:
        coming = [n for n, i in sorted(instances.items()) if i.state in _COMING and i.want]
        wanted = [n for n, i in sorted(instances.items()) if i.want]
        chosen = (coming or wanted or sorted(instances))[:replicas]
    return tuple(sorted(chosen))
