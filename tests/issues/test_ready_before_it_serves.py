"""gunicorn sends READY=1 before it has loaded the application: a deploy of a broken one was taken,
and 578 of 631 requests were lost. The queue of a kept socket takes connections in, so neither that
nor a connection proves anything: it must be accepted."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from _everup import Everup, python

from everup.adapters import sock_diag
from everup.config import check
from load import Load, Summary

SAYS_READY = """
import os, socket, sys, time
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    if "NOTIFY_SOCKET" in os.environ:
        sock.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(float(sys.argv[1]))
sys.exit("cannot import the application")
"""
MUTE = "import time; time.sleep(1000)"
APP = """
import os, time
{broken}
def app(environ, start_response):
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
BROKEN = 'time.sleep(2)\nraise RuntimeError("this version does not work")'
FEW = {"restart": {"intensity": {"limit": 1}, "park_interval": "30s"}}


def kept(everup: Everup, **settings: Any) -> dict[str, Any]:
    """A service that runs tests/e2e/kept.py."""
    program = str(Path(__file__).parents[1] / "e2e" / "kept.py")
    return {"command": [sys.executable, "-S", "-E", program, str(everup.control)], **settings}


def load(port: int) -> Load:
    return Load(port, rate=150, kept=10, limit_s=60)


def assert_served(summary: Summary, *pids: int) -> None:
    """No request failed, and each of them was answered by one of ``pids``."""
    assert summary.failed == 0, summary
    assert summary.sent == summary.ok > 0
    if pids:
        assert set(summary.pids) == set(pids)


def broken(**settings: Any) -> dict[str, Any]:
    """A service that ends after two seconds and has never accepted anything."""
    return {"command": python(SAYS_READY, "2"), **settings}


@pytest.mark.parametrize("notify", [True, False])
def test_a_deploy_of_what_never_accepts_is_rolled_back(everup: Everup, notify: bool) -> None:
    port = everup.port()
    settings: dict[str, Any] = {"listen": f"127.0.0.1:{port}", "replicas": 2, "notify": notify}
    everup.up({"web": kept(everup, **settings | {"notify": False})})
    pids = [everup.pid("web.1"), everup.pid("web.2")]
    with load(port) as requests:
        everup.write({"web": broken(**settings)})
        result = everup.cli("reload", expect=None)
        summary = requests.stop()
    assert result.status != 0, result.text
    assert "web.1 did not come to ready" in result.text
    assert_served(summary, *pids)
    assert [everup.pid("web.1"), everup.pid("web.2")] == pids


@pytest.mark.parametrize("notify", [True, False])
def test_on_a_unix_socket_it_is_the_successor_who_must_accept(everup: Everup, notify: bool) -> None:
    """Both have the same socket, and the old one accepts all the while."""
    settings = {"listen": f"unix:{everup.directory}/web.sock", "notify": notify}
    everup.up({"web": kept(everup, **settings | {"notify": False})})
    pid = everup.pid("web.1")
    everup.write({"web": broken(**settings)})
    result = everup.cli("reload", expect=None)
    assert result.status != 0, result.text
    assert everup.pid("web.1") == pid
    everup.write({"web": kept(everup, **settings | {"notify": False}, environment={"X": "1"})})
    everup.cli("reload")
    assert everup.pid("web.1") != pid


def test_gunicorn_with_a_broken_application(everup: Everup) -> None:
    pytest.importorskip("gunicorn")
    port, app = everup.port(), everup.directory / "shop.py"
    gunicorn = [sys.executable, "-m", "gunicorn", "shop:app", "--no-control-socket"]
    web = {"command": gunicorn, "listen": f"127.0.0.1:{port}", "notify": True, **FEW}
    app.write_text(APP.format(broken=""))
    everup.up({"web": web})
    with load(port) as requests:
        app.write_text(APP.format(broken=BROKEN))
        everup.write({"web": {**web, "environment": {"VERSION": "2"}}})
        result = everup.cli("reload", expect=None)
        summary = requests.stop()
    assert result.status != 0, result.text
    assert "exit 3" in result.text  # gunicorn: a worker could not boot
    assert_served(summary)
    everup.down()
    result = everup.up(expect=None)
    assert result.status != 0, result.text
    assert everup.state("web.1") != "ready"


