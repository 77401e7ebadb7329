"""Records and files: what goes in comes out, whatever the chunks and however often it rotates."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everup.adapters.logs import Follower, LogEvent, LogLoss, LogRecovered, _follow, tail
from everup.adapters.logs import _cri as cri
from everup.adapters.logs._file import SlotFile
from everup.adapters.logs._rotating import RotatingFile
from everup.model.spec import Log

WHEN = cri.stamp(1_795_387_981_123_456_789)
PIECES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"\n", b"\n\n", b"\0\n", b"\xff\xfe", b"\r\n", b" F ", b"everup\n"]),
    st.builds(lambda n: b"x" * n, st.integers(200, 1100)),
    st.builds(lambda n: b"y\n" * n, st.integers(1, 300)),
)
CHUNKS = st.lists(st.lists(PIECES, max_size=6).map(b"".join), max_size=25)


class Slot:
    """A slot file with a writer per run, in a directory of its own."""

    def __init__(self, directory: Path, log: Log) -> None:
        self.directory = directory
        self.events: list[LogEvent] = []
        self.log = log
        self.file = SlotFile(directory, "web.1", log, self.events.append)
        self.framers: dict[tuple[int, str], cri.Framer] = {}
        self.now_ns = 1_795_387_981_000_000_000

    def write(self, data: bytes, *, run: int = 1, stream: str = "stdout", now_s: float = 0) -> None:
        framer = self.framers.setdefault((run, stream), cri.Framer(stream, self.log.max_line))
        self._store(framer.feed(data, self._when()), framer, now_s)

    def flush(self, *, run: int = 1, stream: str = "stdout") -> None:
        framer = self.framers[run, stream]
        self._store(framer.flush(self._when()), framer, 0)

    def end(self, *, run: int = 1, stream: str = "stdout") -> None:
        framer = self.framers.setdefault((run, stream), cri.Framer(stream, self.log.max_line))
        if framer.held or self.file.is_open(stream, framer):
            self._store(framer.end(self._when()), framer, 0)

    def _when(self) -> bytes:
        self.now_ns += 1
        return cri.stamp(self.now_ns)

    def _store(self, batch: cri.Batch, framer: cri.Framer, now_s: float) -> None:
        self.file.write(batch, framer.stream, framer, self._when(), now_s)

    def records(self) -> list[cri.Record]:
        names = sorted(
            (path for path in self.directory.iterdir()),
            key=lambda path: -int(path.suffix[1:] if path.suffix != ".log" else 0),
        )
        out = []
        for name in names:
            content = name.read_bytes()
            assert content.endswith(b"\n") or not content
            for line in content.split(b"\n")[:-1]:
                record = cri.parse(line)
                assert record is not None, line
                out.append(record)
        return out

    def text(self, stream: str = "stdout") -> bytes:
        return b"".join(
            record.text + (b"" if record.partial else b"\n")
            for record in self.records()
            if record.stream == stream
        )


def ended(data: bytes) -> bytes:
    return data + b"\n" if data and not data.endswith(b"\n") else data


@pytest.fixture
def slot(tmp_path: Path) -> Slot:
    return Slot(tmp_path, Log(max_line=256))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(chunks=CHUNKS, flushes=st.sets(st.integers(0, 24)))
def test_any_bytes_come_back_through_rotation(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[bytes], flushes: set[int]
) -> None:
    slot = Slot(tmp_path_factory.mktemp("logs"), Log(max_size=4096, max_line=256, files=1000))
    for number, chunk in enumerate(chunks):
        slot.write(chunk)
        if number in flushes:
            slot.flush()
    slot.end()
    written = b"".join(chunks)
    assert slot.text() == ended(written)
    assert all(len(record.text) <= 256 for record in slot.records())
    stats = slot.file.stats()
    assert stats.bytes == len(written)
    assert stats.lines == ended(written).count(b"\n")
    assert (stats.lost_bytes, stats.lost_lines) == (0, 0)
    for path in slot.directory.iterdir():
        assert path.stat().st_size <= 4096


def test_a_line_is_split_only_when_it_is_longer_than_max_line(slot: Slot) -> None:
    slot.write(b"a" * 256 + b"\n" + b"b" * 512 + b"\n" + b"d" * 257 + b"\n" + b"c" * 513)
    slot.end()
    assert [(r.partial, len(r.text), r.text[:1]) for r in slot.records()] == [
        (False, 256, b"a"),
        (True, 256, b"b"),
        (False, 256, b"b"),
        (True, 256, b"d"),
        (False, 1, b"d"),
        (True, 256, b"c"),
        (True, 256, b"c"),
        (False, 1, b"c"),
    ]


def test_the_format_is_cri(slot: Slot) -> None:
    slot.file.write(cri.Framer("stderr", 256).feed(b"oh\n", WHEN), "stderr", slot, WHEN, 0)
    path = slot.directory / "web.1.log"
    assert path.read_bytes() == b"2026-11-22T22:53:01.123456789Z stderr F oh\n"
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_old_run_and_a_new_one_mix_only_between_lines(slot: Slot) -> None:
    slot.write(b"old " * 100, run=1)  # leaves an open P record
    slot.write(b"new one\n", run=2)
    slot.write(b"rest\n", run=1)
    assert [line.text for line in tail(slot.directory, ["web.1"], 9)] == [
        (b"old " * 100)[:256],
        b"new one",
        (b"old " * 100)[256:] + b"rest",
    ]


def test_streams_keep_their_parts_apart(slot: Slot) -> None:
    slot.write(b"o" * 300)
    slot.write(b"e" * 300, stream="stderr")
    slot.write(b"O\n")
    slot.write(b"E\n", stream="stderr")
    lines = tail(slot.directory, ["web.1"], 9)
    assert [(line.stream, line.text) for line in lines] == [
        ("stdout", b"o" * 300 + b"O"),
        ("stderr", b"e" * 300 + b"E"),
    ]


def test_the_oldest_file_goes_and_settings_can_change(tmp_path: Path) -> None:
    slot = Slot(tmp_path, Log(max_size=4096, files=3))
    for number in range(1000):
        slot.write(b"%d\n" % number)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "web.1.log",
        "web.1.log.1",
        "web.1.log.2",
        "web.1.log.3",
    ]
    numbers = [int(line) for line in slot.text().split()]
    assert numbers == list(range(numbers[0], 1000))
    slot.file.configure(Log(max_size=4096, files=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["web.1.log", "web.1.log.1"]


def test_a_gap_between_rotated_files_is_used_before_the_oldest_goes(tmp_path: Path) -> None:
    slot = Slot(tmp_path, Log(max_size=4096, files=3))
    for name in ("web.1.log.1", "web.1.log.3"):
        (tmp_path / name).write_text(name)
    slot.write(b"x\n" * 150)
    assert (tmp_path / "web.1.log.3").read_text() == "web.1.log.3"
    assert (tmp_path / "web.1.log.2").read_text() == "web.1.log.1"


def test_a_torn_record_of_a_crash_is_ended_first(slot: Slot) -> None:
    (slot.directory / "web.1.log").write_bytes(b"2026-11-22T22:53:01.123456789Z stdout F to")
    slot.write(b"next\n")
    assert [line.text for line in tail(slot.directory, ["web.1"], 9)] == [b"to", b"next"]


@pytest.mark.parametrize("resumed", [True, False])
def test_a_line_left_open_by_an_earlier_pump(slot: Slot, resumed: bool) -> None:
    slot.write(b"half ")
    slot.flush()
    slot.file.close()
    later = Slot(slot.directory, slot.log)
    if resumed:
        later.write(b"")
        later.file.adopt("stdout", later.framers[1, "stdout"])
    later.write(b"done\n")
    texts = [line.text for line in tail(slot.directory, ["web.1"], 9)]
    assert texts == ([b"half done"] if resumed else [b"half ", b"done"])


@pytest.mark.parametrize("resumed", [True, False])
def test_a_line_left_open_just_before_a_rotation(slot: Slot, resumed: bool) -> None:
    slot.write(b"half ")
    slot.flush()
    slot.file.close()
    (slot.directory / "web.1.log").rename(slot.directory / "web.1.log.1")
    later = Slot(slot.directory, slot.log)
    if resumed:
        later.write(b"")
        later.file.adopt("stdout", later.framers[1, "stdout"])
    later.write(b"done\n")
    texts = [line.text for line in tail(slot.directory, ["web.1"], 9)]
    assert texts == ([b"half done"] if resumed else [b"half ", b"done"])


def test_a_resumed_line_that_ends_without_a_newline_is_ended(slot: Slot) -> None:
    slot.write(b"half ")
    slot.flush()
    slot.file.close()
    later = Slot(slot.directory, slot.log)
    later.write(b"")
    later.file.adopt("stdout", later.framers[1, "stdout"])
    later.end()
    assert not tail(slot.directory, ["web.1"], 9)[0].more


def test_a_deleted_file_is_made_again_and_nothing_is_missing(slot: Slot) -> None:
    slot.write(b"one\n")
    (slot.directory / "web.1.log").unlink()
    slot.write(b"two\n")
    slot.write(b"three\n")
    assert slot.text() == b"two\nthree\n"
    assert slot.events == []


def test_a_file_that_moves_while_it_is_looked_for_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch has one time, so that a follower that lost its place would read files again."""
    looks = itertools.count()
    real = _follow._SlotFollower._chain

    def chain(self: _follow._SlotFollower) -> list[tuple[int, tuple[int, int]]]:
        missed = next(looks) % 2 == 0
        return [entry for entry in real(self) if not (missed and entry[1] == self._id)]

    monkeypatch.setattr(_follow._SlotFollower, "_chain", chain)
    slot = Slot(tmp_path, Log(max_size=4096, files=99))
    with Follower(tmp_path, ["web.1"]) as follower:
        slot.write(b"".join(b"%d\n" % number for number in range(500)))
        got = [int(line.text) for line in follower.poll()]
    assert got == list(range(500))


