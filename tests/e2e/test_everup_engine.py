"""Nobody's death matters: the engine is killed, and everup runs as PID 1."""

import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from _everup import DEADLINE_S, EVERUP, FAST_PROBE, SLEEP, Everup, alive, get, python, sh
from _fixtures import needs_root

SOON = {"jitter": "none", "delay": "10ms", "max_delay": "100ms", "park_interval": "1h"}
COUNT = "import time\nfor n in range(10**9):\n print(n, flush=True); time.sleep(0.001)"


def kill_engine(everup: Everup) -> int:
    """kill -9; returns the pid of the next one, once it answers."""
    old = everup.engine_pid
    os.kill(old, signal.SIGKILL)
    everup.wait_for(lambda: everup.engine_pid != old, "a new engine answers")
    return everup.engine_pid


def test_engine_killed(everup: Everup) -> None:
    """Same pids, no restart, no refused client, no lost line; probes and events go on; stopped
    stays stopped, parked stays down."""
    port = everup.port()
    probe = {kind: {"http": "/healthz", **FAST_PROBE} for kind in ("readiness", "liveness")}
    everup.up(
        {
            "web": everup.server(
                listen=f"127.0.0.1:{port}", replicas=2, probe=probe, restart=SOON,
                drain_timeout="2s",
            ),
            "count": {"command": python(COUNT), "depends_on": ["setup"]},
            "setup": {"type": "oneshot", "command": sh("echo once >> setup.log")},
            "idle": {"command": SLEEP},
        }
    )  # fmt: skip
    everup.cli("stop", "idle")
    keeper, before = everup.keeper_pid, everup.instances()
    for _ in range(3):
        kill_engine(everup)
        assert get(port)["pid"] in {before["web.1"]["pid"], before["web.2"]["pid"]}
    assert everup.keeper_pid == keeper
    everup.wait_state("web.1", "ready")
    everup.wait_state("web.2", "ready")
    after = everup.instances()
    for slot, was in before.items():
        now = after[slot]
        assert (now["pid"], now["run"], now["restarts"], now["state"]) == (
            was["pid"], was["run"], was["restarts"], was["state"],
        ), slot  # fmt: skip
    assert after["setup.1"]["done"]
    assert (everup.directory / "setup.log").read_text() == "once\n"
    assert [e["takeover"] for e in everup.events("engine.started")] == [False, True, True, True]
    seqs = [e["seq"] for e in everup.events()]
    assert seqs == list(range(1, len(seqs) + 1))

    # Everything still works.
    everup.wait_for(lambda: everup.instance("web.1")["probes"].get("liveness"), "probes go on")
    os.kill(after["web.1"]["pid"], signal.SIGKILL)
    everup.wait_new_pid("web.1", after["web.1"]["pid"])
    everup.tell("unhealthy.2")
    everup.wait_event("instance.unhealthy", "web.2")
    everup.untell("unhealthy.2")
    everup.cli("start", "idle")
    everup.cli("restart", "web")
    at = int(everup.output("count.1")[-1])
    everup.wait_for(lambda: int(everup.output("count.1")[-1]) > at, "output goes on")
    lines = everup.output("count.1")
    assert lines == [str(n) for n in range(len(lines))], "no line is lost or doubled"


def test_engine_killed_while_things_happen(everup: Everup) -> None:
    """An instance dies, one is starting, one is stopping, while there is no engine."""
    (everup.control / "slow").touch()
    startup = {"exec": sh("test ! -e control/slow"), **FAST_PROBE, "failure_threshold": 1000}
    stubborn = everup.server(stop_timeout="1s")
    everup.control.joinpath("stubborn.1").touch()
    everup.up(
        {
            "dies": {"command": SLEEP, "restart": SOON},
            "slow": {"command": SLEEP, "probe": {"startup": startup}},
            "stops": stubborn,
            "steady": {"command": SLEEP},
        },
        arguments=("--timeout", "0"),
    )
    for slot, state in {
        "dies.1": "ready", "slow.1": "starting", "stops.1": "ready", "steady.1": "ready",
    }.items():  # fmt: skip
        everup.wait_state(slot, state)
    everup.wait_for(lambda: everup.output("stops.1"), "it has its handler")
    before = {slot: everup.pid(slot) for slot in ("dies.1", "slow.1", "stops.1", "steady.1")}
    everup.cli("stop", "stops", "--timeout", "0")
    engine = everup.engine_pid
    os.kill(engine, signal.SIGSTOP)  # so that it cannot react before it is gone
    os.kill(before["dies.1"], signal.SIGKILL)
    os.kill(engine, signal.SIGKILL)
    everup.wait_new_pid("dies.1", before["dies.1"])
    everup.wait_state("stops.1", "stopped")
    assert not alive(before["stops.1"])
    assert everup.state("slow.1") == "starting"
    (everup.control / "slow").unlink()
    everup.wait_state("slow.1", "ready")
    assert everup.pid("slow.1") == before["slow.1"]
    assert everup.pid("steady.1") == before["steady.1"]
    exits = everup.events("instance.exited", "dies.1")
    assert [e["cause"] for e in exits] == ["SIGKILL"]


