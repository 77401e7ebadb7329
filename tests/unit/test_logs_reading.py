"""tail and Follower on files as the pump writes them."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everup.adapters.logs import Follower, LogLine, _follow, _tail, tail
from everup.adapters.logs import _cri as cri
from everup.adapters.logs._file import SlotFile
from everup.adapters.logs._lines import open_log
from everup.model.spec import Log

START_NS = 1_795_387_981_000_000_000


class Writer:
    """Writes whole lines and parts at times of the test's choice."""

    def __init__(self, directory: Path, slot: str, log: Log | None = None) -> None:
        self.log = log or Log(max_line=256)
        self.file = SlotFile(directory, slot, self.log, lambda event: None)
        self.framer = cri.Framer("stdout", self.log.max_line)
        self.now_ns = START_NS

    def write(self, data: bytes, at_ns: int | None = None, *, flush: bool = False) -> None:
        self.now_ns = self.now_ns + 1 if at_ns is None else START_NS + at_ns
        when = cri.stamp(self.now_ns)
        self.file.write(self.framer.feed(data, when), "stdout", self.framer, when, 0)
        if flush:
            self.file.write(self.framer.flush(when), "stdout", self.framer, when, 0)


def texts(lines: list[LogLine]) -> list[bytes]:
    return [line.text for line in lines]


def drain(follower: Follower) -> list[LogLine]:
    out: list[LogLine] = []
    while lines := follower.poll():
        out += lines
    return out


LINES = st.lists(
    st.one_of(
        st.binary(max_size=30).map(lambda text: text.replace(b"\n", b"")),
        st.builds(lambda n: b"z" * n, st.integers(200, 1500)),
    ),
    max_size=12,
)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(st.tuples(LINES, st.booleans()), max_size=12), n=st.integers(1, 60))
def test_followed_and_tailed_lines_are_those_written(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[list[bytes], bool]], n: int
) -> None:
    directory = tmp_path_factory.mktemp("logs")
    writer = Writer(directory, "web.1", Log(max_size=4096, max_line=256, files=1000))
    followed: list[LogLine] = []
    written: list[bytes] = []
    with Follower(directory, ["web.1"]) as follower:
        for lines, poll in steps:
            writer.write(b"".join(line + b"\n" for line in lines))
            written += lines
            if poll:
                followed += follower.poll()
        followed += drain(follower)
    assert texts(followed) == written
    assert texts(tail(directory, ["web.1"], n)) == written[-n:]
    with Follower(directory, ["web.1"], last=n) as late:
        assert texts(late.history) == written[-n:]
        assert late.poll() == []


def test_slots_are_merged_by_time(tmp_path: Path) -> None:
    one, two = Writer(tmp_path, "web.1"), Writer(tmp_path, "web.2")
    with Follower(tmp_path, ["web.1", "web.2", "web.3"]) as follower:
        for at, writer in [(1, one), (2, two), (3, two), (4, one), (5, two)]:
            writer.write(b"%d\n" % at, at)
        expected = [("web.1", b"1"), ("web.2", b"2"), ("web.2", b"3"), ("web.1", b"4")]
        expected.append(("web.2", b"5"))
        assert [(line.slot, line.text) for line in follower.poll()] == expected
    found = tail(tmp_path, ["web.1", "web.2", "web.3"], 3)
    assert [(line.slot, line.text) for line in found] == expected[-3:]
    assert found[-1].time_ns == START_NS + 5


def test_nothing_there_is_no_error(tmp_path: Path) -> None:
    assert tail(tmp_path / "missing", ["web.1"], 5) == []
    assert tail(tmp_path, ["web.1"], 0) == []
    with Follower(tmp_path / "missing", ["web.1"], last=5) as follower:
        assert follower.history == []
        assert follower.poll() == []


