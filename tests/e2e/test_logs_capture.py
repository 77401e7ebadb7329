"""Output of real processes through real pipes into files.

One line of 1 GiB was tried by hand as well: 3.5 s, every byte there, 32 MB of memory.
"""

import fcntl
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from everup.adapters.logs import (
    Follower,
    LogEvent,
    LogLoss,
    LogPump,
    LogRecovered,
    SlotStats,
    tail,
)
from everup.adapters.logs import _cri as cri
from everup.adapters.logs._file import SlotFile
from everup.model.spec import Log

WRITE_ALL = """
import os, sys, time
def put(data, fd=1):
    data = memoryview(data)
    while data:
        data = data[os.write(fd, data):]
"""


def wait_for(condition: Callable[[], object], what: str, deadline_s: float = 20) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.005)


class Bench:
    """A pump and the children that write into it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.events: list[LogEvent] = []
        self.children: list[subprocess.Popen[bytes]] = []
        self.pump = LogPump(directory, self.events.append, linger_s=1)
        self.pump.start()

    def pipe(self) -> tuple[int, int]:
        reader, writer = os.pipe()
        both = os.open(f"/proc/self/fd/{writer}", os.O_RDWR)
        os.close(writer)
        return reader, both

    def run(
        self, code: str, *args: str, slot: str = "web.1", run: int = 1, log: Log | None = None
    ) -> subprocess.Popen[bytes]:
        out, err = self.pipe(), self.pipe()
        child = subprocess.Popen(
            [sys.executable, "-c", WRITE_ALL + code, *args], stdout=out[1], stderr=err[1]
        )
        os.close(out[1])
        os.close(err[1])
        self.children.append(child)
        self.pump.attach(slot, run, log or Log(), {"stdout": out[0], "stderr": err[0]})
        return child

    def attach_pipe(self, slot: str = "web.1", run: int = 1, log: Log | None = None) -> int:
        reader, writer = self.pipe()
        self.pump.attach(slot, run, log or Log(), {"stdout": reader})
        return writer

    def stats(self, slot: str = "web.1") -> SlotStats:
        return self.pump.stats().get(slot, SlotStats(0, 0, 0, 0))

    def texts(self, n: int = 100, slot: str = "web.1") -> list[bytes]:
        return [line.text for line in tail(self.directory, [slot], n)]

    def payload(self, slot: str = "web.1") -> bytes:
        files = sorted(
            self.directory.glob(f"{slot}.log*"),
            key=lambda path: -int(path.suffix[1:] if path.suffix != ".log" else 0),
        )
        out = []
        for file in files:
            for line in file.read_bytes().split(b"\n")[:-1]:
                record = cri.parse(line)
                assert record is not None
                out += [record.text, b"" if record.partial else b"\n"]
        return b"".join(out)

    def close(self) -> None:
        for child in self.children:
            child.kill()
            child.wait()
        self.pump.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path / "logs")
    yield bench
    bench.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "everup-test", str(path)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted with CAP_SYS_ADMIN")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def test_a_hundred_megabytes_come_whole_and_in_order(bench: Bench) -> None:
    code = """
line = b"%010d " + b"x" * 88 + b"\\n"
for start in range(0, 1_000_000, 10_000):
    put(b"".join(line % number for number in range(start, start + 10_000)))
"""
    child = bench.run(code, log=Log(max_size=20 << 20, files=20))
    assert child.wait() == 0
    bench.pump.ended("web.1", 1)
    wait_for(lambda: bench.stats().lines >= 1_000_000, "all lines")
    bench.pump.close()
    assert bench.stats() == SlotStats(100_000_000, 1_000_000, 0, 0)
    content = bench.payload()
    assert len(content) == 100_000_000
    assert all(int(content[at : at + 10]) * 100 == at for at in range(0, len(content), 100))
    assert len(list(bench.directory.glob("web.1.log*"))) >= 7
    assert bench.events == []


def test_one_line_of_64_mebibytes(bench: Bench) -> None:
    code = "put(b'a' * (64 << 20)); put(b'\\nnext\\n')"
    child = bench.run(code, log=Log(max_size=1 << 30))
    assert child.wait() == 0
    bench.pump.ended("web.1", 1)
    wait_for(lambda: bench.stats().lines == 2, "both lines")
    assert bench.payload() == b"a" * (64 << 20) + b"\nnext\n"
    lines = tail(bench.directory, ["web.1"], 2)
    assert [(len(line.text), line.truncated) for line in lines] == [(1 << 20, True), (4, False)]


def test_binary_output_is_stored_as_it_is(bench: Bench) -> None:
    code = """
