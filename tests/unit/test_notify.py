"""sd_notify: the datagrams, and who may send them."""

import array
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from everup.adapters.notify import (
    MAX_DATAGRAM,
    MAX_FIELDS,
    NotifySocket,
    Sender,
    ancestors,
    named_main,
    parse,
)
from everup.model.instance import Slot

WEB = Slot("web", 1)


@given(st.binary(max_size=2 * MAX_DATAGRAM))
@example(b"")
@example(b"=\n==\n\0=\0\n\xff=\xff")
def test_no_datagram_raises(data: bytes) -> None:
    fields = parse(data)
    assert len(fields) <= MAX_FIELDS
    for name, value in fields:
        assert name
        assert name.isascii()
        assert "\n" not in value


@given(
    st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True), st.text(), max_size=20)
)
def test_what_makes_sense_is_read(fields: dict[str, str]) -> None:
    fields = {name: value.replace("\n", " ") for name, value in fields.items()}
    data = "\n".join(f"{name}={value}" for name, value in fields.items())
    expected = {n: v.encode("utf-8", "replace").decode() for n, v in fields.items()}
    assert dict(parse(data.encode("utf-8", "replace"))) == expected


def test_fields_in_order_with_what_makes_no_sense_left_out() -> None:
    data = b"READY=1\nnonsense\n=x\nA B=1\nSTATUS=a=b\n\nSTATUS=\xff\n"
    assert parse(data) == (("READY", "1"), ("STATUS", "a=b"), ("STATUS", "\ufffd"))


class Desk:
    """A real notify socket and what came of it. Who belongs is a set of pids."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.ours = {os.getpid()}
        self.reports: list[tuple[Slot, dict[str, str]]] = []
        self.refused: list[str] = []
        self.overruns = 0
        self.socket = NotifySocket(
            self.path,
            self.owner,
            lambda slot, said: self.reports.append((slot, dict(said.fields))),
            self.refused.append,
            self.overrun,
        )

    def owner(self, sender: Sender) -> Slot | None:
        if sender.pid in self.ours:
            assert sender.uid == os.getuid()
            return WEB
        self.refused.append(f"pid {sender.pid}")
        return None

    def overrun(self) -> None:
        self.overruns += 1

    def send(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(self.path)
            sender.sendmsg([data], rights)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path / "notify.sock")
    yield desk
    desk.socket.close()


def test_a_process_of_ours_is_heard(desk: Desk) -> None:
    desk.send(b"READY=1\nSTATUS=up")
    desk.send(b"WATCHDOG=1")
    desk.socket.readable()
    desk.socket.readable()  # nothing there: it comes back
    assert desk.reports == [(WEB, {"READY": "1", "STATUS": "up"}), (WEB, {"WATCHDOG": "1"})]
    assert desk.refused == []


def test_a_foreign_process_is_refused_by_its_pid_whatever_it_says(desk: Desk) -> None:
    code = "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
    code += f"s.sendto(b'READY=1\\nMAINPID={os.getpid()}', sys.argv[1])"
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", code, desk.path])
    assert process.wait() == 0
    desk.socket.readable()
    assert desk.reports == []
    assert desk.refused == [f"pid {process.pid}"]


def test_a_datagram_that_is_cut_off_is_refused_whole(desk: Desk) -> None:
    desk.send(b"READY=1\nSTATUS=" + b"x" * MAX_DATAGRAM)
    desk.send(b"STATUS=" + b"x" * (MAX_DATAGRAM - 7))  # exactly as much as is allowed
    desk.socket.readable()
    assert [len(fields["STATUS"]) for _, fields in desk.reports] == [MAX_DATAGRAM - 7]
    assert desk.refused == [f"a datagram of more than {MAX_DATAGRAM} bytes from web.1"]


def test_nonsense_of_ours_says_nothing(desk: Desk) -> None:
    desk.send(b"")
    desk.send(b"\0\xff")
    desk.socket.readable()
    assert (desk.reports, desk.refused) == ([], [])


@pytest.mark.parametrize("count", [1, 64, 200])
def test_descriptors_that_nobody_asked_for_are_closed(desk: Desk, count: int) -> None:
    before = set(os.listdir("/proc/self/fd"))
    desk.send(b"FDSTORE=1\nREADY=1", (0,) * count)
    desk.socket.readable()
    assert set(os.listdir("/proc/self/fd")) == before
    assert desk.reports == [(WEB, {"FDSTORE": "1", "READY": "1"})]


def test_a_flood_does_not_hold_the_loop(desk: Desk) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        sender.connect(desk.path)
        sent = 0
        try:
            for _ in range(1000):
                sender.send(b"WATCHDOG=1")
                sent += 1
        except BlockingIOError:
            pass
    desk.socket.readable()
    assert len(desk.reports) == sent
    assert desk.overruns == (sent < 1000)  # the queue was full
    desk.send(b"WATCHDOG=1")
    desk.socket.readable()
    assert desk.overruns == (sent < 1000)


def test_a_new_engine_reads_what_waits(desk: Desk) -> None:
    desk.send(b"READY=1")
    reports: list[Slot] = []
    report: Callable[[Slot, object], None] = lambda slot, fields: reports.append(slot)  # noqa: E731
    fd = os.dup(desk.socket.fileno())
    after = NotifySocket(desk.path, lambda _sender: WEB, report, desk.refused.append, fd=fd)
    after.readable()
    after.close()
    assert reports == [WEB]


def test_ancestors_go_up_and_end() -> None:
    chain = ancestors(os.getpid())
    assert chain[0] == os.getpid()
    assert os.getsid(0) in chain
    assert ancestors(2**22 + 1) == [2**22 + 1]  # no such process


def test_a_main_process_by_pid_number_and_pidfd() -> None:
    me = os.getpid()
    pidfd, null = os.pidfd_open(me), os.open(os.devnull, os.O_RDONLY)
    number = str(os.fstat(pidfd).st_ino)
    try:
        assert named_main((("MAINPID", str(me)),), ()) == (me, f"MAINPID={me}")
        assert named_main((("MAINPID", "x"),), ())[0] == 0
        assert named_main((("MAINPID", str(me)), ("MAINPIDFDID", number)), ())[0] == me
        assert named_main((("MAINPID", str(me)), ("MAINPIDFDID", number + "1")), ())[0] == 0
        by_fd = (("MAINPIDFD", "1"),)
        assert named_main(by_fd, (pidfd,)) == (me, "MAINPIDFD=1")
        for wrong in ((), (null,), (pidfd, null)):
            assert named_main(by_fd, wrong)[0] == 0
        assert named_main((("READY", "1"),), (pidfd,)) == (0, "")
    finally:
        os.close(pidfd)
        os.close(null)
