"""Restarts on purpose: no request is lost, and nothing is worse than before if one goes wrong."""

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from _everup import DEADLINE_S, FAST_PROBE, SLEEP, Everup, UnixConnection, alive, get, python, sh

from load import Load, Summary

KEPT = str(Path(__file__).with_name("kept.py"))
READY = {"readiness": {"http": "/readyz", **FAST_PROBE}}
SOON = {"jitter": "none", "delay": "10ms", "max_delay": "100ms"}
QUICK = {"min_ready": "200ms"}


def kept(everup: Everup, **settings: Any) -> dict[str, Any]:
    """A service that runs tests/e2e/kept.py."""
    command = [sys.executable, "-S", "-E", KEPT, str(everup.control)]
    return {"command": command, "restart": SOON, **settings}


def load(port: int, **settings: Any) -> Load:
    return Load(port, **{"rate": 150, "kept": 10, "limit_s": 60, **settings})


def assert_served(summary: Summary, *pids: int) -> None:
    """No request failed, and each of them was answered by one of ``pids``."""
    assert summary.failed == 0, summary
    assert summary.sent == summary.ok > 0
    if pids:
        assert set(summary.pids) == set(pids)


def served_by(everup: Everup, load: Load, pid: int, count: int = 5) -> None:
    """Until that process has given some more answers."""
    before = load.look().pids.get(pid, 0)
    everup.wait_for(lambda: load.look().pids.get(pid, 0) >= before + count, f"answers of {pid}")


def moments(everup: Everup, slot: str, after: int) -> list[tuple[str, int]]:
    """What happened to a slot: (kind, run)."""
    words = ("outgoing", "spawned", "ready", "draining", "stopping", "exited")
    found = [
        (e["kind"].partition(".")[2], e.get("run", 0)) for e in everup.events(None, slot, after)
    ]
    return [(kind, run) for kind, run in found if kind in words]


@pytest.mark.parametrize(
    ("replicas", "probe", "drain"),
    [(1, READY, "0s"), (1, {}, "5s"), (2, {}, "0s"), (2, READY, "300ms")],
)
def test_restart_loses_no_request(
    everup: Everup, replicas: int, probe: dict[str, Any], drain: str
) -> None:
    """The old process serves until the new one is ready; then it drains, and is gone."""
    port = everup.port()
    web = kept(
        everup,
        listen=f"127.0.0.1:{port}", replicas=replicas, probe=probe, drain_timeout=drain,
        rollout=QUICK,
    )  # fmt: skip
    everup.up({"web": web})
    slots = [f"web.{n + 1}" for n in range(replicas)]
    before = {slot: everup.pid(slot) for slot in slots}
    seq = everup.last_seq()
    with load(port) as client:
        for pid in before.values():
            served_by(everup, client, pid)
        result = everup.cli("restart", "web")
        after = {slot: everup.pid(slot) for slot in slots}
        for pid in after.values():
            served_by(everup, client, pid)
        summary = client.stop()
    assert "restarted web in" in result.out
    assert_served(summary, *before.values(), *after.values())
    assert everup.members() == {slot: [(2, pid)] for slot, pid in after.items()}
    assert not any(alive(pid) for pid in before.values())
    for slot in slots:
        steps = moments(everup, slot, seq)
        assert steps[:3] == [("outgoing", 1), ("spawned", 2), ("ready", 2)]
        assert steps[3:] == [("draining", 1), ("stopping", 1), ("exited", 1)]
        exited = everup.events("instance.exited", slot, seq)
        assert [e["cause"] for e in exited] == ["exit 0"]
        assert everup.instance(slot)["restarts"] == 1
    firsts = [everup.events("instance.outgoing", slot, seq)[0]["seq"] for slot in slots]
    lasts = [everup.events("instance.exited", slot, seq)[0]["seq"] for slot in slots]
    assert all(last < first for last, first in zip(lasts, firsts[1:], strict=False))
    service = everup.service("web")
    assert service["outgoing"] == []
    assert service["rollout"] is None
    assert len(everup.events("rollout.done", "web", seq)) == 1


def test_a_service_that_cannot_run_twice(everup: Everup) -> None:
    """``overlap = false``: the old one ends first, connections wait in the socket meanwhile."""
    port = everup.port()
    web = kept(everup, listen=f"127.0.0.1:{port}", probe=READY, overlap=False)
    everup.up({"web": web})
    old = everup.pid("web.1")
    seq = everup.last_seq()
    with load(port) as client:
        served_by(everup, client, old)
        everup.cli("restart", "web")
        new = everup.pid("web.1")
        served_by(everup, client, new)
        summary = client.stop()
    assert_served(summary, old, new)
    steps = moments(everup, "web.1", seq)
    assert [kind for kind, _ in steps] == ["stopping", "exited", "spawned", "ready"]


