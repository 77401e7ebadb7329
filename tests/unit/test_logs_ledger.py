"""A pump that dies between any two of its steps, or within one, loses and doubles nothing.

The pump runs in a forked child whose system calls are counted; at the k-th the child kills itself,
for every k. The pipes are held here, as the keeper holds them, and the next pump goes on.
"""

import fcntl
import itertools
import logging
import os
import random
import signal
import string
import termios
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everup.adapters.logs import LogPump, _ledger, _source
from everup.adapters.logs import _cri as cri
from everup.adapters.logs._ledger import Ledger, Move, Place
from everup.model.spec import Log

ALL = (string.ascii_letters + string.digits).encode()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


class Fate:
    """Kills this process at the k-th step of the pump's thread."""

    def __init__(self, at: int) -> None:
        self.left = at
        for name in ("open", "posix_fallocate", "replace", "unlink", "truncate", "ftruncate"):
            setattr(os, name, self.around(getattr(os, name)))
        os.write = self.around(os.write, lambda fd, data: os_write(fd, data[: len(data) // 2]))
        os.pwrite = self.around(
            os.pwrite, lambda fd, data, at: os_pwrite(fd, data[: len(data) // 2], at)
        )
        for cut in (1, 20):  # most of its filler, and most of its entry as well
            os.pwritev = self.around(
                os.pwritev,
                lambda fd, parts, at, cut=cut: os_pwrite(fd, b"".join(parts)[:-cut], at),
            )
        os.splice = self.around(
            os.splice, lambda fd, to, size, **rest: os_splice(fd, to, size // 2, **rest)
        )
        os.read = self.around(os.read)
        _source._libc = self  # type: ignore[assignment]

    def tee(self, *args: int) -> int:
        self.step()
        return int(tee(*args))

    def step(self) -> bool:
        if threading.current_thread().name != "everup-logs":
            return False
        self.left -= 1
        if self.left == 0:
            die()
        return True

    def around(
        self, call: Callable[..., Any], half: Callable[..., Any] | None = None
    ) -> Callable[..., Any]:
        def stepped(*args: Any, **kwargs: Any) -> Any:
            if self.step() and half is not None:
                self.left -= 1
                if self.left == 0:
                    half(*args, **kwargs)
                    die()
            return call(*args, **kwargs)

        return stepped


os_write, os_pwrite, os_splice, tee = os.write, os.pwrite, os.splice, _source._libc.tee


@dataclass
class Pipe:
    """One stream of one run."""

    run: int = 1
    stream: str = "stdout"
    ends: tuple[int, int] = field(default_factory=os.pipe)

    def put(self, data: bytes) -> None:
        os.set_blocking(self.ends[1], False)
        assert os_write(self.ends[1], data) == len(data)

    def waiting(self) -> int:
        return int.from_bytes(fcntl.ioctl(self.ends[0], termios.FIONREAD, b"\0" * 4), "little")

    def close(self) -> None:
        for fd in self.ends:
            os.close(fd)


def pump(
    directory: Path, log: Log, pipes: Sequence[Pipe], *, ended: bool = False, resumed: bool = False
) -> None:
    """One life of a pump: all that is there, then a clean end."""
    pump = LogPump(directory, lambda event: None)
    for run in sorted({pipe.run for pipe in pipes}):
        fds = {pipe.stream: os.dup(pipe.ends[0]) for pipe in pipes if pipe.run == run}
        pump.attach("web.1", run, log, fds, resumed=resumed)
        if ended:
            pump.ended("web.1", run)
    pump.start()
    pump.close()


def life(at: int, work: Callable[[], None]) -> bool:
    """Do this in a child that dies at its step ``at``; whether it had so many."""
    pid = os.fork()
    if not pid:
        try:
            Fate(at)
            work()
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def records(directory: Path) -> list[cri.Record]:
    files = sorted(
        directory.glob("web.1.log*"),
        key=lambda path: -int(path.suffix[1:] if path.suffix != ".log" else 0),
    )
    out = []
    for file in files:
        content = file.read_bytes()
        assert content.endswith(b"\n") or not content
        for line in content.split(b"\n")[:-1]:
            record = cri.parse(line)
            assert record is not None, line
            out.append(record)
    return out


def text(directory: Path) -> dict[str, bytes]:
    out: dict[str, bytes] = defaultdict(bytes)
    for record in records(directory):
        out[record.stream] += record.text + (b"" if record.partial else b"\n")
    return out


def numbered(start: int, stop: int, length: int = 0) -> bytes:
    return b"".join(b"%05d %b\n" % (n, ALL[:1] * (length or n % 90)) for n in range(start, stop))


LONG = b"".join(ALL[n : n + 1] * (700 + n) + b"\n" for n in range(6))


@pytest.mark.parametrize(
    ("log", "first"),
    [
        (Log(), [("stdout", numbered(0, 30))]),
        (Log(), [("stdout", numbered(0, 20) + b"unfinished")]),
        (Log(), [("stdout", numbered(0, 9) + b"1/2 "), ("stderr", numbered(0, 9) + b"2/2 ")]),
        (Log(max_size=4096, files=99), [("stdout", numbered(0, 100, 60) + b"the rest")]),
        (Log(max_line=256), [("stdout", LONG + b"y" * 600)]),
        (Log(max_line=256, max_size=4096, files=99), [("stdout", LONG), ("stderr", LONG)]),
        (Log(), [("stdout", random.Random(3).randbytes(9000) + b"\n" + bytes(range(256)))]),
    ],
    ids=["lines", "unfinished", "both streams", "rotation", "parts", "parts rotated", "binary"],
)
@pytest.mark.parametrize("ended", [False, True])
def test_death_at_every_step(
    tmp_path: Path, log: Log, first: list[tuple[str, bytes]], ended: bool
) -> None:
    for at in itertools.count(1):
        directory = tmp_path / str(at)
        pipes = [Pipe(stream=stream) for stream, _ in first]
        for pipe, (_, data) in zip(pipes, first, strict=True):
            pipe.put(data)
        died = life(at, lambda d=directory, p=pipes: pump(d, log, p, ended=ended))  # type: ignore[misc]
        if not ended:
            for pipe in pipes:
                pipe.put(b"and on\nlast\n")
        pump(directory, log, pipes, ended=ended, resumed=True)
        for stream, data in first:
            end = b"and on\nlast\n"
            if ended:
                end = b"" if data.endswith(b"\n") else b"\n"
            assert text(directory)[stream] == data + end, f"died at step {at}"
        for pipe in pipes:
            assert pipe.waiting() == 0
            pipe.close()
        if not died:
            break
    assert at > 12


def test_death_at_every_step_of_taking_over(tmp_path: Path) -> None:
    """The first pump dies where most is open, the second at every step, the third does it."""
    log = Log(max_size=4096, files=99)
    pipes: list[Pipe] = []

    def start(directory: Path) -> None:
        for pipe in pipes:
            pipe.close()
        pipes[:] = [Pipe(), Pipe(stream="stderr")]
        for pipe in pipes:
            pipe.put(numbered(0, 70, 60))
        assert life(first, lambda: pump(directory, log, pipes))

    for first in range(30, 42, 2):
        for at in itertools.count(1, 3):
            directory = tmp_path / f"{first} {at}"
            start(directory)
            died = life(at, lambda d=directory: pump(d, log, pipes, resumed=True))  # type: ignore[misc]
            pump(directory, log, pipes, resumed=True)
            for stream in cri.STREAMS:
                assert text(directory)[stream] == numbered(0, 70, 60), f"{first}, {at}"
            if not died:
                break
    for pipe in pipes:
        pipe.close()


CHUNKS = st.lists(
    st.one_of(
        st.binary(max_size=300),
        st.sampled_from([b"\n", b"a\n" * 300, bytes(range(256)), b"\xff" * 300 + b"\n"]),
        st.builds(lambda n: b"x" * n, st.integers(200, 1100)),
    ),
    max_size=4,
).map(b"".join)
LIVES = st.lists(
    st.tuples(st.integers(1, 70), st.tuples(CHUNKS, CHUNKS), st.booleans()), max_size=4
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(lives=LIVES, size=st.sampled_from([4096, 1 << 20]))
def test_any_output_through_any_deaths(
    tmp_path_factory: pytest.TempPathFactory,
    lives: list[tuple[int, tuple[bytes, bytes], bool]],
    size: int,
) -> None:
    directory = tmp_path_factory.mktemp("logs")
    log = Log(max_size=size, max_line=256, files=1000)
    pipes = [Pipe(), Pipe(stream="stderr")]
    for number, (at, chunks, both) in enumerate(lives):
        for pipe, chunk in zip(pipes, chunks, strict=True):
            pipe.put(chunk)
        some = pipes if both else pipes[:1]  # the other one is taken up later
        life(at, lambda some=some, n=number: pump(directory, log, some, resumed=n > 0))  # type: ignore[misc]
    pump(directory, log, pipes, ended=True, resumed=bool(lives))
    for stream, pipe in enumerate(pipes):
        sent = b"".join(chunks[stream] for _, chunks, _ in lives)
        if sent and not sent.endswith(b"\n"):
            sent += b"\n"
        assert text(directory)[pipe.stream] == sent
        pipe.close()


def test_two_runs_of_one_slot_never_mix_within_a_line(tmp_path: Path) -> None:
    log = Log(max_line=256)
    for at in itertools.count(1):
        directory = tmp_path / str(at)
        pipes = [Pipe(run=1), Pipe(run=2)]
        pipes[0].put(b"a" * 99 + b"\n" + b"a" * 300)
        pipes[1].put(b"b" * 300)
        died = life(at, lambda d=directory, p=pipes: pump(d, log, p))  # type: ignore[misc]
        # The second goes on first; and the one that is attached first is not the one to go on.
        pipes[1].put(b"b\n")
        pump(directory, log, pipes, resumed=True)
        pipes[0].put(b"a\n")
        pump(directory, log, pipes, ended=True, resumed=True)
        lines = text(directory)["stdout"].split(b"\n")
        for letter, pipe, count in ((b"a", pipes[0], 400), (b"b", pipes[1], 301)):
            mine = [line for line in lines if line[:1] == letter]
            assert sum(map(len, mine)) == count
            assert all(line == letter * len(line) for line in mine), f"died at step {at}"
            pipe.close()
        if not died:
            break


def test_what_is_due_waits_for_its_pipe(tmp_path: Path) -> None:
    """The pump died between storing and taking; pumps that do not have this pipe come and go."""
    pipes = [Pipe(), Pipe(stream="stderr")]
    pipes[0].put(b"one\n")
    ledger = Ledger(tmp_path / ".ledger", tmp_path)
    ledger.open()
    source = _source.Source(("web.1", 1, "stdout"), pipes[0].ends[0], None, 99)  # type: ignore[arg-type]
    (tmp_path / "web.1.log").write_bytes(cri.record(cri.stamp(0), "stdout", b"one"))
    ledger.begin(Move(source.name, pipes[0].ends[0], b"one\n"), 4)
    ledger.close()
    for number in range(3):
        pipes[1].put(b"%d\n" % number)
        pump(tmp_path, Log(), pipes[1:], resumed=True)
    pipes[0].put(b"two\n")
    pump(tmp_path, Log(), pipes, resumed=True)
    assert text(tmp_path) == {"stdout": b"one\ntwo\n", "stderr": b"0\n1\n2\n"}
    for pipe in pipes:
        pipe.close()


# -- the ledger by itself


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def opened(directory: Path) -> Ledger:
    ledger = Ledger(directory / ".ledger", directory)
    ledger.open()
    return ledger


def place(path: Path, before: int, after: int) -> Place:
    status = path.stat()
    return Place(status.st_dev, status.st_ino, before, after)


@given(data=st.binary(max_size=2000), start=st.integers(0, 100))
def test_a_filler_does_not_occur(data: bytes, start: int) -> None:
    if start < len(data):
        filler, span = _ledger._filler(data, start, len(data))
        assert 0 < span <= len(data) - start
        assert filler not in data[start : start + span]
        if len(set(data)) < 256:
            assert span == len(data) - start


@pytest.mark.parametrize("taken", [0, 1, 2999, 3000])
def test_what_was_taken_of_a_batch_is_known_to_the_byte(
    tmp_path: Path, pipe: Pipe, taken: int
) -> None:
    pipe.put(b"x" * 3000 + b"next")
    log = tmp_path / "web.1.log"
    log.write_bytes(b"r" * 4000)
    ledger = opened(tmp_path)
    move = Move(b"key", pipe.ends[0], b"x" * 3000)
    ledger.begin(move, 3000, place(log, 0, 4000))
    if taken:
        move.end = taken
        ledger._span = taken
        ledger.consume(move)
    ledger.close()
    for left in (*range(3000 - taken, 0, -700), 0):  # each time in a ledger's life of its own
        later = opened(tmp_path)
        assert later.due(b"key") == left
        assert later.due(b"other") == 0
        if left:
            later.settle(Move(b"key", pipe.ends[0], b"x" * min(left, 700)))
        later.close()
    assert os.read(pipe.ends[0], 99) == b"next"
    assert log.stat().st_size == 4000
    assert opened(tmp_path).due(b"key") == 0


@pytest.mark.parametrize("name", ["web.1.log", "web.1.log.1", "moved-by-somebody"])
def test_half_a_write_is_undone_wherever_the_file_is(tmp_path: Path, pipe: Pipe, name: str) -> None:
    log = tmp_path / "web.1.log"
    log.write_bytes(b"r" * 100 + b"half")
    ledger = opened(tmp_path)
    ledger.begin(Move(b"key", pipe.ends[0], b"x" * 9), 9, place(log, 100, 150))
    ledger.close()
    log.rename(tmp_path / name)
    assert opened(tmp_path).due(b"key") == 0
    assert (tmp_path / name).read_bytes() == b"r" * 100


@pytest.mark.parametrize(("size", "due"), [(0, 0), (100, 0), (150, 9), (200, 9)])
def test_the_size_of_the_log_says_whether_it_was_written(
    tmp_path: Path, pipe: Pipe, size: int, due: int
) -> None:
    log = tmp_path / "web.1.log"
    log.write_bytes(b"r" * size)
    ledger = opened(tmp_path)
    ledger.begin(Move(b"key", pipe.ends[0], b"x" * 9), 9, place(log, 100, 150))
    ledger.close()
    assert opened(tmp_path).due(b"key") == due
    assert log.stat().st_size == size


def test_a_log_that_is_gone_is_written_again(tmp_path: Path, pipe: Pipe) -> None:
    log = tmp_path / "web.1.log"
    log.touch()
    ledger = opened(tmp_path)
    ledger.begin(Move(b"key", pipe.ends[0], b"x" * 9), 9, place(log, 0, 50))
    ledger.close()
    log.unlink()
    assert opened(tmp_path).due(b"key") == 0


def test_an_entry_of_another_boot_means_nothing(
    tmp_path: Path, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = opened(tmp_path)
    ledger.own("web.1", "stdout", 7)
    ledger.begin(Move(b"key", pipe.ends[0], b"x" * 9), 9)
    ledger.close()
    same = opened(tmp_path)
    assert (same.due(b"key"), same.owner("web.1", "stdout")) == (9, 7)
    same.close()
    for boot in (b"0123456789abcdef", b""):  # the second: /proc can't be read
        monkeypatch.setattr(_ledger, "_boot", lambda boot=boot: boot)
        other = opened(tmp_path)
        assert (other.due(b"key"), other.owner("web.1", "stdout")) == (0, None)
        other.close()


@pytest.mark.parametrize("content", [b"", b"garbage" * 9, b"\xff" * 700_000, bytes(700_000)])
def test_any_file_is_taken(tmp_path: Path, pipe: Pipe, content: bytes) -> None:
    (tmp_path / ".ledger").write_bytes(content)
    ledger = opened(tmp_path)
    ledger.begin(Move(b"key", pipe.ends[0], b"x"), 1)
    ledger.close()
    assert opened(tmp_path).due(b"key") == 1


def test_owners_are_many_but_bounded(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    names = [f"{number:0240}.1" for number in range(300)]
    for number, name in enumerate(names):
        ledger.own(name, "stdout", number)
    ledger.close()
    later = opened(tmp_path)
    assert later.owner(names[-1], "stdout") == 299
    assert later.owner(names[0], "stdout") is None
    assert (tmp_path / ".ledger").stat().st_size < 1 << 20


def test_what_is_due_is_bounded(tmp_path: Path, pipe: Pipe) -> None:
    keys = [b"%0200d" % number for number in range(20)]
    for key in keys:
        ledger = opened(tmp_path)
        ledger.begin(Move(key, pipe.ends[0], b"x"), 1)
        ledger.close()
    later = opened(tmp_path)
    assert later.due(keys[-1]) == later.due(keys[-2]) == 1
    assert later.due(keys[0]) == 0


def test_two_ledgers_of_one_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    for _ in range(3):
        second.check()
    assert len(caplog.records) == 1
    first.close()
    second.check()
    pipe = Pipe()
    second.begin(Move(b"key", pipe.ends[0], b"x"), 1)
    second.close()
    pipe.close()
    assert opened(tmp_path).due(b"key") == 1


def test_a_ledger_that_was_deleted_is_made_again(tmp_path: Path, pipe: Pipe) -> None:
    ledger = opened(tmp_path)
    ledger.own("web.1", "stdout", 7)
    ledger._set_due(b"other", 3)
    (tmp_path / ".ledger").unlink()
    ledger.check()
    ledger.begin(Move(b"key", pipe.ends[0], b"x"), 1)
    ledger.close()
    later = opened(tmp_path)
    assert (later.due(b"key"), later.due(b"other"), later.owner("web.1", "stdout")) == (1, 3, 7)


def test_without_a_ledger_all_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / ".ledger").mkdir()
    pipes = [Pipe()]
    pipes[0].put(numbered(0, 500) + b"rest")
    with caplog.at_level(logging.WARNING):
        pump(tmp_path, Log(), pipes)
    assert text(tmp_path)["stdout"] == numbered(0, 500)
    assert pipes[0].waiting() == 4
    assert len(caplog.records) == 1
    assert "Is a directory" in caplog.text
    pipes[0].close()


def test_a_ledger_that_fails_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The file system can't splice, or its disk breaks: no line is lost, and it is told once."""

    def broken(*args: Any, **kwargs: Any) -> int:
        raise OSError(5, "Input/output error")

    for name in ("splice", "pwritev"):
        directory = tmp_path / name
        directory.mkdir()
        caplog.clear()
        pipes = [Pipe(), Pipe(stream="stderr")]
        for pipe in pipes:
            pipe.put(numbered(0, 500))
        with monkeypatch.context() as patch:
            patch.setattr(os, name, broken)
            pump(directory, Log(), pipes)
            for pipe in pipes:
                pipe.put(numbered(500, 1000))
            pump(directory, Log(), pipes, resumed=True)
        pump(directory, Log(), pipes, resumed=True)
        assert text(directory) == {"stdout": numbered(0, 1000), "stderr": numbered(0, 1000)}
        assert len(caplog.records) == 2  # once for each pump
        for pipe in pipes:
            pipe.close()


def test_where_a_pipe_can_not_be_looked_into_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError(1, "no tee here")

    monkeypatch.setattr(_source.Scratch, "look", refuse)
    pipes = [Pipe()]
    pipes[0].put(numbered(0, 500) + b"the end")
    pump(tmp_path, Log(), pipes)
    pump(tmp_path, Log(), pipes, ended=True, resumed=True)
    assert text(tmp_path)["stdout"] == numbered(0, 500) + b"the end\n"
    pipes[0].close()


def test_a_pipe_of_packets(tmp_path: Path) -> None:
    pipe = Pipe(ends=os.pipe2(os.O_DIRECT))
    fcntl.fcntl(pipe.ends[1], fcntl.F_SETPIPE_SZ, 1 << 20)
    for number in range(200):
        pipe.put(b"%d " % number if number % 3 else b"%d\n" % number)
    pump(tmp_path, Log(), [pipe], ended=True)
    sent = b"".join(b"%d " % n if n % 3 else b"%d\n" % n for n in range(200)) + b"\n"
    assert text(tmp_path)["stdout"] == sent
    pipe.close()