def test_a_server_that_sends_no_ready_is_named(everup: Everup) -> None:
    """The message says what was awaited, and that this server does not send it."""
    pytest.importorskip("uvicorn")
    (everup.directory / "shop.py").write_text("async def app(scope, receive, send): ...\n")
    uvicorn = [sys.executable, "-m", "uvicorn", "shop:app", "--fd", "3"]
    listen = f"127.0.0.1:{everup.port()}"
    web = {"command": uvicorn, "listen": listen, "notify": True, "start_timeout": "1s", **FEW}
    other = {"command": python(MUTE), "notify": True, "start_timeout": "1s", **FEW}
    silent = {"command": python(SAYS_READY, "100"), "notify": True, "start_timeout": "1s", **FEW}
    silent["listen"] = f"127.0.0.1:{everup.port()}"
    everup.up({"web": web, "other": other, "silent": silent}, expect=None)

    def reasons(slot: str) -> str:
        return str([e.get("reason") for e in everup.events(subject=slot)])

    everup.wait_for(lambda: "uvicorn does not send it" in reasons("web.1"), "it is named")
    everup.wait_for(lambda: "READY=1 was awaited (notify = true)" in reasons("other.1"), "said")
    wanted = f"it said READY=1, but it has accepted no connection on {silent['listen']}"
    everup.wait_for(lambda: wanted in reasons("silent.1"), "what was missing")


def test_ready_said_before_the_engine_dies_is_not_forgotten(everup: Everup) -> None:
    """READY=1 came, the connection has yet to be accepted: the next engine knows."""
    script = SAYS_READY.replace(
        "time.sleep", "go = sys.argv[2]\nwhile not os.path.exists(go): time.sleep"
    )
    script = script.replace(
        'sys.exit("cannot import the application")',
        ("listener = socket.socket(fileno=3)\nwhile True: listener.accept()[0].close()"),
    )
    go = everup.directory / "go"
    command = python(script, "0.05", str(go))
    web = {"command": command, "listen": f"127.0.0.1:{everup.port()}", "notify": True}
    everup.write({"web": web})
    up = everup.popen("up", "-d", "--timeout", "60")
    everup.wait_for(lambda: "said_ready" in everup.kinds("web.1"), "it has said so")
    pid = everup.pid("web.1")
    assert everup.state("web.1") == "starting"
    everup.kill(everup.own().engine)
    everup.wait_for(lambda: everup.instance("web.1")["pid"] == pid, "it is taken over")
    go.touch()
    everup.wait_for(lambda: everup.state("web.1") == "ready", "ready")
    assert everup.pid("web.1") == pid
    assert up.wait(30) == 0


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_the_kernel_tells_when_a_connection_is_accepted(family: int, tmp_path: Path) -> None:
    where: Any = {socket.AF_INET: ("127.0.0.1", 0), socket.AF_INET6: ("::1", 0)}
    with socket.socket(family) as listener, socket.socket(family) as client:
        listener.bind(where.get(family, str(tmp_path / "socket")))
        listener.listen()
        client.connect(listener.getsockname())
        assert sock_diag.accepted(client) is False
        with listener.accept()[0]:
            assert sock_diag.accepted(client) is True


def test_a_tcp_probe_of_a_kept_listener_sees_a_hang(everup: Everup) -> None:
    """Connecting to it always succeeds, so that says nothing."""
    probe = {"tcp": "listen", "interval": "50ms", "timeout": "500ms"}
    web = kept(everup, listen=f"127.0.0.1:{everup.port()}", probe={"liveness": probe})
    everup.up({"web": web})
    pid = everup.pid("web.1")
    os.kill(pid, 19)
    everup.wait_for(lambda: everup.instance("web.1")["pid"] not in (pid, None), "another one")
    assert "not accepted within 500ms" in str(everup.events(subject="web.1"))


def test_check_knows_what_a_server_cannot_do() -> None:
    text = "[service.web]\ncommand = {}\nlisten = '127.0.0.1:80'\nnotify = true\n"

    def warned(*command: str) -> str:
        report = check(text.format(list(command)), path="everup.toml", directory="/")
        assert not report.problems
        return str([str(warning) for warning in report.warnings])

    assert "uvicorn does not send READY=1" in warned("/srv/venv/bin/uvicorn", "shop:app")
    assert "hypercorn does not send READY=1" in warned("python3", "-m", "hypercorn", "shop:app")
    assert "granian does not take a socket" in warned("granian", "shop:app")
    assert "READY" not in warned("gunicorn", "shop:app")
