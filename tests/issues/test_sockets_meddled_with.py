"""A server shut the kept listener down (Sanic), unlinked its Unix path (PHP-FPM), shortened its
queue (nearly all) or listened on the port by itself (granian): everup called it ready, and every
client was refused or hung."""

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _everup import Everup, python
from _fixtures import needs_root

from everup.adapters import binding, steering
from everup.adapters.sockets import SocketBank
from everup.config import check
from everup.model.spec import Listener, Service

SERVE = """
import os, signal, socket, sys
how = sys.argv[1]
if "NOTIFY_SOCKET" in os.environ:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
listener = socket.socket(fileno=3)
def stop(*_):
    if how == "shutdown": listener.shutdown(socket.SHUT_RDWR)
    if how == "unlink": os.unlink(sys.argv[2])
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
if how == "shrink": listener.listen(7)
if how == "alone":
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    own.bind(listener.getsockname())
    own.listen()
    listener.close()
    listener = own
while True:
    with listener.accept()[0] as client:
        if client.recv(4096): client.sendall(str(os.getpid()).encode())
"""


def serve(how: str, *more: str) -> list[str]:
    return python(SERVE, how, *more)


def ask(where: Any, timeout_s: float = 5.0) -> int:
    """The pid that answers."""
    family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(timeout_s)
        client.connect(where)
        client.sendall(b"who?")
        return int(client.recv(100))


def asked(where: Any) -> int:
    try:
        return ask(where)
    except (OSError, ValueError):
        return 0


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_listener_that_was_shut_down_listens_again(everup: Everup, replicas: int) -> None:
    """Also with several, where the kernel then has the sockets in another order."""
    where = ("127.0.0.1", everup.port())
    probe = {"readiness": {"tcp": "listen", "interval": "100ms", "timeout": "2s"}}
    listen = f"{where[0]}:{where[1]}"
    command = serve("shutdown")
    web = {"command": command, "listen": listen, "replicas": replicas, "probe": probe}
    everup.up({"web": web})
    for number in range(1, replicas + 1):
        slot = f"web.{number}"
        old = everup.pid(slot)
        os.kill(old, 15)
        everup.wait_new_pid(slot, old)
    everup.wait_event("sockets.lost", "web")
    pids = {everup.pid(f"web.{n}") for n in range(1, replicas + 1)}
    everup.wait_for(lambda: {asked(where) for _ in range(20)} == pids, "all of them answer")
    # Each probe reaches its own: one that hangs is the one that is suspected.
    os.kill(everup.pid("web.1"), 19)
    everup.wait_for(lambda: everup.instance("web.1")["suspected"], "the right one is suspected")
    for number in range(2, replicas + 1):
        assert not everup.instance(f"web.{number}")["suspected"]
    os.kill(everup.pid("web.1"), 18)
    everup.wait_for(lambda: not everup.instance("web.1")["suspected"], "cleared")
    # The next engine knows the order as well.
    everup.kill(everup.own().engine)
    everup.wait_for(lambda: everup.own().engine and everup.status(), "the next engine")
    everup.wait_for(lambda: {asked(where) for _ in range(20)} == pids, "all of them answer")


@pytest.mark.parametrize("spare", [True, False])
def test_a_unix_path_that_was_removed_comes_back(everup: Everup, spare: bool) -> None:
    """By a second name of its file, or else by another socket that the processes get in turn."""
    path = everup.directory / "web.sock"
    web = {"command": serve("plain"), "listen": f"unix:{path}", "rollout": {"min_ready": "0s"}}
    everup.up({"web": web})
    pid = ask(str(path))
    other = Path(binding.spare_name(str(path)))
    everup.wait_for(other.exists, "it has a second name")
    if not spare:
        other.unlink()
    path.unlink()
    everup.wait_event("sockets.lost", "web", anew=not spare)
    everup.wait_for(lambda: asked(str(path)), "it is reached again")
    if spare:
        assert ask(str(path)) == pid
    else:
        assert everup.wait_new_pid("web.1", pid) == ask(str(path))
    everup.down()
    assert not path.exists()
    assert not other.exists()


