"""Does what rungs are: asks the engine, runs the service's own switches."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from everup.observer.running import RunError, run
from everup.rooms.recover.actions import Climb, Climbed

_COMMAND_S: Final = 60.0


def _climb(action: Climb, host: Any) -> None:
    host.start(_do(action, host))


async def _do(action: Climb, host: Any) -> None:
    error = ""
    try:
        await host.written()  # whoever comes after this observer must know
        await _DO[action.rung](action, host)
    except PermissionError as refused:
        error = str(refused)
    except (OSError, RunError) as failed:
        error = f"{failed}"[:500]
    done = Climbed(action.number, action.rung, action.owner, action.undo, error)
    host.dispatch(done)


async def _restart(action: Climb, host: Any) -> None:
    await host.ask("restart", action.subject, action.why)


async def _clean_restart(action: Climb, host: Any) -> None:
    await _run(host.spec.service[action.owner].recover.clean, action)
    await host.ask("restart", action.subject, action.why)


async def _scale(action: Climb, host: Any) -> None:
    await host.ask("scale", action.subject, action.why, max(1, action.replicas))


async def _degrade(action: Climb, host: Any) -> None:
    recover = host.spec.service[action.owner].recover
    await _run(recover.degrade_off if action.undo else recover.degrade_on, action)


async def _failover(action: Climb, host: Any) -> None:
    await host.ask("start", action.subject, action.why)


async def _run(command: tuple[str, ...], action: Climb) -> None:
    if command:
        environment = {
            "EVERUP_INCIDENT": str(action.number),
            "EVERUP_SERVICE": action.owner,
            "EVERUP_RUNG": action.rung,
        }
        await run(command, environment=environment, timeout_s=_COMMAND_S)


_DO: Final[Mapping[str, Callable[[Climb, Any], Awaitable[None]]]] = {
    "restart": _restart,
    "restart_dependency": _restart,
    "clean_restart": _clean_restart,
    "scale": _scale,
    "degrade": _degrade,
    "failover": _failover,
}
SOURCES: Final = ()
PERFORMERS: Final = {Climb: _climb}