def test_old_process_keeps_its_socket_as_it_is(everup: Everup) -> None:
    """O_NONBLOCK belongs to the socket, not to the process: making the successor's socket
    blocking must not touch the one that the old process goes on with."""
    port = everup.port()
    everup.up({"web": kept(everup, listen=f"127.0.0.1:{port}", probe=READY, drain_timeout="1h")})
    old = everup.pid("web.1")
    before = listening(old)
    assert before["flags"] & os.O_NONBLOCK, "asyncio has set it"
    with socket.create_connection(("127.0.0.1", port)) as idle:
        everup.wait_for(lambda: connected(old) == 1, "the old process has it")
        restarting = everup.popen("restart", "web")
        everup.wait_event("instance.draining", "web.1")
        new = everup.pid("web.1")
        assert new != old
        assert alive(old), "it has a connection"
        assert listening(old) == before
        assert listening(new)["inode"] != before["inode"], "a socket of its own"
        row = everup.service("web")["outgoing"][0]
        assert (row["pid"], row["state"], row["run"]) == (old, "draining", 1)
        answers = {int(get_plain(port).split()[0]) for _ in range(10)}
        assert answers == {new}
        idle.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert str(old).encode() in idle.recv(1000), "what it has begun goes on"
    out, _ = restarting.communicate(timeout=DEADLINE_S)
    assert restarting.returncode == 0, out
    assert not alive(old)
    # The lane of the old one is free again, and the next one takes it.
    everup.cli("restart", "web")
    assert listening(everup.pid("web.1"))["inode"] == before["inode"]


def test_what_waits_for_the_old_process_is_served(everup: Everup) -> None:
    """Connections that the kernel had given to it before the balance changed."""
    port = everup.port()
    web = kept(everup, listen=f"127.0.0.1:{port}", drain_timeout="1h", rollout=QUICK)
    everup.up({"web": web})
    old = everup.pid("web.1")
    os.kill(old, signal.SIGSTOP)
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    restarting = everup.popen("restart", "web")
    draining = everup.wait_event("instance.draining", "web.1")
    assert int(get_plain(port).split()[0]) == everup.pid("web.1") != old
    everup.wait_for(lambda: everup.status()["services"][0]["outgoing"], "it is told")
    assert not everup.events("instance.stopping", "web.1", draining["seq"])
    os.kill(old, signal.SIGCONT)
    for client in clients:
        client.settimeout(DEADLINE_S)
        assert str(old).encode() in client.recv(1000)
        client.close()
    out, _ = restarting.communicate(timeout=DEADLINE_S)
    assert restarting.returncode == 0, out
    assert everup.wait_event("instance.stopping", "web.1")["reason"] == "drained"


def test_successor_that_does_not_start(everup: Everup) -> None:
    """The restart stops at it, nobody else is touched, and no request is lost."""
    port = everup.port()
    web = kept(everup, listen=f"127.0.0.1:{port}", replicas=2, probe=READY)
    everup.up({"web": web, "other": {"command": SLEEP}})
    before = everup.members()
    everup.tell("crash")
    seq = everup.last_seq()
    with load(port) as client:
        result = everup.cli("restart", "web", expect=1)
        for _, pid in (*before["web.1"], *before["web.2"]):
            served_by(everup, client, pid)
        summary = client.stop()
    assert_served(summary, before["web.1"][0][1], before["web.2"][0][1])
    assert "the restart of web stopped: web.1 did not come to ready: it ended: exit 7" in result.err
    assert "web.1, web.2 went on as before" in result.err
    assert f"everup -c {everup.config} logs web" in result.err
    assert everup.members() == before
    stopped = everup.events("rollout.stopped", "web", seq)[0]
    assert stopped["reason"] == "web.1 did not come to ready: it ended: exit 7"
    assert stopped["not_replaced"] == ["web.1", "web.2"]
    instance = everup.instance("web.1")
    assert (instance["state"], instance["run"], instance["restarts"]) == ("ready", 1, 0)
    # Its number is spent: the next one has another.
    everup.untell("crash")
    everup.cli("restart", "web.1")
    assert everup.instance("web.1")["run"] == 3