def test_a_file_deleted_during_the_write_is_written_again(tmp_path: Path) -> None:
    class Unlucky(RotatingFile):
        def _put(self, fd: int, data: bytes, at: int, end: int) -> None:
            if at == 0 and (tmp_path / "log").exists() and not (tmp_path / "log.1").exists():
                (tmp_path / "log").rename(tmp_path / "log.1")
                (tmp_path / "log.1").unlink()
                (tmp_path / "log.1").touch()
            super()._put(fd, data, at, end)

    file = Unlucky(tmp_path, "log")
    file.append(b"one\n")
    assert (tmp_path / "log").read_bytes() == b"one\n"


def test_a_file_renamed_by_somebody_else_is_left_to_them(slot: Slot) -> None:
    slot.write(b"one\n")
    (slot.directory / "web.1.log").rename(slot.directory / "web.1.log.7")
    slot.write(b"two\n")
    slot.write(b"three\n")
    assert slot.text() == b"one\ntwo\nthree\n"


def test_a_file_truncated_by_somebody_else_goes_on(tmp_path: Path) -> None:
    slot = Slot(tmp_path, Log(max_size=4096))
    for _ in range(20):
        slot.write(b"x" * 150 + b"\n")
        os.truncate(tmp_path / "web.1.log", 0)
    slot.write(b"end\n")
    slot.write(b"y\n")
    assert [path.name for path in tmp_path.iterdir()] == ["web.1.log"]
    assert slot.text() == b"end\ny\n"


