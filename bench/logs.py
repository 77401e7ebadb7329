"""How fast output is captured, and how late an event loop in the same process gets meanwhile.

    python bench/logs.py [SECONDS_PER_ROW]

Each row floods one pipe from a child that writes blocks of equal lines as fast as it can, while
an asyncio loop in the main thread keeps a 10 ms tick, as the engine does. ``single`` writes each
line with a write(2) of its own. ``idle`` is the tick without any output: what the machine itself
makes of it. About ten seconds in all.
"""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from everup.adapters.logs import LogPump
from everup.model.spec import Log

_TICK_S = 0.01
_WRITER = """
import os, sys
length, count = int(sys.argv[1]), int(sys.argv[2])
block = (b"x" * (length - 1) + b"\\n") * count
while True:
    os.write(1, block)
"""


def _spawn(length: int, count: int) -> tuple[subprocess.Popen[bytes], int]:
    reader, writer = os.pipe()
    # Both ways, as the keeper opens it for a service.
    both = os.open(f"/proc/self/fd/{writer}", os.O_RDWR)
    child = subprocess.Popen([sys.executable, "-c", _WRITER, str(length), str(count)], stdout=both)
    os.close(writer)
    os.close(both)
    return child, reader


async def _ticks(seconds: float) -> list[float]:
    loop = asyncio.get_running_loop()
    late: list[float] = []
    end = loop.time() + seconds
    while (due := loop.time() + _TICK_S) < end:
        await asyncio.sleep(_TICK_S)
        late.append((loop.time() - due) * 1000)
    return sorted(late)


def _row(name: str, length: int, count: int, seconds: float, floods: int = 1) -> None:
    directory = Path(tempfile.mkdtemp(prefix="everup-bench-"))
    pump = LogPump(directory, print)
    pump.start()
    children = []
    for number in range(floods if length else 0):
        child, reader = _spawn(length, count)
        children.append(child)
        pump.attach(f"web.{number}", 1, Log(), {"stdout": reader})
    try:
        time.sleep(0.3)  # the children start
        before = sum(stats.bytes for stats in pump.stats().values())
        cpu, start = time.thread_time(), time.monotonic()
        process = time.process_time()
        late = asyncio.run(_ticks(seconds))
        took = time.monotonic() - start
        share = (time.process_time() - process - (time.thread_time() - cpu)) / took
        stored = sum(stats.bytes for stats in pump.stats().values()) - before
    finally:
        for child in children:
            child.kill()
            child.wait()
        pump.close()
        shutil.rmtree(directory)
    p50, p99, worst = late[len(late) // 2], late[len(late) * 99 // 100], late[-1]
    print(
        f"{name:>16} {stored / took / 1e6:8.0f} {100 * share:7.0f} {p50:8.2f} {p99:8.2f}"
        f" {worst:8.2f}"
    )


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    print(
        f"{'bytes per line':>16} {'MB/s':>8} {'CPU %':>7} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}"
    )
    _row("idle", 0, 0, seconds)
    for length in (20, 100, 1000):
        _row(str(length), length, (256 << 10) // length, seconds)
    _row("100, single", 100, 1, seconds)
    _row("100, 8 services", 100, 2600, seconds, floods=8)


if __name__ == "__main__":
    main()