import random
data = random.Random(7).randbytes(3 << 20)
put(data)
put(data[::-1], 2)
"""
    child = bench.run(code)
    assert child.wait() == 0
    bench.pump.ended("web.1", 1)
    import random

    data = random.Random(7).randbytes(3 << 20)
    wait_for(lambda: bench.stats().bytes == 2 * len(data), "all bytes")
    bench.pump.close()
    got: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
    for line in (bench.directory / "web.1.log").read_bytes().split(b"\n")[:-1]:
        record = cri.parse(line)
        assert record is not None
        got[record.stream] += [record.text, b"" if record.partial else b"\n"]
    for stream, sent in (("stdout", data), ("stderr", data[::-1])):
        assert b"".join(got[stream]) == sent + (b"" if sent.endswith(b"\n") else b"\n")


def test_the_last_byte_before_sigkill_is_there(bench: Bench) -> None:
    for run in range(1, 21):
        code = (
            "put(b'run %s ' % sys.argv[1].encode() + b'y' * 30000 + b'!'); os.kill(os.getpid(), 9)"
        )
        child = bench.run(code, str(run), run=run)
        assert child.wait() == -signal.SIGKILL
        bench.pump.ended("web.1", run)
    wait_for(lambda: bench.stats().lines == 20, "the unfinished line of every run")
    expected = [b"run %d " % run + b"y" * 30000 + b"!" for run in range(1, 21)]
    assert bench.texts() == expected


def test_children_that_outlive_the_main_process_are_read_a_while(bench: Bench) -> None:
    code = """
put(b"parent")
if os.fork() == 0:
    time.sleep(0.2)
    put(b"child\\n")
    time.sleep(60)
