"""Waiting for instances, with a line that says what is still missing."""

import http.client
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Self, TypeVar

from everup.cli.client import Client, SilentError, keeper_lives
from everup.cli.context import INTERRUPTED, NOT_RUNNING, Failure
from everup.cli.screen import overwrite
from everup.model.display import shown_line

T = TypeVar("T")
Instances = dict[str, dict[str, Any]]
_POLL_S = 0.05
_AWAY_S = 5.0
"""Both processes of everup may be killed while a command waits; so long for the next ones."""
_SHOW_AFTER_S = 0.5
_SPINNER = "|/-\\"
_SETTLED_S = 0.3
"""An instance that nothing asks whether it is ready is ready as soon as its process is there. So
it has to last for a moment before we say that it is up, and for longer once it has crashed."""
_SETTLED_AFTER_CRASH_S = 2.0


def instances(status: dict[str, Any]) -> Instances:
    """By slot, each with its service's name and type."""
    return {
        instance["slot"]: instance | {"service": service["name"], "type": service["type"]}
        for service in status["services"]
        for instance in service["instances"]
    }


class Line:
    """One line on a terminal that says what is still missing, once it takes longer; gone at the end
    of its block. Who leaves with Ctrl-C is told that everup does not."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._turn = 0

    def show(self, text: str, *, at_once: bool = False) -> None:
        """``at_once``: what comes next is known to take long."""
        waited_s = time.monotonic() - self._began
        if (at_once or waited_s > _SHOW_AFTER_S) and sys.stderr.isatty():
            self._turn += 1
            self._write(f"{_SPINNER[self._turn % 4]} {waited_s:.0f} s: {text}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if self._turn:
            self._write("")
        if isinstance(error, KeyboardInterrupt):
            text = "no longer waiting; everup goes on with it"
            raise Failure(text, "look: everup status", INTERRUPTED) from None

    def _write(self, text: str) -> None:
        width = shutil.get_terminal_size().columns - 1
        overwrite(text[:width])


def patiently(client: Client, ask: Callable[[], T], until: float) -> T:
    """Ask until there is a whole answer, up to that time: engine and keeper may die, or be
    replaced, in the middle of one. ``Failure`` otherwise."""
    alone_since = None
    while True:
        try:
            return ask()
        except (OSError, http.client.HTTPException, ValueError):
            failure = Failure("everup does not answer", "look: everup status", NOT_RUNNING)
        except Failure as error:
            failure = error
        now = time.monotonic()
        alone_since = None if keeper_lives(client.place) else alone_since or now
        gone = alone_since is not None and now - alone_since > _AWAY_S
        passes = failure.status == NOT_RUNNING or isinstance(failure, SilentError)
        if not passes or gone or now > until:
            raise failure
        time.sleep(_POLL_S)


def wait(
    client: Client,
    slots: Iterable[str] | None,
    reached: Callable[[dict[str, Any]], bool],
    hopeless: Callable[[dict[str, Any]], bool],
    timeout_s: float,
) -> tuple[bool, Instances]:
    """Until all slots (None: all there are) have reached it, or one is hopeless, or time is up."""
    began = time.monotonic()
    wanted = None if slots is None else list(slots)
    with Line() as line:
        while True:
            status = patiently(client, lambda: client.get("/v1/status"), began + timeout_s)
            now = instances(status)
            mine = now if wanted is None else {s: now[s] for s in wanted if s in now}
            missing = {slot: i for slot, i in mine.items() if not reached(i)}
            waited = time.monotonic() - began
            if not missing:
                return True, mine
            if any(hopeless(i) for i in missing.values()) or waited > timeout_s:
                return False, mine
            line.show(_missing(missing))
            time.sleep(_POLL_S if waited < 2 else 4 * _POLL_S)


def _missing(missing: Instances) -> str:
    parts = [f"{slot} is {i['state']}" for slot, i in list(missing.items())[:3]]
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    return ", ".join(parts) + more


def is_settled(instance: dict[str, Any]) -> bool:
    """Up, and not only for the moment between two crashes."""
    if instance["state"] != "ready":
        return is_up(instance)
    if instance["attempt"]:
        return bool(instance["since_s"] >= _SETTLED_AFTER_CRASH_S)
    answers = instance["probes"].values()
    asked = bool(answers) and all(answer["ok"] for answer in answers)
    return asked or bool(instance["since_s"] >= _SETTLED_S)


def is_up(instance: dict[str, Any]) -> bool:
    """As it should be: ready, or a oneshot that is done, or not meant to run, or not here."""
    rests = instance["done"] or not instance["want"] or instance.get("elsewhere", False)
    return instance["state"] == "ready" or rests


def is_hopeless(instance: dict[str, Any]) -> bool:
    return bool(instance["want"]) and instance["state"] in ("failed", "parked")


def is_stopped(instance: dict[str, Any]) -> bool:
    return instance["state"] in ("stopped", "failed")


def explain(instances: Instances) -> list[str]:
    """A line for each that is not as it should be."""
    lines = []
    for slot, i in instances.items():
        if not is_settled(i):
            why = i["reason"] or i["last_exit"] or ""
            lines.append(shown_line(f"{slot} is {i['state']}" + (f": {why}" if why else "")))
    return lines


def not_well(client: Client, what: str, instances: Instances, next_command: str) -> Failure:
    """The end of a wait that did not get there, with the causes that are known."""
    from everup.rooms.locate.read import brief

    if any(is_hopeless(i) for i in instances.values()):
        what = "this does not come up by itself"
    lines = explain(instances)
    failing = [slot for slot, i in instances.items() if not is_settled(i)]
    for slot, says in brief(client.place, failing[:10]).items():
        lines.append(shown_line(f"{slot}: because {says}"))
    shown = "".join(f"\n  {line}" for line in lines[:10])
    more = f"\n  and {len(lines) - 10} more" if len(lines) > 10 else ""
    return Failure(f"{what}:{shown}{more}", f"look: {next_command}", 4)
