"""When a process counts as started: all that shows it has been seen.

READY=1 where ``notify`` asks for it, and the startup probe. A service with ``listen`` but without
such a probe must accept one connection: the queue of a socket that everup keeps open takes
connections in whether or not anybody serves them.
"""

from everup.engine import onset
from everup.engine.state import Supervised
from everup.model.action import Watch
from everup.model.instance import State
from everup.model.journal import Kind
from everup.model.record import Instance
from everup.model.replacing import replace
from everup.model.spec import Service
from everup.supervise.awaited import missing
from everup.supervise.lifecycle import Happening, On


def said_ready(engine: Supervised, instance: Instance, now: float) -> None:
    """It has sent READY=1 while it starts."""
    service = engine.definition(instance)
    if not instance.said_ready:
        instance = replace(instance, said_ready=True)
        engine.put(instance, now)
        if missing(service, instance):  # an engine that comes after us must know
            engine.record(Kind.SAID_READY, str(instance.slot), run=instance.run)
            if service.probe.startup is None:
                engine.emit(Watch(instance.slot, instance.run, startup=True))
    _look(engine, service, instance, now)


def proven(engine: Supervised, instance: Instance, now: float) -> None:
    """Its startup probe has succeeded."""
    instance = replace(instance, proven=True)
    engine.put(instance, now)
    _look(engine, engine.definition(instance), instance, now)


def _look(engine: Supervised, service: Service, instance: Instance, now: float) -> None:
    if instance.state is State.STARTING and not missing(service, instance):
        answers = service.startup is not None and service.probe.readiness is None
        evidence = onset.serves(engine, instance, now) if answers else {}
        started = Happening(On.STARTED, evidence=evidence)
        engine.happen(instance.slot, started, now, instance.run)