os._exit(0)
"""
    reader, writer = bench.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", WRITE_ALL + code], stdout=writer, start_new_session=True
    )
    try:
        bench.pump.attach("web.1", 1, Log(), {"stdout": reader})
        child.wait()
        bench.pump.ended("web.1", 1)
        wait_for(lambda: bench.texts() == [b"parent", b"child"], "both lines")
        wait_for(lambda: not os.path.exists(f"/proc/self/fd/{reader}"), "the pipe is closed")
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        os.close(writer)


def test_a_prompt_can_be_followed_before_its_line_ends(bench: Bench) -> None:
    with Follower(bench.directory, ["web.1"]) as follower:
        writer = bench.attach_pipe()
        os.write(writer, b"password: ")
        found = []

        def prompted() -> bool:
            found.extend(follower.poll())
            return bool(found)

        wait_for(prompted, "the prompt")
        assert [(line.text, line.more) for line in found] == [(b"password: ", True)]
        os.write(writer, b"ok\n")
        os.close(writer)
        wait_for(lambda: bench.stats().lines == 1, "the end of the line")
        assert [line.text for line in follower.poll()] == [b"ok"]
    assert bench.texts() == [b"password: ok"]


def test_a_flood_does_not_starve_the_others(bench: Bench) -> None:
    flood = "block = b'f' * 99 + b'\\n'\nwhile True: put(block * 2000)"
    bench.run(flood, slot="flood.1")
    bench.run(flood, slot="flood.2")
    wait_for(lambda: bench.stats("flood.1").bytes > 1 << 20, "the flood runs")
    writer = bench.attach_pipe("quiet.1")
    for number in range(50):
        os.write(writer, b"%d\n" % number)
        wait_for(lambda n=number: bench.stats("quiet.1").lines == n + 1, "the quiet line")
    os.close(writer)
    assert bench.stats("flood.2").bytes > 1 << 20


def test_writers_that_wait_for_room_are_not_forgotten(bench: Bench) -> None:
    """Of long writes into a pipe that is never empty the kernel tells only when they are done."""
    reader, writer = bench.pipe()
    code = "for n in range(20): put(b'x' * 100_003 + b'\\n' + b'y' * 99_999 + b'\\nz')"
    children = [
        subprocess.Popen([sys.executable, "-c", WRITE_ALL + code], stdout=writer) for _ in range(3)
    ]
    bench.children += children
    os.close(writer)
    bench.pump.attach("web.1", 1, Log(max_size=1 << 30), {"stdout": reader})
    for child in children:
        assert child.wait(60) == 0
    wait_for(lambda: bench.stats().bytes == 60 * 200_005, "all bytes")
    assert bench.stats().lines == 121  # the last one was ended by the end of the pipe


def test_a_full_pipe_takes_turns_with_the_others(tmp_path: Path) -> None:
    """Time is counted in reads here, so that the order is seen whatever the machine does."""
    pump = LogPump(tmp_path, print, clock=itertools.count().__next__)
    flood, quiet = os.pipe(), os.pipe()
    size = fcntl.fcntl(flood[1], fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(flood[1], (b"f" * 127 + b"\n") * (size // 128))
    os.write(quiet[1], b"quiet\n")
    pump.attach("flood.1", 1, Log(), {"stdout": flood[0]})
    pump.attach("quiet.1", 1, Log(), {"stdout": quiet[0]})
    pump.start()
    wait_for(
        lambda: sum(stats.lines for stats in pump.stats().values()) == size // 128 + 1, "all lines"
    )
    pump.close()
    times = [line.time_ns for line in tail(tmp_path, ["flood.1"], 10_000)]
    assert len(set(times)) == 4  # 256 KiB each
    assert tail(tmp_path, ["quiet.1"], 1)[0].time_ns < times[-1]
    os.close(flood[1])
    os.close(quiet[1])


def test_a_hundred_services(bench: Bench) -> None:
    writers = [bench.attach_pipe(f"web.{number}") for number in range(100)]
    for writer in writers:
        os.write(writer, b"one\ntwo")
        os.close(writer)  # the end of the pipe ends the line
    wait_for(lambda: sum(stats.lines for stats in bench.pump.stats().values()) == 200, "200 lines")
    assert bench.texts(slot="web.99") == [b"one", b"two"]
    wait_for(lambda: _open_logs(bench.directory) == 0, "no file stays open")


def _open_logs(directory: Path) -> int:
    count = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            count += os.readlink(f"/proc/self/fd/{fd}").startswith(f"{directory}/web.")
        except FileNotFoundError:
            pass
    return count


def test_a_full_disk_drops_and_counts_and_recovers(small_disk: Path, tmp_path: Path) -> None:
    bench = Bench(small_disk / "logs")
    try:
        code = """
sent = 0
line = b"z" * 999 + b"\\n"
for _ in range(4000):
    put(line)
open(sys.argv[1], "w").close()
for line in sys.stdin:
    put(line.encode())
