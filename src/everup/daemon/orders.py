"""What an operator says to everup by signals, which the keeper passes on."""

import signal
from typing import TYPE_CHECKING

from everup.adapters import aside
from everup.daemon.recheck import config_problems
from everup.model.action import Signal
from everup.model.event import Down
from everup.model.journal import Kind

if TYPE_CHECKING:
    from everup.daemon.runtime import Runtime

_READ_S = 10.0


def obey(runtime: "Runtime", number: int) -> None:
    """SIGTERM and its like: everything down, and at once when it is said again; SIGHUP: look
    whether the config file is valid."""
    name = signal.Signals(number).name
    match number:
        case signal.SIGTERM | signal.SIGINT | signal.SIGQUIT:
            if runtime.engine.quitting:
                _hurry(runtime, name)
            else:
                runtime.dispatch(Down(by=name))
        case signal.SIGHUP:
            runtime.spawn_task(_check_config(runtime))


def _hurry(runtime: "Runtime", by: str) -> None:
    """Asked a second time: no more patience."""
    runtime.voice.say(f"{by} again: killing what is left")
    engine = runtime.engine
    for instance in [*engine.instances.values(), *engine.outgoing.values()]:
        if instance.has_process:
            reason, slot = f"{by} a second time", instance.slot
            runtime.record(Kind.KILLING, str(slot), run=instance.run, reason=reason)
            runtime.crew.signal(Signal(slot, instance.run, "SIGKILL", "all"))


async def _check_config(runtime: "Runtime") -> None:
    try:
        problems = await aside.run(_READ_S, config_problems, runtime.place)
    except OSError as error:
        problems = [f"{runtime.place.config} cannot be read: {error}"]
    if problems:
        file = runtime.place.config
        runtime.record(Kind.CONFIG, "everup", file=file, problems=problems[:50])
    else:
        runtime.voice.say("the config file is valid; apply it: everup reload")