def lead(file: SlotFile, path: str) -> str:
    """Have it write there from now on; returns where it wrote before. (A link in its place is not
    followed.)"""
    rotating = file._file
    before, rotating._path = rotating._path, path
    file.close()
    return before


def test_a_link_in_its_place_is_not_followed(slot: Slot) -> None:
    victim = slot.directory / "victim"
    victim.write_bytes(b"")
    (slot.directory / "web.1.log").symlink_to(victim)
    slot.write(b"one\n", now_s=0)
    assert [type(event) for event in slot.events] == [LogLoss]
    assert victim.read_bytes() == b""


def test_a_full_disk_is_told_once_and_counted_and_marked(slot: Slot) -> None:
    full = lead(slot.file, "/dev/full")
    slot.write(b"one\ntwo\n", now_s=0)
    slot.write(b"three\n", now_s=0.5)
    slot.write(b"four\n", now_s=1.5)
    assert slot.events == [LogLoss("web.1", 8, 2, "No space left on device")]
    lead(slot.file, full)
    slot.write(b"five\n", now_s=2.0)
    slot.write(b"six\n", now_s=2.6)
    assert slot.events[1:] == [LogRecovered("web.1", 24, 5, "No space left on device")]
    lines = tail(slot.directory, ["web.1"], 9)
    assert [(line.stream, line.text) for line in lines] == [
        ("everup", b"everup: 5 lines (24 bytes) lost: No space left on device"),
        ("stdout", b"six"),
    ]
    stats = slot.file.stats()
    assert (stats.bytes, stats.lines, stats.lost_bytes, stats.lost_lines) == (4, 1, 24, 5)