"""
        done = tmp_path / "done"
        reader, both = bench.pipe()
        child = subprocess.Popen(
            [sys.executable, "-c", WRITE_ALL + code, str(done)], stdin=subprocess.PIPE, stdout=both
        )
        os.close(both)
        bench.children.append(child)
        bench.pump.attach("web.1", 1, Log(max_size=1 << 30), {"stdout": reader})
        wait_for(done.exists, "the service goes on while the disk is full")
        wait_for(lambda: bench.stats().bytes + bench.stats().lost_bytes == 4_000_000, "all read")
        lost = bench.stats()
        assert lost.lines + lost.lost_lines == 4000
        assert lost.lost_bytes == 1000 * lost.lost_lines
        assert lost.lost_lines > 2900
        assert [event.kind for event in bench.events] == ["lost"]
        assert isinstance(bench.events[0], LogLoss)
        assert bench.events[0].reason == "No space left on device"
        path = small_disk / "logs" / "web.1.log"
        assert bench.payload() == (b"z" * 999 + b"\n") * lost.lines
        assert path.read_bytes().endswith(b"\n")  # no torn record
        path.unlink()
        wait_for(lambda: len(bench.events) == 2, "recovery")
        assert bench.events[1] == LogRecovered(
            "web.1", lost.lost_bytes, lost.lost_lines, "No space left on device"
        )
        assert child.stdin is not None
        child.stdin.write(b"again\n")
        child.stdin.flush()
        wait_for(lambda: bench.stats().lines == lost.lines + 1, "the next line")
        assert bench.texts() == [
            b"everup: %d lines (%d bytes) lost: No space left on device"
            % (lost.lost_lines, lost.lost_bytes),
            b"again",
        ]
        child.stdin.close()
    finally:
        bench.close()


def test_the_slack_of_the_last_block_is_no_recovery(small_disk: Path) -> None:
    events: list[LogEvent] = []
    file = SlotFile(small_disk, "web.1", Log(max_size=1 << 30), events.append)
    framer = cri.Framer("stdout", 4096)
    when = cri.stamp(0)
    for now_s in (0, 0, 2, 4):
        data = (b"q" * 999 + b"\n") * (1000 if now_s == 0 else 1)
        file.write(framer.feed(data, when), "stdout", framer, when, now_s)
    file.write(framer.feed(b"small\n", when), "stdout", framer, when, 6)
    assert [event.kind for event in events] == ["lost"]
    stats = file.stats()
    assert stats.lines + stats.lost_lines == 2003
    assert (small_disk / "web.1.log").stat().st_size == stats.lines * 1040
    file.close()


def test_what_a_dead_run_left_comes_before_the_next_run(tmp_path: Path) -> None:
    pump = LogPump(tmp_path, print)
    old, new = os.pipe(), os.pipe()
    fcntl.fcntl(old[1], fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(old[1], b"a" * 700_000)
    os.write(new[1], b"new\n")
    pump.attach("web.1", 1, Log(), {"stdout": old[0]})
    pump.ended("web.1", 1)
    pump.attach("web.1", 2, Log(), {"stdout": new[0]})
    pump.start()
    wait_for(lambda: pump.stats()["web.1"].lines == 2 if pump.stats() else False, "both lines")
    pump.close()
    assert [line.text for line in tail(tmp_path, ["web.1"], 9)] == [b"a" * 700_000, b"new"]
    os.close(old[1])
    os.close(new[1])


def test_a_deleted_directory_is_made_again(bench: Bench) -> None:
    writer = bench.attach_pipe()
    os.write(writer, b"one\n")
    wait_for(lambda: bench.stats().lines == 1, "the first line")
    shutil.rmtree(bench.directory)
    os.write(writer, b"two\n")
    wait_for(lambda: bench.stats().lines == 2, "the second line")
    assert bench.texts() == [b"two"]
    assert bench.events == []
    os.close(writer)


def test_a_directory_that_cannot_be_made_again(bench: Bench) -> None:
    writer = bench.attach_pipe()
    os.write(writer, b"one\n")
    wait_for(lambda: bench.stats().lines == 1, "the first line")
    shutil.rmtree(bench.directory)
    bench.directory.write_text("in the way")
    os.write(writer, b"two\n")
    wait_for(lambda: bench.stats().lost_lines == 1, "the loss")
    bench.directory.unlink()
    wait_for(lambda: [event.kind for event in bench.events] == ["lost", "recovered"], "recovery")
    os.write(writer, b"three\n")
    wait_for(lambda: bench.stats().lines == 2, "the third line")
    assert bench.texts()[-1] == b"three"
    os.close(writer)


@pytest.mark.parametrize("rest", [b"second half\n", b"second half", b""])
def test_the_next_pump_goes_on_with_the_line(bench: Bench, rest: bytes) -> None:
    reader, writer = bench.pipe()
    bench.pump.attach("web.1", 1, Log(), {"stdout": os.dup(reader)})
    os.write(writer, b"first half, ")
    bench.pump.close()
    os.write(writer, rest)
    os.close(writer)
    later = LogPump(bench.directory, bench.events.append)
    later.start()
    later.attach("web.1", 1, Log(), {"stdout": reader}, resumed=True)
    wait_for(lambda: later.stats()["web.1"].lines == 1 if later.stats() else False, "the line")
    later.close()
    lines = tail(bench.directory, ["web.1"], 9)
    assert [(line.text, line.more) for line in lines] == [
        (b"first half, " + rest.rstrip(b"\n"), False)
    ]


def test_close_stores_what_the_pipes_hold(bench: Bench) -> None:
    writers = [bench.attach_pipe(f"web.{number}") for number in range(5)]
    for writer in writers:
        os.write(writer, b"x\n" * 10_000)
    bench.pump.close()
    assert {stats.lines for stats in bench.pump.stats().values()} == {10_000}
    bench.pump.close()  # twice is no error
    with pytest.raises(RuntimeError):
        bench.attach_pipe()
    for writer in writers:
        os.close(writer)


def test_a_refused_attach_closes_what_it_was_given(bench: Bench) -> None:
    reader, writer = bench.pipe()
    with pytest.raises(ValueError, match="file name"):
        bench.pump.attach("../web.1", 1, Log(), {"stdout": reader})
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)
    os.close(writer)


def test_a_new_run_writes_while_the_old_one_drains(bench: Bench) -> None:
    code = """
