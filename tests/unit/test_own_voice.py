"""What everup says of itself never holds it up."""

import fcntl
import os
import socket
import threading
from pathlib import Path

import pytest

from everup.keeper.voice import Outlet, Stream


def full_pipe() -> tuple[int, int]:
    """A pipe that nobody reads, full; its ends."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.write(writer, b"x" * 4096)
    return reader, writer


def test_a_pipe_that_nobody_reads_costs_lines_and_no_time() -> None:
    reader, writer = full_pipe()
    outlet = Outlet(writer)
    for number in range(2000):
        outlet.put(f"line {number}\n")
    assert outlet.dropped == 1500
    assert os.get_blocking(writer)  # what others share is as it was
    os.set_blocking(reader, False)
    said = b""
    for _ in range(1000):
        outlet.flush()
        try:
            said += os.read(reader, 65536)
        except BlockingIOError:
            break
    lines = said.lstrip(b"x").decode().splitlines()
    assert lines[:500] == [f"line {number}" for number in range(500)]
    assert lines[500:] == ["everup: 1500 lines of its own could not be written here"]
    assert outlet.dropped == 0


def test_a_socket_that_nobody_reads() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outlet = Outlet(ours.fileno())
        for _ in range(3000):
            outlet.put("x" * 3000 + "\n")
        assert outlet.dropped


def test_a_descriptor_that_is_gone() -> None:
    reader, writer = os.pipe()
    outlet = Outlet(writer)
    os.close(writer)
    os.close(reader)
    outlet.put("nobody hears this\n")
    assert outlet.dropped == 1


def test_a_stream_writes_whole_lines() -> None:
    reader, writer = os.pipe()
    stream = Stream(Outlet(writer))
    print("one", "two", file=stream)
    stream.write("th")
    stream.write("ree\nfour")
    assert os.read(reader, 100) == b"one two\nthree\n"


def test_a_file_is_written_by_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that stalls holds up the thread, and nobody else."""
    thaw = threading.Event()
    write = os.write

    def frozen(fd: int, data: bytes) -> int:
        assert threading.current_thread() is not threading.main_thread()
        thaw.wait(30)
        return write(fd, data)

    monkeypatch.setattr(os, "write", frozen)
    fd = os.open(tmp_path / "everup.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    outlet = Outlet(fd)
    for number in range(2000):
        outlet.put(f"line {number}\n")
    assert outlet.dropped >= 1499
    thaw.set()
    outlet.drain(30)
    lines = (tmp_path / "everup.log").read_text().splitlines()
    assert lines[:500] == [f"line {number}" for number in range(500)]
    os.close(fd)