def test_successor_that_is_never_ready(everup: Everup) -> None:
    """The old one goes on; the new one is gone, and what was replaced already stays."""
    port = everup.port()
    web = kept(
        everup, listen=f"127.0.0.1:{port}", replicas=2, probe=READY, start_timeout="500ms"
    )  # fmt: skip
    everup.up({"web": web})
    before = everup.members()
    everup.tell("unready")  # for both: they serve on, as there is nobody better
    everup.wait_state("web.1", "running")
    everup.wait_state("web.2", "running")
    result = everup.cli("restart", "web", "--json", expect=1)
    assert json.loads(result.out)["result"] == "stopped"
    assert json.loads(result.out)["reasons"]["web"].startswith("web.1 did not come to ready")
    assert "web.1 did not come to ready: it is running after" in result.err
    everup.untell("unready")
    everup.wait_state("web.1", "ready")
    everup.wait_for(lambda: everup.members() == before, "the new one is gone")


def test_batch_and_pause(everup: Everup) -> None:
    port = everup.port()
    rollout = {"batch": 2, "pause": "300ms"}
    web = kept(everup, listen=f"127.0.0.1:{port}", replicas=3, probe=READY, rollout=rollout)
    everup.up({"web": web})
    seq = everup.last_seq()
    with load(port) as client:
        everup.cli("restart", "web")
        summary = client.stop()
    assert_served(summary)
    gone = everup.events("instance.outgoing", after=seq)
    assert [e["subject"] for e in gone] == ["web.1", "web.2", "web.3"]
    ends = [e["mono"] for e in everup.events("instance.exited", after=seq)]
    assert gone[1]["seq"] == gone[0]["seq"] + 1 or gone[1]["mono"] <= ends[0]
    assert gone[2]["mono"] >= ends[1] + 0.3


def test_worker_without_sockets(everup: Everup) -> None:
    """It stops before the next one starts, unless it says that it can run twice."""
    everup.up(
        {
            "alone": {"command": SLEEP, "rollout": QUICK},
            "twice": {"command": SLEEP, "overlap": True, "rollout": QUICK},
        }
    )
    for name, steps in (
        ("alone", ["stopping", "exited", "spawned", "ready"]),
        ("twice", ["outgoing", "spawned", "ready", "stopping", "exited"]),
    ):
        seq, old = everup.last_seq(), everup.pid(f"{name}.1")
        everup.cli("restart", name)
        told = [kind for kind, _ in moments(everup, f"{name}.1", seq) if kind != "draining"]
        assert told == steps
        assert everup.pid(f"{name}.1") != old
        assert not alive(old)
    assert len(everup.members()) == 2


def test_worker_that_does_not_come_back(everup: Everup) -> None:
    """There is nothing to go back to, so it is started again as after any crash, and told."""
    script = sh("test -e ok || { echo 'no ok file' >&2; exit 3; }; exec sleep 1000")
    (everup.directory / "ok").touch()
    everup.up({"a": {"command": script, "restart": SOON, "replicas": 2}})
    (everup.directory / "ok").unlink()
    second = everup.pid("a.2")
    result = everup.cli("restart", "a", expect=1)
    assert "the restart of a stopped: a.1 did not come to ready: it ended: exit 3" in result.err
    assert "a.2 went on as before" in result.err
    assert everup.pid("a.2") == second
    (everup.directory / "ok").touch()
    everup.cli("start", "a")
    assert everup.pid("a.2") == second


def test_restart_of_what_others_depend_on(everup: Everup) -> None:
    """Nobody else is touched; a group's strategy is about crashes, not about restarts on
    purpose."""
    port = everup.port()
    everup.write(
        {
            "db": kept(everup, listen=f"127.0.0.1:{port}", probe=READY),
            "web": {"command": SLEEP, "depends_on": ["db"], "rollout": QUICK},
            "once": {"command": sh("echo $$ >> ran"), "type": "oneshot"},
        },
        groups={"shop": {"services": ["db", "web"], "strategy": "one_for_all"}},
    )
    everup.up()
    web = everup.pid("web.1")
    everup.cli("restart", "db")
    assert everup.pid("web.1") == web
    db = everup.pid("db.1")
    everup.cli("restart", "web")
    assert everup.pid("db.1") == db
    assert everup.pid("web.1") != web
    assert not everup.events("group.restarting")
    # A oneshot that is named runs once more; one of "all" that is done does not.
    ran = everup.directory / "ran"
    everup.cli("restart", "once")
    everup.wait_for(lambda: len(ran.read_text().split()) == 2, "it ran again")
    everup.cli("restart")
    assert len(ran.read_text().split()) == 2
    assert everup.pid("db.1") != db