for number in range(20000):
    put(b"%s %d " % (sys.argv[1].encode(), number) + b"x" * (number % 700) + b"\\n")
"""
    children = [bench.run(code, name, run=run) for run, name in ((1, "old"), (2, "new"))]
    for run, child in enumerate(children, 1):
        assert child.wait() == 0
        bench.pump.ended("web.1", run)
    wait_for(lambda: bench.stats().lines == 40000, "all lines")
    lines = [line.split(b" ") for line in bench.texts(50000)]
    for name in (b"old", b"new"):
        mine = [line for line in lines if line[0] == name]
        assert [int(line[1]) for line in mine] == list(range(20000))
        assert all(len(line[2]) == int(line[1]) % 700 for line in mine)


def test_following_a_flood_through_rotation(bench: Bench) -> None:
    code = "for n in range(30000):\n  put(b'%d ' % n + b'x' * 80 + b'\\n')"
    got: list[bytes] = []
    with Follower(bench.directory, ["web.1"]) as follower:
        bench.run(code, log=Log(max_size=64 << 10, files=1000))

        def followed() -> bool:
            got.extend(line.text for line in follower.poll())
            return len(got) >= 30000

        wait_for(followed, "all lines")
        assert follower.poll() == []
    assert [int(text.split()[0]) for text in got] == list(range(30000))


def test_settings_change_while_it_runs(bench: Bench) -> None:
    writer = bench.attach_pipe(log=Log(max_size=4096, files=9))
    for _ in range(100):
        os.write(writer, b"x" * 399 + b"\n")
    wait_for(lambda: bench.stats().lines == 100, "the lines")
    assert len(list(bench.directory.glob("web.1.log*"))) == 10
    bench.pump.configure("web.1", Log(max_size=4096, files=2, max_line=256))
    wait_for(lambda: len(list(bench.directory.glob("web.1.log*"))) == 3, "too many files go")
    os.write(writer, b"y" * 300 + b"\n")
    wait_for(lambda: bench.stats().lines == 101, "the last line")
    assert b" stdout P yyy" in (bench.directory / "web.1.log").read_bytes()
    os.close(writer)


def test_a_stalled_disk_does_not_hold_up_the_callers(tmp_path: Path) -> None:
    """The report runs in the pump's thread: holding it there is as good as a disk that hangs."""
    gate = threading.Event()
    directory = tmp_path / "logs"
    directory.mkdir()
    (directory / "web.1.log").symlink_to("/dev/full")
    pump = LogPump(directory, lambda event: gate.wait(30) and None)
    pump.start()
    reader, writer = os.pipe()
    pump.attach("web.1", 1, Log(), {"stdout": reader})
    os.write(writer, b"x\n")
    wait_for(lambda: pump.stats().get("web.1") is not None, "the pump has begun")
    wait_for(lambda: pump.stats()["web.1"].lost_lines == 1, "the pump hangs in the report")
    other, end = os.pipe()
    pump.attach("web.2", 1, Log(), {"stdout": other})
    pump.ended("web.1", 1)
    pump.configure("web.1", Log())
    assert "web.2" not in pump.stats()
    os.write(end, b"late\n")
    gate.set()
    wait_for(lambda: "web.2" in pump.stats() and pump.stats()["web.2"].lines == 1, "the rest")
    pump.close()
    os.close(writer)
    os.close(end)