def test_a_poll_is_bounded_and_the_next_goes_on(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.1")
    with Follower(tmp_path, ["web.1"]) as follower:
        writer.write(b"".join(b"%d\n" % number for number in range(2500)))
        polls = [follower.poll() for _ in range(4)]
        assert [len(lines) for lines in polls] == [1000, 1000, 500, 0]
        assert [int(text) for lines in polls for text in texts(lines)] == list(range(2500))
        writer.write((b"x" * 200 + b"\n") * 20000)
        sizes = []
        while lines := follower.poll():
            sizes.append(sum(map(len, texts(lines))))
        assert sum(sizes) == 200 * 20000
        assert max(sizes) <= (1 << 20) + 200


def test_many_rotations_between_two_polls(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.1", Log(max_size=4096, files=100))
    with Follower(tmp_path, ["web.1"]) as follower:
        writer.write(b"first\n")
        assert texts(follower.poll()) == [b"first"]
        for number in range(3000):
            writer.write(b"%d\n" % number)
        assert [int(text) for text in texts(drain(follower))] == list(range(3000))


def test_what_is_written_just_before_a_rotation_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer goes on between the follower's last read and its look at the path."""
    writer = Writer(tmp_path, "web.1", Log(max_size=4096))
    block = _follow._SlotFollower._block
    steps = [b"0\n", b"x" * 90 + b"\n"] + [b"%d\n" % number for number in range(1, 300)]

    def interleaved(self: _follow._SlotFollower) -> bytes:
        data = block(self)
        if not data:
            for step in steps:
                writer.write(step)
            steps.clear()
        return data

    writer.write(b"before\n")
    with Follower(tmp_path, ["web.1"]) as follower:
        monkeypatch.setattr(_follow._SlotFollower, "_block", interleaved)
        found = texts(drain(follower))
    assert found[:2] == [b"0", b"x" * 90]
    assert found[2:] == [b"%d" % number for number in range(1, 300)]


@pytest.mark.parametrize("reader", ["tail", "follow"])
def test_a_rotation_between_two_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    writer = Writer(tmp_path, "web.1", Log(max_size=4096, files=100))
    left = list(range(1000))

    def write(count: int) -> None:
        for number in left[:count]:
            writer.write(b"%d\n" % number)
        del left[:count]

    def interleaved(directory: Path, slot: str, index: int) -> int | None:
        if not armed or index == 0 or len(left) < 100:
            return open_log(directory, slot, index)
        write(100)
        return open_log(directory, slot, index)

    armed = False
    monkeypatch.setattr(_follow, "open_log", interleaved)
    monkeypatch.setattr(_tail, "open_log", interleaved)
    with Follower(tmp_path, ["web.1"]) as follower:
        write(400)
        armed = True
        if reader == "tail":
            numbers = [int(text) for text in texts(tail(tmp_path, ["web.1"], 2000))]
        else:
            numbers = [int(text) for text in texts(drain(follower))]
            assert numbers == list(range(1000 - len(left)))
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 400 - 100


def test_a_follower_that_fell_behind_goes_on_with_the_oldest_file(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.1", Log(max_size=4096, files=2))
    with Follower(tmp_path, ["web.1"]) as follower:
        writer.write(b"first\n")
        follower.poll()
        for number in range(3000):
            writer.write(b"%d\n" % number)
        numbers = [int(text) for text in texts(drain(follower))]
    kept = numbers[1:]  # the rest of the file that was being read comes first
    oldest = [int(text) for text in texts(tail(tmp_path, ["web.1"], 3000))]
    assert numbers[-len(oldest) :] == oldest
    assert kept
    assert len(numbers) == len(set(numbers))


def test_a_file_deleted_and_made_again(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.1", Log(max_size=4096, files=3))
    for number in range(300):
        writer.write(b"%d\n" % number)
    with Follower(tmp_path, ["web.1"]) as follower:
        (tmp_path / "web.1.log").unlink()
        writer.write(b"after\n")
        assert texts(drain(follower)) == [b"after"]


def test_a_missing_rotated_file_is_stepped_over(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.1", Log(max_size=4096, files=9))
    writer.write(b"first\n")
    with Follower(tmp_path, ["web.1"]) as follower:
        for number in range(400):
            writer.write(b"%d\n" % number)
        (tmp_path / "web.1.log.2").unlink()
        numbers = [int(text) for text in texts(drain(follower))]
    assert numbers == sorted(set(numbers))
    assert (numbers[0], numbers[-1]) == (0, 399)


def test_a_truncated_file_is_read_from_its_start(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.1")
    writer.write(b"one\ntwo\n")
    with Follower(tmp_path, ["web.1"]) as follower:
        os.truncate(tmp_path / "web.1.log", 0)
        writer.write(b"three\n")
        assert texts(drain(follower)) == [b"three"]


def test_a_prompt_is_shown_and_its_line_goes_on(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.1")
    with Follower(tmp_path, ["web.1"]) as follower:
        writer.write(b"name? ", flush=True)
        shown = follower.poll() + follower.poll() + follower.poll()
        assert [(line.text, line.more) for line in shown] == [(b"name? ", True)]
        assert [(line.text, line.more) for line in tail(tmp_path, ["web.1"], 1)] == [
            (b"name? ", True)
        ]
        writer.write(b"joe\n")
        assert [(line.text, line.more) for line in follower.poll()] == [(b"joe", False)]
    assert texts(tail(tmp_path, ["web.1"], 1)) == [b"name? joe"]


def test_a_half_written_record_waits_for_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "web.1.log"
    whole = cri.record(cri.stamp(START_NS), "stdout", b"hello")
    path.write_bytes(whole + whole[:20])
    with Follower(tmp_path, ["web.1"], last=5) as follower:
        assert texts(follower.history) == [b"hello"]
        assert follower.poll() == []
        with path.open("ab") as file:
            file.write(whole[20:])
        assert texts(follower.poll()) == [b"hello"]


def test_what_is_no_record_is_shown_as_it_is(tmp_path: Path) -> None:
    good = cri.record(cri.stamp(START_NS), "stderr", b"good")
    with Follower(tmp_path, ["web.1"]) as follower:
        (tmp_path / "web.1.log").write_bytes(b"bad\n" + good + b"\0\xff worse\n")
        expected = [("?", b"bad"), ("stderr", b"good"), ("?", b"\0\xff worse")]
        assert [(line.stream, line.text) for line in drain(follower)] == expected
    lines = tail(tmp_path, ["web.1"], 9)
    assert [(line.stream, line.text) for line in lines] == expected
    assert {line.time_ns for line in lines} == {START_NS}


@pytest.mark.parametrize("extra", [0, 1, 5 << 20])
def test_a_huge_line_is_cut_for_display(tmp_path: Path, extra: int) -> None:
    writer = Writer(tmp_path, "web.1", Log(max_size=1 << 30))
    with Follower(tmp_path, ["web.1"]) as follower:
        writer.write(b"start" + b"x" * ((1 << 20) - 5 + extra) + b"\nnext\n")
        for lines in (drain(follower), tail(tmp_path, ["web.1"], 2)):
            assert [len(line.text) for line in lines] == [1 << 20, 4]
            assert lines[0].truncated == (extra > 0)
            assert lines[0].text.startswith(b"start")


def test_a_stretch_without_newlines_does_not_hang_the_readers(tmp_path: Path) -> None:
    path = tmp_path / "web.1.log"
    with Follower(tmp_path, ["web.1"]) as follower:
        path.write_bytes(b"\0" * (10 << 20) + b"\nx\n")
        followed = drain(follower)
        assert followed[-1].text == b"x"
        assert {line.stream for line in followed} == {"?"}
        assert followed[0].truncated
    assert texts(tail(tmp_path, ["web.1"], 1)) == [b"x"]
    assert len(tail(tmp_path, ["web.1"], 9)) >= 2


def test_tail_does_not_read_whole_files(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "web.1", Log(max_size=1 << 30))
    writer.write((b"x" * 99 + b"\n") * 200_000)
    path = Path("/proc/self/io")
    before = int(path.read_text().split()[1])
    assert len(tail(tmp_path, ["web.1"], 10)) == 10
    assert int(path.read_text().split()[1]) - before < 1 << 20