def test_a_line_whose_end_was_lost_does_not_swallow_the_next(slot: Slot) -> None:
    slot.write(b"a" * 300)
    path = lead(slot.file, "/dev/full")
    slot.write(b"end\n", now_s=0)
    lead(slot.file, path)
    slot.write(b"next\n", run=2, now_s=2)
    assert [line.text for line in tail(slot.directory, ["web.1"], 9)] == [
        b"a" * 256,
        b"everup: 1 lines (48 bytes) lost: No space left on device",
        b"next",
    ]


def test_a_report_that_raises_does_not_stop_the_storing(tmp_path: Path) -> None:
    def broken(event: LogEvent) -> None:
        raise RuntimeError(event)

    slot = Slot(tmp_path, Log())
    slot.file = SlotFile(tmp_path, "web.1", Log(), broken)
    path = tmp_path / "web.1.log"
    path.symlink_to("/dev/full")
    slot.write(b"one\n", now_s=0)
    path.unlink()
    slot.write(b"two\n", now_s=2)
    assert slot.text() == b"two\n"


@given(data=st.binary(max_size=2000), cut=st.integers(0, 200))
def test_the_loss_of_a_rest_is_counted_exactly(data: bytes, cut: int) -> None:
    batch = cri.Framer("stdout", 256).feed(data, WHEN)
    assert cri.lost(batch.data) == (batch.size_bytes, batch.lines)
    at = batch.data.rfind(b"\n", 0, cut) + 1
    before, after = cri.lost(batch.data[:at]), cri.lost(batch.data[at:])
    assert (before[0] + after[0], before[1] + after[1]) == (batch.size_bytes, batch.lines)


@pytest.mark.parametrize(
    "line",
    [b"", b"hello", b"2026-13-22T22:53:01.123456789Z stdout F x", b"\0" * 50, b"2026-11-22T22:53"],
)
def test_what_is_no_record_is_none(line: bytes) -> None:
    assert cri.parse(line) is None


@given(time_ns=st.integers(0, 250_000_000_000 * 10**9 // 10))
def test_times_come_back(time_ns: int) -> None:
    when = cri.stamp(time_ns)
    assert len(when) == 30
    parsed = cri.parse(cri.record(when, "stdout", b"")[:-1])
    assert parsed is not None
    assert parsed.time_ns == time_ns
