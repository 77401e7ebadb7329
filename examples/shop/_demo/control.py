"""everup by its command line, as any script would use it."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil


class DemoError(Exception):
    """Something did not happen; the text says what was expected."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of the journal."""

    seq: int
    time: str
    mono_s: float
    kind: str
    subject: str
    payload: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Instance:
    """One replica as ``everup status`` shows it."""

    slot: str
    state: str
    pid: int | None


class Everup:
    """Runs ``everup -c CONFIG ...``; every command is bounded in time."""

    def __init__(self, program: Path, config: Path) -> None:
        self._program = program
        self._config = config
        # The services are started by name (python): it must be the one that has uvicorn.
        here = Path(sys.executable).parent
        path = f"{here}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self._environment = os.environ | {"PATH": path}

    async def run(self, *arguments: str, timeout_s: float, fine: tuple[int, ...] = (0,)) -> str:
        """Run one command and return its output; ``DemoError`` unless its exit status is fine (4:
        not everything is ready)."""
        name = f"everup {' '.join(arguments)}"
        process = await asyncio.create_subprocess_exec(
            str(self._program),
            "-c",
            str(self._config),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._environment,
            start_new_session=True,  # Ctrl-C is for the demo, which then takes everup down in order
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), timeout_s)
        except TimeoutError:
            raise DemoError(f"{name}: expected an end within {timeout_s:g} s") from None
        finally:
            if process.returncode is None:
                await _end(process)
        if process.returncode not in fine:
            text = (err or out).decode(errors="replace").strip()
            raise DemoError(f"{name}: expected exit status 0, got {process.returncode}\n{text}")
        return out.decode(errors="replace")

    async def instances(self, service: str) -> list[Instance]:
        """The replicas of a service."""
        status = json.loads(await self.run("status", "--json", timeout_s=10, fine=(0, 4)))
        for entry in status["services"]:
            if entry["name"] == service:
                return [Instance(i["slot"], i["state"], i.get("pid")) for i in entry["instances"]]
        raise DemoError(f"everup status: expected a service {service!r}")

    async def breakers(self, service: str, dependency: str) -> dict[str, str]:
        """What each replica says of its breaker of a dependency; empty where it says nothing."""
        status = json.loads(await self.run("status", "--json", timeout_s=10, fine=(0, 4)))
        (entry,) = (entry for entry in status["services"] if entry["name"] == service)
        return {
            instance["slot"]: str(
                (instance["dependencies"].get(dependency) or {}).get("state") or ""
            )
            for instance in entry["instances"]
        }

    async def events(self, service: str | None = None, count: int = 500) -> list[Event]:
        """The latest events, oldest first."""
        chosen = [] if service is None else ["--service", service]
        text = await self.run("events", "--json", *chosen, "-n", str(count), timeout_s=10)
        events = [_event(json.loads(line)) for line in text.splitlines() if line.strip()]
        return sorted(events, key=lambda event: event.seq)[-count:]


def left_over(directory: Path) -> list[psutil.Process]:
    """Processes that belong to this run: they work in its directory or name it."""
    mark, found = str(directory), []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid():
                continue
            if process.cwd() == mark or any(mark in word for word in process.cmdline()):
                found.append(process)
    return found


def kill_left_over(directory: Path) -> int:
    """Kill them, again as long as new ones come (at most five times); how many there were."""
    killed = 0
    for _ in range(5):
        processes = left_over(directory)
        if not processes:
            break
        for process in processes:
            with contextlib.suppress(psutil.Error):
                process.kill()
                killed += 1
        psutil.wait_procs(processes, timeout=2)
    return killed


async def _end(process: asyncio.subprocess.Process) -> None:
    for number, wait_s in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), wait_s)
            return


def _event(line: dict[str, object]) -> Event:
    known = {"seq", "time", "mono", "kind", "subject"}
    payload = {key: value for key, value in line.items() if key not in known}
    nested = payload.get("payload")
    if isinstance(nested, dict):
        payload = nested
    return Event(
        int(str(line["seq"])),
        str(line["time"]),
        float(str(line["mono"])),
        str(line["kind"]),
        str(line.get("subject", "")),
        payload,
    )
