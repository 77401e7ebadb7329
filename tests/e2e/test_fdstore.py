"""systemd's descriptor store, played by a datagram socket that keeps what it is sent."""

import array
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from everup.adapters import fdstore
from everup.adapters.fdstore import FdStore

PATIENCE_S = 10.0

START = """
import os, sys
count, names, code = int(sys.argv[1]), sys.argv[2], sys.argv[3]
kept = [os.dup(int(fd)) for fd in sys.argv[4:]]
high = [os.dup2(fd, 100 + n) for n, fd in enumerate(kept)]
for n, fd in enumerate(high): os.dup2(fd, 3 + n)
os.closerange(3 + count, 200)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names}
os.execv(sys.executable, [sys.executable, "-c", code])
"""
"""As systemd starts the unit again."""

AGAIN = """
import json, os, socket, sys
from everup.adapters import fdstore
usable = fdstore.usable(os.environ)
got = fdstore.inherited(os.environ)
left = [name for name in os.environ if name.startswith("LISTEN_")]
passed_on = [os.get_inheritable(fd) for fd in got.values()]
print(json.dumps([usable, got, left, passed_on]), flush=True)
if "sock:web:main:0" in got:
    socket.socket(fileno=got["sock:web:main:0"]).accept()[0].sendall(b"again")
if "pipe:web.1:1:out" in got:
    print(os.read(got["pipe:web.1:1:out"], 100).decode())
"""


class Systemd:
    """What PID 1 does with one unit."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(str(path))
        self.sock.settimeout(PATIENCE_S)
        self.environ = {"NOTIFY_SOCKET": str(path), "FDSTORE": "100"}
        self.kept: list[tuple[str, int]] = []

    def hear(self) -> dict[str, str]:
        data, ancillary, _, _ = self.sock.recvmsg(4096, 4096, socket.MSG_CMSG_CLOEXEC)
        said = dict(line.split("=", 1) for line in data.decode().splitlines())
        fds = array.array("i")
        for _, _, payload in ancillary:
            fds.frombytes(payload)
        if said.get("FDSTORE") == "1":
            assert ":" not in said["FDNAME"]
            self.kept += [(said["FDNAME"], fd) for fd in fds]
        if said.get("FDSTOREREMOVE") == "1":
            for name, fd in [one for one in self.kept if one[0] == said["FDNAME"]]:
                os.close(fd)
                self.kept.remove((name, fd))
        return said

    def start(self) -> "subprocess.Popen[str]":
        names, fds = ":".join(name for name, _ in self.kept), [fd for _, fd in self.kept]
        return subprocess.Popen(
            [sys.executable, "-S", "-c", START, str(len(fds)), names, AGAIN, *map(str, fds)],
            env=os.environ | self.environ, pass_fds=fds, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def close(self) -> None:
        self.sock.close()
        for _, fd in self.kept:
            os.close(fd)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path / "notify")
    yield systemd
    systemd.close()


def test_what_was_pushed_comes_back(systemd: Systemd) -> None:
    store = FdStore.of(systemd.environ)
    assert store is not None
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    read, write = os.pipe()
    os.write(write, b"before the death")
    for name, fd in (
        ("sock:web:main:0", listening.fileno()), ("pipe:web.1:1:out", read),
        ("pipe:web.1:1:err", read),
    ):  # fmt: skip
        assert store.push(name, fd)
        systemd.hear()
    assert store.remove("pipe:web.1:1:err")
    systemd.hear()
    assert [name for name, _ in systemd.kept] == ["sock,web,main,0", "pipe,web.1,1,out"]
    listening.close()  # everup is dead: only systemd has them
    os.close(read)
    with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as waiting:
        again = systemd.start()
        out, _ = again.communicate(timeout=30)
        assert waiting.recv(10) == b"again"
    first, said = out.splitlines()
    usable, got, left, passed_on = json.loads(first)
    assert usable
    assert got == {"sock:web:main:0": 3, "pipe:web.1:1:out": 4}
    assert left == []  # no service takes them for its own
    assert passed_on == [False, False]
    assert said == "before the death"
    os.close(write)


def test_ready(systemd: Systemd) -> None:
    store = FdStore.of(systemd.environ)
    assert store is not None
    assert store.ready()
    assert systemd.hear() == {"READY": "1"}
    assert store.ready(4711)
    assert systemd.hear() == {"READY": "1", "MAINPID": "4711"}


def test_an_abstract_address() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(f"\0everup-test-{os.getpid()}")
        sock.settimeout(PATIENCE_S)
        assert FdStore(f"@everup-test-{os.getpid()}").ready()
        assert sock.recv(100) == b"READY=1"


def test_nobody_listens(tmp_path: Path) -> None:
    store = FdStore(str(tmp_path / "none"))
    assert not store.push("sock:web:main:0", 0)
    assert not store.ready()


@pytest.mark.parametrize(
    ("environ", "usable"),
    [
        ({}, False),
        ({"FDSTORE": "10"}, False),
        ({"NOTIFY_SOCKET": "/run/n"}, False),
        ({"NOTIFY_SOCKET": "/run/n", "FDSTORE": "0"}, False),
        ({"NOTIFY_SOCKET": "/run/n", "FDSTORE": "10"}, True),
        ({"NOTIFY_SOCKET": "@n", "FDSTORE": "10"}, True),
        ({"NOTIFY_SOCKET": "vsock:2:1", "FDSTORE": "10"}, False),
        ({"NOTIFY_SOCKET": "/run/n", "LISTEN_PID": str(os.getpid())}, True),
        ({"NOTIFY_SOCKET": "/run/n", "LISTEN_PID": "1"}, False),
    ],
)
def test_whether_there_is_a_store(environ: dict[str, str], usable: bool) -> None:
    assert fdstore.usable(environ) is usable
    assert (FdStore.of(environ) is not None) is usable


@pytest.mark.parametrize("pid", ["", "1", "x"])
def test_what_is_meant_for_somebody_else_is_left_alone(pid: str) -> None:
    environ = {"LISTEN_PID": pid, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a", "PATH": "/bin"}
    assert fdstore.inherited(environ) == {}
    assert environ == {"PATH": "/bin"}


def test_of_two_with_one_name_one_is_kept(systemd: Systemd) -> None:
    store = FdStore.of(systemd.environ)
    assert store is not None
    ends = os.pipe()
    for _ in range(2):
        store.push("pipe:a.1:1:out", ends[0])
        systemd.hear()
    out, _ = systemd.start().communicate(timeout=30)
    assert json.loads(out.splitlines()[0])[1] == {"pipe:a.1:1:out": 4}
    for end in ends:
        os.close(end)