def test_php_fpm_removes_the_path_as_it_stops(everup: Everup) -> None:
    path = everup.directory / "web.sock"
    everup.up({"web": {"command": serve("unlink", str(path)), "listen": f"unix:{path}"}})
    old = ask(str(path))
    everup.cli("restart", "web")
    everup.wait_for(lambda: asked(str(path)) not in (0, old), "the successor is reached")


@pytest.mark.parametrize("unix", [False, True])
def test_a_queue_that_was_shortened_is_as_long_as_before(everup: Everup, unix: bool) -> None:
    path, port = everup.directory / "web.sock", everup.port()
    where: Any = str(path) if unix else ("127.0.0.1", port)
    listen = {"main": {"address": f"unix:{path}" if unix else f"127.0.0.1:{port}", "backlog": 200}}
    everup.up({"web": {"command": serve("shrink"), "listen": listen}})
    pid = ask(where)
    family = socket.AF_UNIX if unix else socket.AF_INET

    def room() -> bool:
        """Whether a stopped server's queue takes 100 connections."""
        clients = [socket.socket(family) for _ in range(100)]
        try:
            for client in clients:
                client.settimeout(0.2)
                client.connect(where)
        except OSError:
            return False
        finally:
            for client in clients:
                client.close()
        return True

    os.kill(pid, 19)
    everup.wait_for(room, "the queue is as long as the config says")


def test_a_program_that_listens_by_itself_is_never_ready(everup: Everup) -> None:
    port = everup.port()
    everup.write({"web": {"command": serve("alone"), "listen": f"127.0.0.1:{port}"}})
    everup.cli("up", "-d", "--timeout", "2", expect=None)
    found = everup.wait_event("sockets.strangers", "web")
    assert f"listens on 127.0.0.1:{port} by itself" in str(found["strangers"])
    assert everup.state("web.1") == "starting"
    assert "by itself" in everup.instance("web.1")["reason"]


def test_somebody_else_on_the_port_is_said_once(everup: Everup) -> None:
    port = everup.port()
    everup.up({"web": {"command": serve("plain"), "listen": f"127.0.0.1:{port}", "replicas": 2}})
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        found = everup.wait_event("sockets.strangers", "web")
        assert f"(pid {os.getpid()})" in str(found["strangers"])
        assert all(asked(("127.0.0.1", port)) for _ in range(20))
    everup.wait_event("sockets.strangers", "web", strangers=[])
    assert len(everup.events("sockets.strangers", "web")) == 2
    assert everup.state("web.1") == "ready"


# -- paths that are somebody else's


class Bank(SocketBank):
    def __init__(self) -> None:
        super().__init__(lambda *_: None, lambda *_: None, lambda *_: None)


@pytest.fixture
def bank() -> Iterator[Bank]:
    bank = Bank()
    yield bank
    for sock in bank._sockets.values():
        sock.close()


def service(path: Path) -> Service:
    return Service("web", ("serve",), listen=(Listener("main", f"unix:{path}"),))


def test_the_path_of_another_program_stays(bank: Bank, tmp_path: Path) -> None:
    """everup's bind failed, or another has taken the path since: it is not everup's to remove."""
    web = service(tmp_path / "a.sock")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "a.sock"))
        other.listen()
        with pytest.raises(OSError, match="in use"):
            bank.open(web, 1)
        bank.close("web", web.listen)
        assert (tmp_path / "a.sock").exists()
    (tmp_path / "a.sock").unlink()
    bank.open(web, 1)
    (tmp_path / "a.sock").unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "a.sock"))
        bank.close("web", web.listen)
        assert (tmp_path / "a.sock").exists()


def test_a_full_queue_is_not_a_dead_socket(bank: Bank, tmp_path: Path) -> None:
    path = str(tmp_path / "a.sock")
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as one:
        other.bind(path)
        other.listen(0)
        one.connect(path)
        with socket.socket(socket.AF_UNIX) as two:
            two.setblocking(False)
            assert two.connect_ex(path) == errno.EAGAIN
        before = os.stat(path).st_ino
        with pytest.raises(OSError, match="in use"):
            bank.open(service(tmp_path / "a.sock"), 1)
        assert os.stat(path).st_ino == before


