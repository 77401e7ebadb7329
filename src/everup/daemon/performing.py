"""Carries out the supervisor's actions: for each kind of action one function of it and the engine
process. The actions of other rooms are carried out by their edges."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from everup.adapters import targets
from everup.daemon import fencing, takeover
from everup.engine.observe import probe_of
from everup.model import action as actions
from everup.model.instance import Slot
from everup.model.journal import Kind
from everup.model.record import Instance
from everup.model.signal import ProbeKind
from everup.model.spec import Service

if TYPE_CHECKING:
    from everup.daemon.runtime import Runtime

Performer = Callable[[Any, Any], None]
"""``performer(action, host)``; the host is the ``Runtime``."""


def _spawn(action: actions.Spawn, host: "Runtime") -> None:
    instance, service = _process(host, action.slot, action.run)
    if action.until:
        fencing.arm(host, action.slot, action.run, action.until)
    host.crew.spawn(action, service, instance.restarts, instance.gen)


def _run_hook(action: actions.RunHook, host: "Runtime") -> None:
    host.crew.run_hook(action, _process(host, action.slot, action.run)[1])


def _process(host: "Runtime", slot: Slot, run: int) -> tuple[Instance, Service]:
    instance = host.engine.process(slot, run)
    assert instance is not None
    return instance, host.engine.definition(instance)


def _watch(action: actions.Watch, host: "Runtime") -> None:
    assert host.prober is not None
    slot, run = action.slot, action.run
    instance, service = _process(host, slot, run)
    kinds = [ProbeKind.STARTUP] if action.startup else [ProbeKind.READINESS, ProbeKind.LIVENESS]
    for kind in kinds:
        probe = probe_of(service, kind)
        if probe is not None:
            lane = host.bank.reached_as(service, probe, instance.lane or slot.replica)
            shared = sum(i.pid > 0 for i in host.engine.all_of(slot.service)) > 1
            session = instance.pid if shared else 0
            where = targets.target(service, slot, kind, run, probe, lane, session)
            host.prober.start(where)


def _unwatch(action: actions.Unwatch, host: "Runtime") -> None:
    assert host.prober is not None
    host.prober.stop(action.slot, action.run)


def _open_sockets(action: actions.OpenSockets, host: "Runtime") -> None:
    name = action.service
    try:
        host.bank.open(host.service(name), action.lanes)
    except OSError as error:  # told again, and tried again, with each start of the service
        host.record(Kind.SOCKETS_FAILED, name, detail=error.strerror or str(error))


def _empty_queue(action: actions.EmptyQueue, host: "Runtime") -> None:
    if action.service in host.engine.services:  # else its sockets are about to be closed
        host.bank.empty(host.service(action.service), action.lane)


def _forget(action: actions.Forget, host: "Runtime") -> None:
    host.cgroups.forget(action.slot)
    host.cgroups.forget(action.slot, second=True)


def _configure(action: actions.Configure, host: "Runtime") -> None:
    for instance in host.engine.of(action.service):
        host.logs.configure(str(instance.slot), host.service(action.service).log)


PERFORMERS: Final[dict[type, Performer]] = {
    actions.Spawn: _spawn,
    actions.RunHook: _run_hook,
    actions.Signal: lambda action, host: host.crew.signal(action),
    actions.GiveTime: lambda action, host: host.crew.give_time(action),
    actions.Bound: fencing.bound,
    actions.MainPid: lambda action, host: host.crew.main_pid(action.slot, action.run, action.pid),
    actions.Watch: _watch,
    actions.Unwatch: _unwatch,
    actions.WatchDrain: lambda action, host: host.drains.watch(action.slot, action.run),
    actions.OpenSockets: _open_sockets,
    actions.MendSockets: lambda action, host: host.listening.mend(action.service, action.anew),
    actions.EmptyQueue: _empty_queue,
    actions.CloseSockets: lambda a, host: host.bank.close(a.service, a.listen, a.kept),
    actions.SetBalance: lambda a, host: host.bank.steer(host.service(a.service), a.lanes),
    actions.Forget: _forget,
    actions.Configure: _configure,
    actions.Commit: lambda _, host: takeover.commit(host.place, host.shelf),
    actions.Discard: lambda _, host: takeover.discard(host.place, host.shelf),
    actions.Quit: lambda action, host: host.quit(action.status),
}
