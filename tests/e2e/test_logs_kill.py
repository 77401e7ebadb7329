"""kill -9 of a pump at random moments, while services write as fast as they can."""

import fcntl
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from everup.adapters.logs import LogPump
from everup.adapters.logs import _cri as cri
from everup.model.spec import Log

KILLS = 30
SERVICE = """
import os, random, signal, sys, time
rng = random.Random(int(sys.argv[1]))
stop = []
signal.signal(signal.SIGTERM, lambda *args: stop.append(1))
number = [0, 0]
end = time.monotonic() + 60
while not stop and time.monotonic() < end:
    stream = rng.randrange(2)
    count = rng.choice((1, 1, 3, 30, 300, 3000))
    lines = []
    for _ in range(count):
        lines.append(b"%08d " % number[stream] + b"x" * rng.choice((1, 40, 90, 900)) + b"\\n")
        number[stream] += 1
    data = memoryview(b"".join(lines))
    cut = rng.randrange(len(data)) if rng.random() < 0.3 else len(data)
    for part in (data[:cut], data[cut:]):
        while part:
            part = part[os.write(1 + stream, part):]
        if cut < len(data):
            time.sleep(rng.choice((0, 0.001)))
    time.sleep(0.0005)
for stream in 0, 1:
    data = b"end %08d" % number[stream]  # and no newline
    os.write(1 + stream, data)
"""


class Held:
    """A service and its pipes, as the keeper holds them."""

    def __init__(self, slot: str, seed: int) -> None:
        self.slot = slot
        out, err = os.pipe(), os.pipe()
        self.fds = {"stdout": out[0], "stderr": err[0]}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVICE, str(seed)], stdout=out[1], stderr=err[1]
        )
        os.close(out[1])
        os.close(err[1])

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for fd in self.fds.values():
            os.close(fd)


@pytest.fixture
def services() -> Iterator[list[Held]]:
    services = [Held(f"web.{number}", number) for number in (1, 2)]
    yield services
    for service in services:
        service.close()


LOG = Log(max_size=300_000, files=1000)


def pump(directory: Path, services: list[Held], *, resumed: bool, ended: bool = False) -> LogPump:
    pump = LogPump(directory, print)
    pump.start()
    for service in services:
        fds = {stream: os.dup(fd) for stream, fd in service.fds.items()}
        pump.attach(service.slot, 1, LOG, fds, resumed=resumed)
        if ended:
            pump.ended(service.slot, 1)
    return pump


def in_child(work: Callable[[], object]) -> int:
    pid = os.fork()
    if not pid:
        try:
            work()
            time.sleep(60)
        finally:
            os._exit(1)
    return pid


def lines(directory: Path, slot: str) -> dict[str, list[bytes]]:
    files = sorted(
        directory.glob(f"{slot}.log*"),
        key=lambda path: -int(path.suffix[1:] if path.suffix != ".log" else 0),
    )
    text = {stream: [b""] for stream in cri.STREAMS}
    for file in files:
        for line in file.read_bytes().split(b"\n")[:-1]:
            record = cri.parse(line)
            assert record is not None
            mine = text[record.stream]
            mine[-1] += record.text
            if not record.partial:
                mine.append(b"")
    return text


def test_no_line_is_lost_or_doubled(tmp_path: Path, services: list[Held]) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for number in range(KILLS):
        pid = in_child(lambda n=number: pump(tmp_path, services, resumed=n > 0))  # type: ignore[misc]
        time.sleep(rng.uniform(0.002, 0.12))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    last = pump(tmp_path, services, resumed=True)
    for service in services:
        service.process.terminate()
        assert service.process.wait(30) == 0
        last.ended(service.slot, 1)
    last.close(30)
    count = 0
    for service in services:
        for stream, found in lines(tmp_path, service.slot).items():
            *numbered, end, rest = found
            assert rest == b""
            assert end == b"end %08d" % len(numbered), f"{service.slot} {stream}"
            assert [int(line[:8]) for line in numbered] == list(range(len(numbered)))
            assert all(len(line) in (10, 49, 99, 909) for line in numbered)
            count += len(numbered)
    assert count > 1000  # a vain test otherwise


def test_a_clean_leave_splits_no_line(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"one\nhalf of ")
    for resumed, rest in ((False, b"a "), (True, b"line\nand"), (True, b"")):
        pump = LogPump(tmp_path, print)
        pump.start()
        pump.attach("web.1", 1, Log(), {"stdout": os.dup(reader)}, resumed=resumed)
        pump.close()
        os.write(writer, rest)
    content = (tmp_path / "web.1.log").read_bytes()
    assert [line[40:] for line in content.splitlines()] == [b"one", b"half of a line"]
    assert os.read(reader, 99) == b"and"
    os.close(reader)
    os.close(writer)


def test_a_line_larger_than_the_pipe_is_one_record(tmp_path: Path) -> None:
    """The pipe grows for it, if it may; the service, which waits for room, goes on."""
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 16)
    except PermissionError:
        pytest.skip("this user may not have larger pipes")
    line = b"x" * 300_000 + b"\n"
    pump = LogPump(tmp_path, print)
    pump.start()
    pump.attach("web.1", 1, Log(max_line=1 << 19), {"stdout": reader})
    code = "import os\nfor _ in range(3): os.write(1, b'x' * 300_000 + b'\\n')"
    assert subprocess.run([sys.executable, "-c", code], stdout=writer, timeout=60).returncode == 0
    pump.ended("web.1", 1)
    pump.close()
    os.close(writer)
    content = (tmp_path / "web.1.log").read_bytes()
    assert [record[38:] for record in content.splitlines(keepends=True)] == [b"F " + line] * 3