def test_a_dead_socket_is_replaced(bank: Bank, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "a.sock"))
        other.listen()
    bank.open(service(tmp_path / "a.sock"), 1)


def test_no_steering_program_on_a_socket_that_is_dead(bank: Bank) -> None:
    """It would keep that from ever listening again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    web = Service("web", ("serve",), replicas=3, listen=(Listener("main", f"127.0.0.1:{port}"),))
    bank.open(web, 3)
    bank.steer(web, (1, 2, 3))
    group = [sock for _, sock in sorted(bank._sockets.items())]
    group[0].shutdown(socket.SHUT_RDWR)
    bank.steer(web, (2, 3))
    assert bank.closed(web) == [("main", 1)]
    assert bank.listen_again(web)
    assert [bank.place(web, web.listen[0], lane) for lane in (1, 2, 3)] == [2, 1, 0]
    bank.steer(web, (1,))
    with socket.create_connection(("127.0.0.1", port)):
        assert [bank.waiting(web, lane) for lane in (1, 2, 3)] == [1, 0, 0]
    source = steering.probe_source(bank.place(web, web.listen[0], 2) + 1)
    with socket.create_connection(("127.0.0.1", port), source_address=(source, 0)):
        assert [bank.waiting(web, lane) for lane in (1, 2, 3)] == [1, 1, 0]


@needs_root
@pytest.mark.parametrize("notify", [False, True])
def test_an_address_that_is_not_here_yet_is_listened_on(everup: Everup, notify: bool) -> None:
    """It works from the moment that the machine has it."""
    lo_up = ("unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    if shutil.which("ip") is None or subprocess.run([*lo_up, "true"], check=False).returncode:
        pytest.skip("may not make a network namespace, or has no ip")
    everup.wrapper = lo_up
    listen = "192.0.2.77:8080"
    everup.up({"web": {"command": serve("plain"), "listen": listen, "notify": notify}})
    pid = everup.pid("web.1")
    said = everup.wait_event("facility.missing", "web")
    assert f"does not have the address of {listen} (yet)" in said["detail"]
    inside = ["nsenter", "-t", str(everup.own().keeper), "-n"]
    subprocess.run([*inside, "ip", "address", "add", "192.0.2.77/32", "dev", "lo"], check=True)
    asks = "import socket; s = socket.create_connection(('192.0.2.77', 8080), 5); s.sendall(b'?'); "
    argv = [*inside, sys.executable, "-c", asks + "print(s.recv(99).decode())"]
    assert int(subprocess.run(argv, capture_output=True, check=True).stdout) == pid


@needs_root
def test_a_unix_listener_belongs_to_whom_the_config_says(bank: Bank, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    listener = Listener("main", f"unix:{path}", mode="0600", user="nobody", group="1")
    bank.open(Service("web", ("serve",), listen=(listener,)), 1)
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (65534, 1, 0o600)
    bank.close("web", (listener,))
    assert not path.exists()
    nobody = Listener("main", f"unix:{path}", user="no-such-user")
    with pytest.raises(OSError, match="cannot give it to no-such-user: no such user or group"):
        bank.open(Service("web", ("serve",), listen=(nobody,)), 1)
    assert not path.exists()


def checked(text: str) -> list[Any]:
    known = check(text, path="everup.toml", directory="/", known_users=lambda name: name == "root")
    return list(known.problems)


def test_the_owner_of_a_listener_is_checked() -> None:
    text = "[service.web]\ncommand = ['x']\nlisten = {{ address = '{}', {} = '{}' }}\n"
    for address, key, value, problem in (
        ("127.0.0.1:80", "group", "adm", "only a Unix socket has an owner"),
        ("unix:/run/web.sock", "user", "no-such-user", "this machine has no such user"),
        ("unix:/run/web.sock", "user", "", "is empty"),
    ):
        assert problem in str(checked(text.format(address, key, value))[0])
    assert not checked(text.format("unix:/run/web.sock", "user", "root"))
