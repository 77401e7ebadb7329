"""Listens to the sampler, reads the output, and keeps series of both."""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from everup.observer import kept
from everup.observer.events import Output, Sampled, Wrote
from everup.rooms.monitor.points import Points, points
from everup.rooms.monitor.series import Store
from everup.rooms.monitor.tail import Tail

_INTERVAL_S: Final = 1.0
_AGAIN_S: Final = 1.0
_LINE: Final = 8 << 20
_SILENT_S: Final = 30.0
_SAVE_S: Final = 10.0


class Recorder:
    """Keeps the series. A disk that does not answer costs points, and holds nobody up."""

    def __init__(self, folder: Path) -> None:
        self._store = Store(folder)
        self._before: Sampled | None = None
        self._wrote: dict[str, Wrote] = {}
        self._wrote_at = 0.0
        self._busy: asyncio.Task[None] | None = None
        self.missed = 0

    def wrote(self, wrote: Mapping[str, Wrote]) -> None:
        """Take what was written since the last time."""
        for name, more in wrote.items():
            had = self._wrote.get(name, Wrote(0))
            self._wrote[name] = Wrote(had.lines + more.lines, had.errors + more.errors)

    def sampled(self, sample: Sampled) -> None:
        """Take a sample, and store what it and the output come to."""
        wrote_s = sample.mono - self._wrote_at if self._wrote_at else 0.0
        found = list(points(sample, self._before, self._wrote, wrote_s))
        self._before, self._wrote, self._wrote_at = sample, {}, sample.mono
        if self._busy is not None and not self._busy.done():
            self.missed += 1
            return
        self._busy = asyncio.create_task(asyncio.to_thread(self._put, sample.at, found))

    def _put(self, at: float, found: list[tuple[str, Points]]) -> None:
        self._store.keep([subject for subject, _ in found])
        for subject, (metrics, values) in found:
            with contextlib.suppress(OSError):
                self._store.put(subject, metrics, at, values)

    async def close(self) -> None:
        """Write what is left."""
        if self._busy is not None:
            await asyncio.wait({self._busy}, timeout=_AGAIN_S)
            if not self._busy.done():
                return
        self._store.close()


async def run(host: Any) -> None:
    """Do all of it until cancelled."""
    recorder = Recorder(host.folder("monitor") / "series")
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_listen(host, recorder))
            group.create_task(_read(host, recorder))
    finally:
        await recorder.close()


async def _listen(host: Any, recorder: Recorder) -> None:
    """Take samples, also over the death of samplers, until cancelled."""
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(
                host.place.sampler_socket, limit=_LINE
            )
        except OSError:
            await asyncio.sleep(_AGAIN_S)
            continue
        try:
            await _take(host, recorder, reader, writer)
        except (OSError, ValueError, KeyError, TypeError, TimeoutError, asyncio.LimitOverrunError):
            await asyncio.sleep(_AGAIN_S)
        finally:
            writer.close()


async def _take(
    host: Any, recorder: Recorder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    asked: dict[str, Any] = {}
    while True:
        wanted = _wanted(host)
        if wanted != asked:
            asked = wanted
            writer.write(json.dumps(wanted).encode() + b"\n")
            await writer.drain()
        line = await asyncio.wait_for(reader.readline(), _SILENT_S)
        if not line:
            return
        sample = _sample(json.loads(line), host.world.sockets)
        for name, ends in sample.peers.items():
            host.world.connected(name, ends, sample.at)
        recorder.sampled(sample)
        host.dispatch(sample)


def _wanted(host: Any) -> dict[str, Any]:
    """What is to be measured: who lives, and the listening sockets that everup has opened."""
    world = host.world
    alive = {seen.name: (seen.pid, seen.cgroup) for seen in world.instances.values() if seen.pid}
    return {
        "interval_s": _INTERVAL_S,
        "instances": alive,
        "inodes": sorted(world.sockets),
    }


def _sample(line: Mapping[str, Any], sockets: Mapping[int, str]) -> Sampled:
    queues: dict[str, tuple[int, int]] = {}
    for inode, (waiting, limit) in line["queues"].items():
        name = sockets.get(int(inode), "")
        if name and waiting >= queues.get(name, (-1, 0))[0]:
            queues[name] = (int(waiting), int(limit))
    return Sampled(
        float(line["at"]),
        float(line["mono"]),
        line["machine"],
        line["instances"],
        queues,
        line["disks"],
        {name: tuple(map(str, ends)) for name, ends in line["peers"].items()},
    )


async def _read(host: Any, recorder: Recorder) -> None:
    """Read the output of all instances as it is written, until cancelled."""
    place = host.folder("monitor") / "output.json"
    tail = Tail(Path(host.place.logs), await asyncio.to_thread(kept.read, place))
    saved = time.monotonic()
    try:
        while True:
            names = sorted(host.world.instances)
            wrote = await asyncio.to_thread(tail.poll, names)
            recorder.wrote(wrote)
            host.dispatch(Output(time.time(), wrote))
            if tail.changed and time.monotonic() - saved >= _SAVE_S:
                await asyncio.to_thread(kept.write, place, tail.state())
                saved = time.monotonic()
            await asyncio.sleep(_INTERVAL_S)
    finally:
        kept.write(place, tail.state())
        tail.close()


SOURCES: Final = (run,)
PERFORMERS: Final[dict[type, Any]] = {}