def test_one_at_a_time_and_how_it_looks(everup: Everup) -> None:
    """Status says what is being replaced; a second restart is refused; a stop ends it."""
    port = everup.port()
    web = kept(everup, listen=f"127.0.0.1:{port}", replicas=2, probe=READY)
    everup.up({"web": web, "other": {"command": SLEEP, "rollout": QUICK}})
    everup.tell("unready")
    everup.cli("restart", "web", "--timeout", "0")
    new = everup.wait_for(
        lambda: len(everup.members().get("web.1", [])) == 2 and everup.members()["web.1"][1][1],
        "the successor",
    )
    old = everup.members()["web.1"][0][1]
    everup.wait_for(lambda: everup.instance("web.1")["state"] == "running", "it has started")
    result = everup.cli("status", expect=4)
    assert f"web.1: run 2 (pid {new}) replaces run 1 (pid {old}), which serves until it" in (
        result.out
    ), result.out
    assert "web: restart under way, left: web.1, web.2" in result.out
    data = json.loads(everup.cli("status", "--json", expect=4).out)
    web_now = next(s for s in data["services"] if s["name"] == "web")
    assert web_now["rollout"]["now"] == ["web.1"]
    assert [i["pid"] for i in web_now["outgoing"]] == [old]
    result = everup.cli("restart", "web.2", expect=1)
    assert "a restart of web is under way" in result.err
    assert f"everup -c {everup.config} status" in result.err
    result = everup.cli("reload", expect=None)
    assert "nothing changes" in result.out
    everup.cli("restart", "other")
    everup.cli("stop", "web")
    everup.wait_for(lambda: "web.1" not in everup.members(), "both of them are gone")
    assert everup.events("rollout.stopped", "web")
    assert everup.service("web")["rollout"] is None
    everup.untell("unready")
    everup.cli("start", "web")


def test_engine_dies_in_the_middle(everup: Everup) -> None:
    """The next one goes on with the restart."""
    port = everup.port()
    web = kept(everup, listen=f"127.0.0.1:{port}", replicas=3, probe=READY)
    everup.up({"web": web})
    before = everup.members()
    with load(port) as client:
        restarting = everup.popen("restart", "web")
        everup.wait_event("instance.outgoing", "web.2")
        os.kill(everup.engine_pid, signal.SIGKILL)
        out, _ = restarting.communicate(timeout=DEADLINE_S)
        assert restarting.returncode == 0, out.decode() + everup.report()
        summary = client.stop()
    assert_served(summary)
    after = everup.members()
    assert [len(runs) for runs in after.values()] == [1, 1, 1]
    assert all(after[slot] != before[slot] for slot in before)
    assert all(runs[0][0] in (2, 3) for runs in after.values())


NOTIFY = """
import os, socket, sys, time
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(text, os.environ["NOTIFY_SOCKET"])
while os.path.exists(sys.argv[1]):
    time.sleep(0.01)
say(b"READY=1\\nSTATUS=run " + os.environ["EVERUP_RUN"].encode())
time.sleep(1000)
"""


def test_notify_and_hooks(everup: Everup) -> None:
    """READY=1 counts for the process that said it; hooks run for each of the two."""
    hold = everup.control / "hold"
    hook = {name: sh(f"echo {name} $EVERUP_RUN >> hooks") for name in ("pre_start", "post_stop")}
    command = python(NOTIFY, str(hold))
    everup.up({"a": {"command": command, "notify": True, "overlap": True, "hooks": hook}})
    old = everup.pid("a.1")
    hold.touch()
    restarting = everup.popen("restart", "a")
    everup.wait_event("instance.spawned", "a.1", run=2)
    row = everup.service("a")["outgoing"][0]
    assert (row["pid"], row["state"], row["status_text"]) == (old, "ready", "run 1")
    assert everup.instance("a.1")["state"] == "starting"
    assert alive(old)
    hold.unlink()
    out, _ = restarting.communicate(timeout=DEADLINE_S)
    assert restarting.returncode == 0, out
    assert everup.pid("a.1") != old
    assert everup.instance("a.1")["status_text"] == "run 2"
    lines = (everup.directory / "hooks").read_text().splitlines()
    assert lines == ["pre_start 1", "pre_start 2", "post_stop 1"]


