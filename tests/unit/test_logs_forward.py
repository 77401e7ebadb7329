"""What is copied to everup's own stdout: all that is stored, also over the death of an engine."""

import os
import time
from pathlib import Path

import pytest

from everup.adapters.logs import LogEvent, _file, _forward
from everup.adapters.logs import _cri as cri
from everup.adapters.logs._file import SlotFile
from everup.model.spec import Log

COPIED = Log(forward="stdout", max_size=65536)
WAIT_S = 20.0


class Life:
    """One engine, as far as it copies."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, log: Log = COPIED) -> None:
        self._read, self.write_end = os.pipe2(os.O_NONBLOCK)
        os.set_blocking(self.write_end, True)
        self.forward = _forward.Forward(self.write_end)
        monkeypatch.setattr(_file._forward, "stdout", self.forward)
        self.events: list[LogEvent] = []
        self.file = SlotFile(directory, "web.1", log, self.events.append)
        self.framer = cri.Framer("stdout", log.max_line)

    def say(self, *lines: str) -> None:
        data = "".join(f"{line}\n" for line in lines).encode()
        when = cri.stamp(1_795_387_981_000_000_000)
        self.file.write(self.framer.feed(data, when), "stdout", self.framer, when, 0.0)

    def copied(self) -> list[str]:
        """What has come out by now."""
        out = b""
        while True:
            try:
                out += os.read(self._read, 1 << 20)
            except BlockingIOError:
                return out.decode().splitlines()

    def all_copied(self) -> list[str]:
        out: list[str] = []
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            out += self.copied()  # the pipe takes no more than it can hold
            before = time.monotonic()
            self.forward.flush(0.5)
            if time.monotonic() - before < 0.4:
                break
        return out + self.copied()


def names(lines: list[str]) -> list[str]:
    return [line.removeprefix("web.1 | ").split(" ")[0] for line in lines]


def test_the_next_engine_copies_what_the_one_before_had_only_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads; the pipe takes the beginning alone. In the middle the file rotates."""
    first = Life(tmp_path, monkeypatch)
    wanted = [f"line{n}" for n in range(300)]
    for name in wanted:
        first.say(f"{name} {'.' * 1000}")
    assert (tmp_path / "web.1.log.1").exists()
    second = Life(tmp_path, monkeypatch)
    second.say("new")
    later = names(second.all_copied())
    assert later[-1] == "new"
    seen = names(first.copied()) + later  # its thread had come no further when it died
    assert set(wanted) <= set(seen)
    assert [name for name in dict.fromkeys(seen) if name in set(wanted)] == wanted


def test_what_was_copied_does_not_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Life(tmp_path, monkeypatch)
    first.say("a", "b")
    assert names(first.all_copied()) == ["a", "b"]
    second = Life(tmp_path, monkeypatch)
    second.say("c")
    assert names(second.all_copied()) == ["c"]


def test_what_came_while_nothing_was_copied_stays_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Life(tmp_path, monkeypatch)
    first.say("a")
    assert names(first.all_copied()) == ["a"]
    without = Life(tmp_path, monkeypatch, Log(max_size=65536))
    without.say("b")
    assert without.all_copied() == []
    third = Life(tmp_path, monkeypatch)
    third.say("c")
    assert names(third.all_copied()) == ["c"]


@pytest.mark.parametrize("note", [b"", b"x", bytes(24), b"\xff" * 24])
def test_a_note_that_is_damaged_costs_nothing_but_itself(
    note: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Life(tmp_path, monkeypatch)
    first.say("a")
    first.all_copied()
    (tmp_path / "web.1.copied").write_bytes(note)
    second = Life(tmp_path, monkeypatch)
    second.say("b")
    assert names(second.all_copied()) == ["b"]


def test_output_that_cannot_be_stored_is_copied_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life = Life(tmp_path, monkeypatch)
    (tmp_path / "web.1.log").mkdir()
    life.say("a")
    life.say("b")
    assert names(life.all_copied()) == ["a", "b"]
    assert life.file.failing
