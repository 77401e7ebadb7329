"""The observer and its sampler: what they see, what they may, and that nobody needs them."""

import contextlib
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from _everup import DEADLINE_S, SLEEP, Everup, UnixConnection, alive, python

DATABASE = """
import os, socket, sys
if os.path.exists("broken"):
    sys.exit("FATAL: could not write: No space left on device")
listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
while True:
    listener.accept()[0].close()
"""
CLIENT = """
import socket, sys, time
while True:
    socket.create_connection(("127.0.0.1", int(sys.argv[1]))).close()
    time.sleep(0.05)
"""


def own(everup: Everup, name: str) -> int:
    """Give the pid of a process beside the engine, once it has said that it runs."""

    def last() -> int:
        told = [e for e in everup.events("observer.started") if e["name"] == name]
        return int(told[-1]["pid"]) if told else 0

    everup.wait_for(last, f"{name} runs")
    return last()


def test_one_incident_with_its_cause_and_nobody_needs_the_observer(everup: Everup) -> None:
    port = everup.port()
    often = {"delay": "50ms", "max_delay": "50ms", "jitter": "none", "intensity": {"limit": 500}}
    everup.up(
        {
            "db": {"command": python(DATABASE), "port": port, "restart": often},
            "web": {"command": python(CLIENT, str(port)), "depends_on": ["db"], "restart": often},
        },
        observer=True,
    )
    observer, sampler = own(everup, "observer"), own(everup, "sampler")
    (everup.directory / "broken").touch()
    os.kill(everup.pid("db.1"), signal.SIGKILL)
    everup.wait_for(
        lambda: any("disk is full" in e["sentence"] for e in everup.events("incidents.explained")),
        "the cause is found",
    )

    def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = everup.cli("incidents", "--json", expect=4).json
        return found if [i["subject"] for i in found] == ["db"] else []

    # What was opened before its own last words were known is a part of it a moment later.
    (incident,) = everup.wait_for(listed, "one incident is open")
    number = str(incident["number"])
    everup.wait_for(lambda: listed()[0]["cause"]["kind"] == "disk_full", "its cause is named")
    shown = everup.cli("incident", number).out
    assert "because the disk is full" in shown
    assert "No space left on device" in shown
    everup.cli("ack", number, "--note", "on it")
    assert listed()[0]["state"] == "acknowledged"
    opened = len(everup.events("incidents.opened"))

    # Killed in the middle of an incident, it goes on with that one.
    os.kill(observer, signal.SIGKILL)
    os.kill(sampler, signal.SIGKILL)
    everup.wait_for(lambda: own(everup, "observer") != observer, "another observer runs")
    (everup.directory / "broken").unlink()
    everup.wait_for(
        lambda: everup.events("detect.ended") and everup.state("web.1") == "ready",
        "what was found is over",
    )
    assert len(everup.events("incidents.opened")) == opened
    pids = [told["pid"] for told in everup.events("observer.started")]
    everup.cli("down")
    assert [pid for pid in pids if alive(pid)] == []


def test_the_observer_has_no_rights_that_it_does_not_need(everup: Everup) -> None:
    everup.up({"a": {"command": SLEEP}}, observer=True)
    pid = own(everup, "observer")
    if os.getuid() == 0:
        everup.wait_for(lambda: _uids(pid) != {0}, "it has given its rights up")
        status = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert "NoNewPrivs:\t1" in status
    path = str(everup.place.observer_socket)
    assert _ask(path, "POST", "/v1/stop", {"targets": ["a"]})[0] == 403
    assert _ask(path, "POST", "/v1/down", {})[0] == 403
    assert _ask(path, "GET", "/v1/status")[0] == 200
    entry = {"kind": "instance.exited", "subject": "a.1", "payload": {}}
    status, answer = _ask(path, "POST", "/v1/observed", {"entries": [entry]})
    assert status == 400
    assert "the observer may write" in answer["error"]
    asked = {"command": "restart", "targets": ["a"], "why": "a test"}
    everup.cli("stop", "a")
    status, answer = _ask(path, "POST", "/v1/ask", asked)
    assert (status, answer["error"]) == (409, "not done: a.1: an operator has stopped it")
    assert everup.state("a.1") == "stopped"


def test_without_an_observer(everup: Everup) -> None:
    everup.up({"a": {"command": SLEEP}}, observer=False)
    everup.cli("restart", "a")
    assert not everup.events("observer.started")
    assert not os.path.exists(everup.place.observer_socket)


def _uids(pid: int) -> set[int]:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("Uid:"):
                return {int(word) for word in line.split()[1:]}
    return {0}


def _ask(path: str, method: str, target: str, body: object = None) -> tuple[int, dict[str, str]]:
    connection = UnixConnection(path, DEADLINE_S)
    with contextlib.closing(connection):
        connection.request(method, target, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
def test_nobody_else_reaches_the_sampler(everup: Everup) -> None:
    everup.up({"a": {"command": SLEEP}}, observer=True)
    own(everup, "sampler")
    everup.wait_for(lambda: os.path.exists(everup.place.sampler_socket), "it listens")
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(everup.place.sampler_socket))
            except PermissionError:
                os._exit(13)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 13