def test_engine_killed_during_down(everup: Everup) -> None:
    """The order to end everything outlives the engine that took it."""
    everup.control.joinpath("stubborn").touch()
    everup.up({"a": everup.server(stop_timeout="1s"), "b": {"command": SLEEP}})
    everup.wait_for(lambda: everup.output("a.1"), "it has its handler")
    engine, keeper = everup.engine_pid, everup.keeper_pid
    everup.cli("down", "--timeout", "0")
    everup.wait_state("a.1", "stopping")
    os.kill(engine, signal.SIGKILL)
    everup.wait_for(lambda: not alive(keeper), "everup is down")
    everup.wait_for(lambda: not everup.processes(), "nothing is left, the zygote neither")
    everup.up()
    assert everup.state("b.1") == "ready", "down is no stop: up brings all back"


def test_keeper_killed(everup: Everup) -> None:
    """The engine starts another keeper: the same instances go on serving, without any command, and
    an ``up`` finds that everup runs. (More of this in test_kill.py.)"""
    port = everup.port()
    everup.up({"web": everup.server(listen=f"127.0.0.1:{port}"), "idle": {"command": SLEEP}})
    before = {slot: everup.pid(slot) for slot in ("web.1", "idle.1")}
    keeper, engine = everup.keeper_pid, everup.engine_pid
    os.kill(keeper, signal.SIGKILL)
    assert get(port)["pid"] == before["web.1"]
    everup.wait_for(lambda: everup.engine_pid != engine, "a new engine answers")
    assert everup.keeper_pid != keeper
    assert everup.status()["keeper"]["pid"] == everup.keeper_pid
    assert not alive(engine)
    assert get(port)["pid"] == before["web.1"]
    assert {slot: everup.pid(slot) for slot in before} == before
    assert "already running" in everup.up(expect=None).err
    sleepers = [pid for pid, command in everup.processes().items() if command == "sleep 1000 "]
    assert sleepers == [before["idle.1"]]
    assert [e["takeover"] for e in everup.events("engine.started")] == [False, True]


def test_hung_engine(everup: Everup) -> None:
    """Services go on; within seconds another engine answers, and looks after them."""
    port = everup.port()
    everup.up({"web": everup.server(listen=f"127.0.0.1:{port}")})
    engine, pid = everup.engine_pid, everup.pid("web.1")
    os.kill(engine, signal.SIGSTOP)
    assert get(port)["replica"] == "1"
    everup.wait_for(lambda: everup.own().engine not in (0, engine), "another engine")
    assert everup.pid("web.1") == pid
    os.kill(pid, signal.SIGKILL)
    everup.wait_new_pid("web.1", pid)
    log = (everup.state_dir / "everup.log").read_text()
    assert "the engine hangs: it is stopped" in log


def test_corrupt_journal(everup: Everup) -> None:
    """Set aside and told; the services start all the same."""
    everup.up({"a": {"command": SLEEP}})
    everup.down()
    journal = Path(everup.place.journal)
    journal.write_bytes(b"no database at all" * 1000)
    everup.up()
    assert everup.state("a.1") == "ready"
    assert "corrupt" in everup.events("facility.missing", "everup")[0]["detail"]
    assert list(everup.state_dir.glob("journal.db.corrupt-*"))


def test_zombies_are_reaped(everup: Everup) -> None:
    """Orphans of services become everup's, and do not stay as zombies."""
    script = sh("while :; do (setsid sh -c 'sleep 0.05' &) ; sleep 0.02; done")
    everup.up({"a": {"command": script}})
    keeper = psutil.Process(everup.keeper_pid)
    seen: set[int] = set()

    def orphans() -> bool:
        seen.update(c.pid for c in keeper.children() if c.pid != everup.engine_pid)
        return len(seen) > 10

    everup.wait_for(orphans, "orphans come to the keeper")
    everup.cli("stop", "a")

    def zombies() -> list[int]:
        return [c.pid for c in keeper.children() if c.status() == psutil.STATUS_ZOMBIE]

    everup.wait_for(lambda: not zombies(), "no zombie is left")


@needs_root
def test_pid_1(everup: Everup) -> None:
    """In a PID namespace of its own, as in a container: orphans reaped, SIGTERM ends it cleanly."""
    space = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*space, "true"], check=False).returncode:
        pytest.skip("may not make namespaces")
    script = sh("(setsid sh -c 'sleep 0.1; echo orphan done' &); exec sleep 1000")
    everup.write({"a": {"command": script}, "b": {"command": SLEEP, "depends_on": ["a"]}})
    command = [*space, EVERUP, "-c", str(everup.config), "up"]
    with subprocess.Popen(
        command, env=everup.environment, cwd=everup.directory, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as outside:  # fmt: skip
        everup.wait_for(lambda: os.path.exists(everup.place.api_socket), "the API is there")
        everup.wait_state("b.1", "ready")
        assert everup.status()["keeper"]["pid"] == 1
        everup.wait_for(lambda: "orphan done" in everup.output("a.1"), "the orphan has ended")
        first = next(iter(psutil.Process(outside.pid).children()))
        everup.wait_for(
            lambda: not [c for c in first.children() if c.status() == psutil.STATUS_ZOMBIE],
            "no zombie is left",
        )
        first.send_signal(signal.SIGTERM)
        out, _ = outside.communicate(timeout=DEADLINE_S)
    assert outside.returncode == 0, out.decode()
    assert "all services are down" in out.decode()
    stopped = [e["subject"] for e in everup.events("instance.stopped")]
    assert stopped == ["b.1", "a.1"]