def test_unix_socket(everup: Everup) -> None:
    """Both processes share it: no request fails, and what is open may end."""
    path = str(everup.directory / "web.sock")
    web = kept(everup, listen=f"unix:{path}", rollout=QUICK, drain_timeout="1h")
    everup.up({"web": web})
    old = everup.pid("web.1")

    def ask(client: UnixConnection) -> int:
        client.request("GET", "/")
        return int(client.getresponse().read().split()[0])

    busy = UnixConnection(path)
    assert ask(busy) == old
    restarting = everup.popen("restart", "web")
    answers = []
    while not everup.events("instance.draining", "web.1"):
        client = UnixConnection(path)
        answers.append(ask(client))
        client.close()
    new = everup.pid("web.1")
    assert set(answers) <= {old, new}
    assert ask(busy) == old, "its connection is waited for"
    assert everup.service("web")["outgoing"][0]["state"] == "draining"
    busy.close()
    out, _ = restarting.communicate(timeout=DEADLINE_S)
    assert restarting.returncode == 0, out
    assert everup.wait_event("instance.stopping", "web.1")["reason"] == "drained"
    client = UnixConnection(path)
    assert ask(client) == new
    client.close()


def test_progress_on_a_terminal(everup: Everup) -> None:
    """One line that says what is left, on standard error, when it takes longer."""
    web = kept(everup, listen=f"127.0.0.1:{everup.port()}", replicas=2, rollout={"min_ready": "1s"})
    everup.up({"web": web})
    ours, theirs = pty.openpty()
    try:
        restarting = everup.popen("restart", "web", stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(ours, 4096):
                shown += data
        out, _ = restarting.communicate(timeout=DEADLINE_S)
    finally:
        os.close(ours)
    assert restarting.returncode == 0
    assert b"restart: 2 left (web.1, web.2)" in shown
    assert b"restart: 1 left (web.2)" in shown
    assert shown.endswith(b"\r\x1b[K"), "it is wiped at the end"
    assert out.decode().startswith("restarted web in ")
    assert len(out.splitlines()) == 1


def test_who_no_longer_waits(everup: Everup) -> None:
    """Ctrl-C ends the command that waits; what it began goes on, and it says so."""
    web = kept(everup, listen=f"127.0.0.1:{everup.port()}", probe=READY)
    everup.up({"web": web})
    everup.tell("unready.two")
    seq = everup.last_seq()
    everup.write({"web": web | {"environment": {"VERSION": "two"}}})
    ours, theirs = pty.openpty()
    shown = b""
    try:
        reloading = everup.popen("reload", stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(ours, 4096):
                shown += data
                if b"reload" in data and b"reload" not in shown[: -len(data)]:
                    reloading.send_signal(signal.SIGINT)
        assert reloading.wait(DEADLINE_S) == 128 + signal.SIGINT
    finally:
        os.close(ours)
    said, hint = shown.decode().rpartition("\x1b[K")[2].splitlines()
    assert said.endswith(" no longer waiting; everup goes on with it")
    assert hint == f"  look: everup -c {everup.config} status"
    everup.untell("unready.two")
    everup.wait_event("config.reloaded", after=seq)


def test_metrics_know_the_lanes(everup: Everup) -> None:
    """Who is in the balance goes by the socket of the process, not by the replica's number."""
    web = kept(everup, listen=f"127.0.0.1:{everup.port()}", probe=READY)
    everup.up({"web": web})
    for _ in range(2):
        _, body = everup.request("GET", "/metrics")
        assert 'in_balance{instance="web.1",service="web"} 1.0' in body.decode()
        everup.cli("restart", "web")


def listening(pid: int) -> dict[str, int]:
    """Its descriptor 3: flags and inode."""
    info = Path(f"/proc/{pid}/fdinfo/3").read_text()
    flags = next(line.split()[1] for line in info.splitlines() if line.startswith("flags"))
    return {"flags": int(flags, 8), "inode": os.stat(f"/proc/{pid}/fd/3").st_ino}


def connected(pid: int) -> int:
    import psutil

    found = psutil.Process(pid).net_connections("tcp")
    return sum(one.status == psutil.CONN_ESTABLISHED for one in found)


def get_plain(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as client:
        client.sendall(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        data = b""
        while chunk := client.recv(65536):
            data += chunk
    return data.partition(b"\r\n\r\n")[2].decode()


@pytest.mark.parametrize("command", ["restart", "reload"])
def test_this_once_two_do_not_fit(everup: Everup, command: str) -> None:
    """The old process has ended before its successor starts; the next time is as ever."""
    port = everup.port()
    web = everup.server(listen=f"127.0.0.1:{port}")
    everup.up({"web": web})
    everup.write({"web": web | {"environment": {"A": "1"}}})
    after = everup.last_seq()
    done = everup.cli(command, "--no-overlap")
    kinds = everup.kinds("web.1", after)
    assert kinds.index("exited") < kinds.index("starting"), done.text
    assert "outgoing" not in kinds
    assert get(port)["pid"] == everup.pid("web.1")
    after = everup.last_seq()
    everup.cli("restart")
    assert "outgoing" in everup.kinds("web.1", after)
