"""The life of services: restarts, order, readiness, stopping, scaling, hooks, groups."""

import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from _everup import DEADLINE_S, FAST_PROBE, SLEEP, Everup, alive, get, python, sh
from _fixtures import needs_root

SOON = {"jitter": "none", "delay": "10ms", "max_delay": "100ms", "park_interval": "1h"}
READINESS = {"readiness": {"http": "/readyz", **FAST_PROBE}}


class Clients:
    """Clients that ask again and again, each on a new connection."""

    def __init__(self, port: int, count: int = 4) -> None:
        self.port = port
        self.answers: list[int] = []
        self.errors: list[str] = []
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(count)]

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self.answers.append(get(self.port)["pid"])
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.errors.append(repr(error))
            time.sleep(0.002)

    def refused(self) -> list[str]:
        return [error for error in self.errors if "Refused" in error or "imed out" in error]


def test_killed_and_back_without_a_refused_client(everup: Everup) -> None:
    """kill -9: a new pid; the socket stays, so clients wait instead of being refused."""
    port = everup.port()
    everup.up({"web": everup.server(listen=f"127.0.0.1:{port}", restart=SOON)})
    pid = everup.pid("web.1")
    with Clients(port) as clients:

        def served(by: int) -> None:
            everup.wait_for(lambda: clients.answers.count(by) > 5, f"answers of {by}")

        for _ in range(3):
            served(pid)
            os.kill(pid, signal.SIGKILL)
            pid = everup.wait_new_pid("web.1", pid)
        served(pid)
    assert not clients.refused()
    # What a killed process had accepted already is lost with it: one for each client and kill.
    assert len(clients.errors) <= 12
    instance = everup.instance("web.1")
    assert instance["restarts"] == 3
    assert instance["last_exit"] == "SIGKILL"
    exits = everup.events("instance.exited", "web.1")
    assert [e["cause"] for e in exits] == ["SIGKILL"] * 3


def test_stopped_replica_leaves_the_balance_and_is_replaced(everup: Everup) -> None:
    """SIGSTOP of one of two: clients get the other, it is killed, and it comes back."""
    port = everup.port()
    liveness = {"http": "/healthz", "interval": "50ms", "timeout": "300ms"}
    everup.up(
        {
            "web": everup.server(
                listen=f"127.0.0.1:{port}",
                replicas=2,
                probe={"readiness": {"http": "/readyz", **FAST_PROBE}, "liveness": liveness},
                restart=SOON,
            )
        },
        starvation_psi=100,
    )
    victim, other = everup.pid("web.1"), everup.pid("web.2")
    os.kill(victim, signal.SIGSTOP)
    everup.wait_event("instance.suspected", "web.1")
    everup.wait_event("balance.changed", "web", replicas=[2])
    for _ in range(20):
        assert get(port)["pid"] == other
    unhealthy = everup.wait_event("instance.unhealthy", "web.1")
    assert "liveness probe" in unhealthy["reason"]
    fresh = everup.wait_new_pid("web.1", victim)
    everup.wait_for(
        lambda: {get(port)["pid"] for _ in range(20)} == {fresh, other}, "both are in the balance"
    )
    assert everup.pid("web.2") == other
    exit_event = everup.events("instance.exited", "web.1")[0]
    assert "liveness probe" in exit_event["killed_for"]


def test_unready_replica_gets_no_connections_and_is_not_restarted(everup: Everup) -> None:
    port = everup.port()
    everup.up({"web": everup.server(listen=f"127.0.0.1:{port}", replicas=2, probe=READINESS)})
    pids = {n: everup.pid(f"web.{n}") for n in (1, 2)}
    assert {get(port)["pid"] for _ in range(40)} == set(pids.values())
    everup.tell("unready.2")
    everup.wait_state("web.2", "running")
    assert {get(port)["pid"] for _ in range(20)} == {pids[1]}
    result = everup.cli("status", expect=4)
    assert "readiness FAILED" in result.out
    everup.untell("unready.2")
    everup.wait_state("web.2", "ready")
    everup.wait_for(
        lambda: {get(port)["pid"] for _ in range(20)} == set(pids.values()), "both are back"
    )
    # Both unready: the last ones are not taken away from clients, they have to answer somewhere.
    everup.tell("unready")
    everup.wait_state("web.1", "running")
    everup.wait_state("web.2", "running")
    assert get(port)["pid"] in pids.values()
    everup.untell("unready")
    everup.wait_state("web.1", "ready")
    assert {n: everup.pid(f"web.{n}") for n in (1, 2)} == pids


def test_order_oneshot_and_readiness(everup: Everup) -> None:
    """Nothing starts before what it depends on is ready (a oneshot: done); stopping goes the
    other way round."""
    everup.control.joinpath("db").mkdir()
    everup.tell("db/unready")
    db = everup.server("db", listen=f"127.0.0.1:{everup.port()}", probe=READINESS)
    migrate = everup.directory / "migrated"
    everup.up(
        {
            "web": everup.server(depends_on=["migrate", "db"]),
            "proxy": {"command": SLEEP, "depends_on": ["web"]},
            "migrate": {
                "type": "oneshot",
                "command": sh(f"echo done > {migrate}"),
                "depends_on": ["db"],
            },
            "db": db,
        },
        arguments=("--timeout", "0"),
    )
    everup.wait_state("db.1", "running")
    everup.wait_event("instance.waiting", "web.1", reason="waits for migrate, db")
    assert not migrate.exists()
    assert everup.instance("web.1")["pid"] is None
    assert everup.instance("web.1")["reason"] == "waits for migrate, db"
    everup.untell("db/unready")
    everup.wait_state("proxy.1", "ready")
    assert migrate.exists()
    assert everup.instance("migrate.1")["done"]
    assert everup.cli("status").status == 0

    def first(kind: str, subject: str) -> int:
        return int(everup.events(kind, subject)[0]["seq"])

    chain = [
        first("instance.ready", "db.1"), first("instance.spawned", "migrate.1"),
        first("instance.stopped", "migrate.1"), first("instance.spawned", "web.1"),
        first("instance.ready", "web.1"), first("instance.spawned", "proxy.1"),
    ]  # fmt: skip
    assert chain == sorted(chain)

    # A dependency that goes away later takes nobody down with it.
    pid = everup.pid("web.1")
    os.kill(everup.pid("db.1"), signal.SIGKILL)
    everup.wait_event("instance.ready", "db.1", after=chain[-1])
    assert everup.pid("web.1") == pid

    seq = everup.last_seq()
    everup.down()
    stops = [
        e["subject"]
        for e in everup.events(after=seq)
        if e["kind"] in ("instance.stopping", "instance.stopped") and e["subject"] != "migrate.1"
    ]
    assert stops == ["proxy.1", "proxy.1", "web.1", "web.1", "db.1", "db.1"]
    assert everup.events("engine.stopped")


def test_failed_oneshot_keeps_its_dependents_down(everup: Everup) -> None:
    script = sh("test -e ok || { echo 'no ok file' >&2; exit 7; }")
    everup.up(
        {
            "migrate": {"type": "oneshot", "command": script},
            "web": {"command": SLEEP, "depends_on": ["migrate"]},
            "beside": {"command": SLEEP},
        },
        expect=4,
    )
    assert everup.state("migrate.1") == "failed"
    assert "exit 7" in everup.instance("migrate.1")["reason"]
    assert everup.instance("web.1")["reason"] == "waits for migrate"
    everup.wait_state("beside.1", "ready")
    (everup.directory / "ok").touch()
    everup.cli("start", "migrate")
    everup.wait_state("web.1", "ready")


def test_stop_timeout_kills_the_whole_family(everup: Everup) -> None:
    """A process that ignores SIGTERM, its children, and a grandchild in a session of its own."""
    script = """
trap '' TERM
(trap '' TERM; while :; do sleep 0.1; done) &
echo child $!
setsid sh -c 'trap "" TERM; echo grandchild $$; while :; do sleep 0.1; done' &
while :; do sleep 0.1; done
"""
    everup.up({"a": {"command": sh(script), "stop_timeout": "300ms"}, "b": {"command": SLEEP}})
    everup.wait_for(lambda: len(everup.output("a.1")) == 2, "both have started")
    family = [everup.pid("a.1"), *(int(line.split()[1]) for line in everup.output("a.1"))]
    assert all(alive(pid) for pid in family)
    other = everup.pid("b.1")
    everup.cli("stop", "a")
    killing = everup.wait_event("instance.killing", "a.1")
    assert killing["reason"]
    has_group = bool(everup.groups())
    left = [pid for pid in (family if has_group else family[:2]) if alive(pid)]
    everup.wait_for(lambda: not [pid for pid in left if alive(pid)], "nobody is left")
    if not has_group and alive(family[2]):
        os.kill(family[2], signal.SIGKILL)
    stopping, stopped = (
        everup.events(kind, "a.1")[0]["mono"] for kind in ("instance.stopping", "instance.stopped")
    )
    assert stopped - stopping >= 0.3
    assert everup.pid("b.1") == other


def test_children_left_by_a_dead_main_process_are_swept(everup: Everup) -> None:
    """A crash leaves nobody behind who could hold its port or its files."""
    script = "sleep 1000 & echo $!; setsid sleep 1000 & echo $!; wait"
    everup.up({"a": {"command": sh(script), "restart": SOON}})
    everup.wait_for(lambda: len(everup.output("a.1")) == 2, "both have started")
    children = [int(line) for line in everup.output("a.1")]
    pid = everup.pid("a.1")
    os.kill(pid, signal.SIGKILL)
    everup.wait_new_pid("a.1", pid)
    expected = children if everup.groups() else children[:1]
    everup.wait_for(lambda: not any(alive(child) for child in expected), "the children are gone")
    if alive(children[1]):
        os.kill(children[1], signal.SIGKILL)


def test_operators_stop_holds(everup: Everup) -> None:
    """Over ``down`` and ``up``, until somebody starts it."""
    everup.up(
        {
            "a": {"command": SLEEP},
            "b": {"command": SLEEP},
            "c": {"command": SLEEP, "autostart": False},
        }
    )
    assert everup.state("c.1") == "stopped"
    result = everup.cli("stop", "a")
    assert "start a)" in result.out
    assert everup.state("a.1") == "stopped"
    everup.cli("start", "c")
    everup.down()
    result = everup.up()
    states = {slot: i["state"] for slot, i in everup.instances().items()}
    assert states == {"a.1": "stopped", "b.1": "ready", "c.1": "ready"}
    assert everup.cli("status").status == 0, "what is not wanted is not missing"
    wanted = everup.events("service.wanted", "a.1")
    assert [e["want"] for e in wanted] == [False]
    assert wanted[0]["by"] == f"uid {os.getuid()}"
    everup.cli("start", "a")
    assert everup.state("a.1") == "ready"


def test_crash_loop_is_parked_and_revived(everup: Everup) -> None:
    everup.tell("crash", "9")
    restart = SOON | {"intensity": {"limit": 3, "period": "10s"}, "park_interval": "300ms"}
    result = everup.up({"a": everup.server(restart=restart), "b": {"command": SLEEP}}, expect=4)
    assert "a.1 is" in result.err, "up does not take a moment between two crashes for success"
    parked = everup.wait_event("instance.parked", "a.1")
    assert parked["delay_s"] == 0.3
    assert "exit 9" in parked["reason"]
    assert "4 times" in parked["reason"]
    assert len(everup.events("instance.spawned", "a.1", 0)) >= 4
    # It is retried, slowly, and says so each time.
    everup.wait_event("instance.parked", "a.1", after=parked["seq"])
    everup.untell("crash")
    everup.cli("start", "a")
    assert everup.state("a.1") == "ready"
    first = [e["kind"] for e in everup.events(subject="a.1")]
    before_parking = first[: first.index("instance.parked")]
    assert before_parking.count("instance.spawned") == 4
    assert before_parking.count("instance.exited") == 4


@pytest.mark.parametrize("overlap", [True, False])
def test_restart_one_by_one(everup: Everup, overlap: bool) -> None:
    """Never more than one replica away (where they overlap: none), no client refused, the next one
    only after readiness."""
    port = everup.port()
    web = everup.server(
        listen=f"127.0.0.1:{port}", replicas=3, probe=READINESS, overlap=overlap
    )  # fmt: skip
    everup.up({"web": web})
    before = {slot: i["pid"] for slot, i in everup.instances().items()}
    seq = everup.last_seq()
    with Clients(port) as clients:
        everup.cli("restart", "web")
    after = {slot: i["pid"] for slot, i in everup.instances().items()}
    assert not set(before.values()) & set(after.values())
    steps = [
        (e["kind"].partition(".")[2], e["subject"])
        for e in everup.events(after=seq)
        if e["kind"] in ("instance.stopping", "instance.ready")
    ]
    turn = ("ready", "stopping") if overlap else ("stopping", "ready")
    assert steps == [(kind, f"web.{n}") for n in (1, 2, 3) for kind in turn]
    assert not clients.refused()
    assert not (overlap and clients.errors)
    exits = everup.events("instance.exited", after=seq)
    assert [e["cause"] for e in exits] == ["exit 0"] * 3

    # One that does not come to ready ends the restart: the others stay as they are.
    everup.tell("unready.1")
    seq = everup.last_seq()
    kept = everup.pid("web.2"), everup.pid("web.3")
    result = everup.cli("restart", "web", "--timeout", "1", expect=4)
    assert "not restarted within 1 s; everup goes on with it" in result.err
    assert "web.1 is running" in result.err
    assert (everup.pid("web.2"), everup.pid("web.3")) == kept
    assert bool(everup.service("web")["outgoing"]) == overlap
    everup.untell("unready.1")
    everup.wait_event("rollout.done", "web", seq)


def test_scale(everup: Everup) -> None:
    port = everup.port()
    everup.up({"web": everup.server(listen=f"127.0.0.1:{port}", replicas=1, probe=READINESS)})
    first = everup.pid("web.1")
    everup.cli("scale", "web", "3")
    pids = {everup.pid(f"web.{n}") for n in (1, 2, 3)}
    assert first in pids
    everup.wait_for(lambda: {get(port)["pid"] for _ in range(60)} == pids, "all three answer")
    with Clients(port) as clients:
        everup.cli("scale", "web", "1")
        everup.wait_for(lambda: set(everup.instances()) == {"web.1"}, "the others are gone")
    assert not clients.refused()
    assert everup.pid("web.1") == first
    assert [get(port)["pid"] for _ in range(10)] == [first] * 10
    everup.cli("scale", "web", "2")
    everup.down()
    everup.up()
    assert set(everup.instances()) == {"web.1", "web.2"}, "the number holds over a restart"
    everup.cli("scale", "web", "0")
    everup.wait_for(lambda: not everup.instances(), "none is left")
    result = everup.cli("scale", "web", "-1", expect=None)
    assert result.status in (1, 2)
    assert "Traceback" not in result.err
    result = everup.cli("scale", "wbe", "1", expect=1)
    assert "did you mean web?" in result.err


def test_signal(everup: Everup) -> None:
    everup.up({"a": everup.server(replicas=2)})
    pids = everup.pid("a.1"), everup.pid("a.2")
    everup.wait_for(lambda: everup.output("a.1"), "it has started")
    everup.cli("signal", "usr1", "a.1")
    everup.wait_for(lambda: "got USR1" in everup.output("a.1"), "the signal has arrived")
    assert "got USR1" not in everup.output("a.2")
    assert (everup.pid("a.1"), everup.pid("a.2")) == pids
    assert everup.events("instance.signalled", "a.1")[0]["signal"] == "SIGUSR1"
    assert "is no signal" in everup.cli("signal", "bogus", "a", expect=1).err
    assert everup.cli("signal", "usr1", expect=2).status == 2


def test_exit_policies(everup: Everup) -> None:
    policies = {
        "never_ok": ("never", 0), "never_bad": ("never", 3), "failure_ok": ("on-failure", 0),
        "failure_allowed": ("on-failure", 42), "failure_bad": ("on-failure", 3),
        "always_ok": ("always", 0),
    }  # fmt: skip
    services = {
        name: {
            "command": sh(f"exit {code}"),
            "restart": SOON | {"policy": policy, "success_exit": [0, 42]},
        }
        for name, (policy, code) in policies.items()
    }
    everup.up(services, expect=4)
    everup.wait_state("always_ok.1", "parked")
    everup.wait_state("failure_bad.1", "parked")
    found = everup.instances()
    states = {slot.removesuffix(".1"): i["state"] for slot, i in found.items()}
    assert states == {
        "never_ok": "stopped", "never_bad": "failed", "failure_ok": "stopped",
        "failure_allowed": "stopped", "failure_bad": "parked", "always_ok": "parked",
    }  # fmt: skip
    assert {slot.removesuffix(".1") for slot, i in found.items() if i["done"]} == {
        "never_ok", "failure_ok", "failure_allowed",
    }  # fmt: skip
    assert "exit 3" in found["never_bad.1"]["reason"]


@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [("one_for_one", "b"), ("rest_for_one", "bc"), ("one_for_all", "abc")],
)
def test_groups(everup: Everup, strategy: str, restarted: str) -> None:
    everup.up(
        {name: {"command": SLEEP, "restart": SOON} for name in "abcd"},
        groups={"g": {"services": ["a", "b", "c"], "strategy": strategy}},
    )
    before = {name: everup.pid(f"{name}.1") for name in "abcd"}
    os.kill(before["b"], signal.SIGKILL)
    for name in restarted:
        everup.wait_new_pid(f"{name}.1", before[name])
    after = {name: everup.pid(f"{name}.1") for name in "abcd"}
    assert {name for name in "abcd" if before[name] != after[name]} == set(restarted)
    if len(restarted) > 1:
        event = everup.events("group.restarting", "g")[0]
        assert event["crashed"] == "b.1"
        last_end = max(e["seq"] for e in everup.events("instance.exited"))
        fresh = [e["seq"] for e in everup.events("instance.spawned") if e["run"] == 2]
        assert last_end < min(fresh), "all are down before the first one starts again"


def test_hooks(everup: Everup) -> None:
    """They run in their order, with the service's environment; only pre_start can hold it up."""
    log = everup.directory / "hooks.log"

    def note(word: str, end: str = "") -> list[str]:
        return sh(f"echo {word} $EVERUP_INSTANCE $COLOUR >> {log}; {end}")

    hooks = {
        "pre_start": note("pre_start"), "post_start": note("post_start", "exit 5"),
        "pre_stop": note("pre_stop", "sleep 60"), "post_stop": note("post_stop"),
        "timeout": "500ms",
    }  # fmt: skip
    everup.up({"a": {"command": SLEEP, "hooks": hooks, "environment": {"COLOUR": "red"}}})
    everup.wait_event("hook.ended", "a.1", hook="post_start")
    everup.cli("stop", "a")
    words = [line.split() for line in log.read_text().splitlines()]
    assert words == [
        [w, "a.1", "red"] for w in ("pre_start", "post_start", "pre_stop", "post_stop")
    ]
    ended = {e["hook"]: (e["ok"], e["detail"]) for e in everup.events("hook.ended", "a.1")}
    assert ended["pre_start"] == (True, "exit 0")
    assert ended["post_start"] == (False, "exit 5")
    assert ended["pre_stop"][0] is False
    assert "timed out" in ended["pre_stop"][1]
    assert ended["post_stop"] == (True, "exit 0")
    everup.wait_for(lambda: not [c for c in everup.processes().values() if "sleep 60" in c], "gone")


def test_hooks_leave_no_descriptors(everup: Everup) -> None:
    """Neither in the keeper nor in the engine, however often they run."""
    many = SOON | {"max_delay": "1ms", "intensity": {"limit": 1000, "period": "10s"}}
    everup.up({"a": {"command": SLEEP, "restart": many, "hooks": {"post_start": ["true"]}}})

    def descriptors() -> int:
        pids = everup.keeper_pid, everup.engine_pid
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)

    def restart() -> None:
        pid = everup.pid("a.1")
        os.kill(pid, signal.SIGKILL)
        everup.wait_new_pid("a.1", pid)

    restart()
    before = descriptors()
    for _ in range(10):
        restart()
    everup.wait_for(lambda: descriptors() <= before + 4, f"about {before} descriptors again")


def test_pre_start_that_fails_is_a_failed_start(everup: Everup) -> None:
    hooks = {"pre_start": sh("test -e ok || exit 3"), "timeout": "5s"}
    everup.up({"a": {"command": SLEEP, "hooks": hooks, "restart": SOON}}, expect=4)
    parked = everup.instance("a.1")
    assert parked["state"] == "parked"
    assert parked["last_exit"] == "pre_start hook: exit 3"
    assert not everup.events("instance.spawned", "a.1")
    (everup.directory / "ok").touch()
    everup.cli("start", "a")
    assert everup.state("a.1") == "ready"
    # One that never ends is killed, and counts as failed too.
    everup.down()
    slow = {"pre_start": sh("sleep 60"), "timeout": "200ms"}
    policy = {"policy": "never"}
    everup.up({"a": {"command": SLEEP, "hooks": slow, "restart": policy}}, expect=4)
    assert "timed out" in everup.instance("a.1")["reason"]
    # A stop in the midst of it ends it at once.
    everup.down()
    endless = {"pre_start": sh("sleep 60"), "timeout": "1h"}
    everup.up({"a": {"command": SLEEP, "hooks": endless}}, arguments=("--timeout", "0"))
    everup.wait_state("a.1", "starting")
    everup.cli("stop", "a", "--timeout", "5")
    assert everup.state("a.1") == "stopped"


def test_environment_and_limits(everup: Everup) -> None:
    """What a process sees: its variables, files of them, umask, priority, limits, templates."""
    (everup.directory / "app.env").write_text("FROM_FILE='a b'\n# no\nBOTH=file\n")
    (everup.directory / "work").mkdir()
    show = sh("env; umask; nice; ulimit -n; ulimit -c; pwd; echo args $0; exec sleep 1000")
    port = everup.port()
    nice = min(os.getpriority(os.PRIO_PROCESS, 0) + 5, 19)  # less nice than we are takes rights
    everup.up(
        {
            "a": {
                "command": [*show, "{service}-{replica}-{port}-{{x}}"],
                "environment": {"BOTH": "table", "ME": "{service}.{replica}:{port}"},
                "environment_file": ["app.env", "-missing.env"],
                "directory": "work",
                "umask": "027",
                "nice": nice,
                "port": port,
                "limits": {"nofile": 77, "core": 0},
            }
        }
    )
    wanted = f"args a-1-{port}-{{x}}"
    everup.wait_for(lambda: wanted in everup.output("a.1"), "it has said all")
    lines = everup.output("a.1")
    said = dict(line.split("=", 1) for line in lines if "=" in line)
    assert said["FROM_FILE"] == "a b"
    assert said["BOTH"] == "table"
    assert said["ME"] == f"a.1:{port}"
    assert said["PORT"] == str(port)
    assert (said["EVERUP_SERVICE"], said["EVERUP_REPLICA"], said["EVERUP_INSTANCE"]) == (
        "a", "1", "a.1",
    )  # fmt: skip
    allowed = {
        "PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD",
        "SHLVL", "_", "FROM_FILE", "BOTH", "ME", "PORT",
    }  # fmt: skip
    assert not {name for name in said if not name.startswith("EVERUP_")} - allowed
    rest = lines[-6:]
    assert [rest[0][-3:], *rest[1:5]] == [
        "027", str(nice), "77", "0", str(everup.directory / "work"),
    ]  # fmt: skip
    # Nothing of everup's own leaks into a service.
    fds = {int(name) for name in os.listdir(f"/proc/{everup.pid('a.1')}/fd")}
    assert fds == {0, 1, 2}
    status = Path(f"/proc/{everup.pid('a.1')}/status").read_text()
    ignored = next(line for line in status.splitlines() if line.startswith("SigIgn"))
    blocked = next(line for line in status.splitlines() if line.startswith("SigBlk"))
    libc_s_own = 0b11 << 31  # 32 and 33: no program can set them through libc
    assert int(ignored.split()[1], 16) & ~libc_s_own == 0
    assert int(blocked.split()[1], 16) == 0


@needs_root
def test_user(open_everup: Everup) -> None:
    """Root's privileges are gone: user, groups, HOME; files of root cannot be read."""
    show = sh("id -u; id -g; id -G; echo $HOME $USER; cat /etc/shadow; exec sleep 1000")
    secret = open_everup.directory / "secret.env"
    secret.write_text("TOKEN=abc\n")
    secret.chmod(0o600)
    probe = {"exec": sh("test $(id -u) = 65534"), **FAST_PROBE}
    open_everup.up(
        {
            "a": {
                "command": show, "user": "nobody", "environment_file": "secret.env",
                "probe": {"readiness": probe},
                "hooks": {"pre_start": sh("id -u")},
            }
        }
    )  # fmt: skip
    import grp
    import pwd

    who = pwd.getpwnam("nobody")
    everup = open_everup
    everup.wait_for(lambda: everup.output("a.1", "stderr"), "it has said all")
    lines = everup.output("a.1", "stdout")
    groups = " ".join(map(str, os.getgrouplist("nobody", who.pw_gid)))
    assert lines == [
        str(who.pw_uid), str(who.pw_uid), str(who.pw_gid), groups, f"{who.pw_dir} nobody",
    ]  # fmt: skip
    assert grp.getgrgid(who.pw_gid)
    assert "denied" in everup.output("a.1", "stderr")[0]
    environ = Path(f"/proc/{everup.pid('a.1')}/environ").read_bytes()
    assert b"TOKEN=abc" in environ, "read by everup, before the privileges are dropped"
    assert everup.state("a.1") == "ready"


def test_standby_takes_over(everup: Everup) -> None:
    """Started and ready, but without connections until a replica is lost; what comes back after
    that is the standby."""
    port = everup.port()
    settings = {"listen": f"127.0.0.1:{port}", "replicas": 1, "standby": 1, "probe": READINESS}
    everup.up({"web": everup.server(**settings, restart=SOON)})
    # Who is ready first is active, and nothing moves without need.
    active = int(get(port)["replica"])
    standby = 3 - active
    first, second = everup.pid(f"web.{active}"), everup.pid(f"web.{standby}")
    assert {get(port)["pid"] for _ in range(20)} == {first}
    assert "ready (standby)" in everup.cli("status").out
    with Clients(port) as clients:
        os.kill(first, signal.SIGKILL)
        everup.wait_event("balance.changed", "web", replicas=[standby])
        fresh = everup.wait_new_pid(f"web.{active}", first)
        everup.wait_for(lambda: clients.answers.count(second) > 20, "the standby answers")
    assert not clients.refused()
    # Only what waited in the queue of the dead one, before the balance changed.
    assert clients.answers.count(fresh) <= 4
    instances = everup.instances()
    assert instances[f"web.{active}"]["standby"]
    assert instances[f"web.{standby}"]["in_balance"]
    assert {get(port)["pid"] for _ in range(20)} == {second}
    seq = everup.last_seq()
    os.kill(second, signal.SIGKILL)
    everup.wait_event("balance.changed", "web", seq, replicas=[active], before=[standby])
    # The event is the intent: one that comes at that moment may still wait for the dead one.
    everup.wait_for(lambda: get(port)["pid"] == fresh, "the new standby answers")
    assert {get(port)["pid"] for _ in range(20)} == {fresh}


def test_ipv6_unix_and_named_listeners(everup: Everup) -> None:
    """Probes reach the replica that they mean on each of them."""
    v4, v6 = everup.port(), everup.port(socket.AF_INET6)
    path = str(everup.directory / "web.sock")
    listen = {
        "http": f"127.0.0.1:{v4}",
        "six": f"[::1]:{v6}",
        "local": {"address": f"unix:{path}", "mode": "0600"},
    }
    probe = {"readiness": {"http": "/readyz", "listener": "six", **FAST_PROBE}}
    everup.up({"web": everup.server(listen=listen, replicas=2, probe=probe)})
    pids = {everup.pid("web.1"), everup.pid("web.2")}
    for host, port, name in (("127.0.0.1", v4, "http"), ("::1", v6, "six")):
        answers = [get(port, host=host) for _ in range(40)]
        assert {a["pid"] for a in answers} == pids
        assert {a["listener"] for a in answers} == {name}
    from _everup import UnixConnection

    client = UnixConnection(path)
    client.request("GET", "/")
    assert b'"listener": "local"' in client.getresponse().read()
    client.close()
    assert os.stat(path).st_mode & 0o777 == 0o600
    everup.tell("unready.1")
    everup.wait_state("web.1", "running")
    assert everup.state("web.2") == "ready"
    assert {get(v6, host="::1")["replica"] for _ in range(20)} == {"2"}
    assert {get(v4)["replica"] for _ in range(20)} == {"2"}
    pid = everup.pid("web.2")
    os.kill(pid, signal.SIGKILL)
    everup.wait_new_pid("web.2", pid)
    everup.untell("unready.1")
    everup.down()
    assert not os.path.exists(path)
    everup.up()
    assert os.path.exists(path)


def test_service_that_binds_its_own_port(everup: Everup) -> None:
    """``port``: each replica gets one of its own, and its probe asks there."""
    while True:
        port = everup.port()
        with socket.socket() as sock, socket.socket() as mine:
            mine.bind(("127.0.0.1", port))
            try:
                sock.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
        break
    everup.up({"web": everup.server(port=port, replicas=2, probe=READINESS, restart=SOON)})
    assert get(port)["pid"] == everup.pid("web.1")
    assert get(port + 1)["pid"] == everup.pid("web.2")
    assert get(port)["listener"] == "port"
    everup.tell("unready.2")
    everup.wait_state("web.2", "running")
    assert everup.state("web.1") == "ready"
    pid = everup.pid("web.1")
    os.kill(pid, signal.SIGKILL)
    assert (
        get(port)["pid"] == everup.wait_new_pid("web.1", pid)
        if everup.wait_new_pid("web.1", pid)
        else 0
    )


def test_tcp_and_startup_probes(everup: Everup) -> None:
    """A startup probe holds the others back; a tcp probe needs an accepted connection alone."""
    port = everup.port()
    startup = {"exec": sh("test -e started"), **FAST_PROBE, "failure_threshold": 1000}
    probe = {"startup": startup, "liveness": {"tcp": "listen", **FAST_PROBE}}
    everup.tell("unhealthy")
    everup.up(
        {"web": everup.server(listen=f"127.0.0.1:{port}", probe=probe)},
        arguments=("--timeout", "0"),
    )
    everup.wait_for(
        lambda: everup.instance("web.1")["probes"].get("startup", {}).get("failures", 0) >= 3,
        "the startup probe has failed a few times",
    )
    assert everup.state("web.1") == "starting"
    (everup.directory / "started").touch()
    everup.wait_state("web.1", "ready")
    everup.wait_for(lambda: everup.instance("web.1")["probes"].get("liveness"), "liveness runs")
    assert everup.instance("web.1")["probes"]["liveness"]["ok"]


def test_start_timeout(everup: Everup) -> None:
    startup = {"exec": ["false"], **FAST_PROBE, "failure_threshold": 1000}
    everup.up(
        {
            "a": {
                "command": SLEEP, "probe": {"startup": startup}, "start_timeout": "300ms",
                "restart": {"policy": "never"},
            }
        },
        expect=4,
    )  # fmt: skip
    assert "not started within 0.3 s" in everup.instance("a.1")["reason"]
    assert everup.state("a.1") == "failed"


def test_drain(everup: Everup) -> None:
    """On stop, open connections may end first; new ones go to the other replica."""
    port = everup.port()
    web = everup.server(
        listen=f"127.0.0.1:{port}", replicas=2, probe=READINESS, drain_timeout="10s"
    )
    everup.up({"web": web})
    answers: list[object] = []

    def slow() -> None:
        try:
            answers.append(get(port, "/slow")["replica"])
        except (OSError, http.client.HTTPException) as error:
            answers.append(error)

    threads = [threading.Thread(target=slow) for _ in range(8)]
    for thread in threads:
        thread.start()
    everup.wait_for(
        lambda: any(c > 0 for c in open_connections(everup, port).values()), "they are connected"
    )
    everup.cli("stop", "web.1")
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(answers) == 8
    assert not [a for a in answers if isinstance(a, Exception)], answers
    kinds = everup.kinds("web.1")
    if "1" in answers:
        told = [kind for kind in kinds if kind != "signalled"]
        assert told[-4:] == ["draining", "stopping", "exited", "stopped"]
    assert get(port)["replica"] == "2"
    draining = everup.wait_event("instance.draining", "web.1")
    stopping = everup.wait_event("instance.stopping", "web.1")
    assert stopping["reason"] == "drained"
    assert stopping["mono"] - draining["mono"] < 8, "it does not wait longer than it must"


def open_connections(everup: Everup, port: int) -> dict[int, int]:
    import psutil

    return {
        pid: sum(
            c.status == psutil.CONN_ESTABLISHED and c.laddr.port == port
            for c in psutil.Process(pid).net_connections("tcp")
        )
        for pid in (everup.pid("web.1"), everup.pid("web.2"))
    }


def test_limit_of_memory(everup: Everup) -> None:
    """The kernel kills for memory: everup says so, where control groups can do it."""
    eat = python(
        "import time\nprint('eating', flush=True)\nx = bytearray(300 << 20)\ntime.sleep(1000)"
    )
    everup.up(
        {
            "a": {"command": eat, "limits": {"memory": "64M"}, "restart": {"policy": "never"}},
            "b": {"command": SLEEP},
        },
        expect=None,
    )
    pid = everup.pid("b.1")
    if everup.events("facility.missing", "a"):
        pytest.skip("no control group with a memory controller here")
    assert everup.wait_state("a.1", "failed")["last_exit"] == "out of memory"
    assert everup.pid("b.1") == pid


@pytest.mark.skipif(not os.access("/usr/sbin/nginx", os.X_OK), reason="needs nginx")
def test_foreign_program(everup: Everup) -> None:
    """nginx with a port of its own, probes, SIGQUIT as its stop signal, workers and all."""
    port = everup.port()
    config = everup.directory / "nginx.conf"
    config.write_text(
        f"daemon off; pid {everup.directory}/nginx.pid; error_log stderr; worker_processes 2;\n"
        "events {}\nhttp { access_log off;\n"
        + "".join(
            f"{kind}_temp_path {everup.directory}/{kind};\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f"server {{ listen 127.0.0.1:{port}; location / {{ return 200 ok; }} }} }}\n"
    )
    everup.up(
        {
            "nginx": {
                "command": ["/usr/sbin/nginx", "-c", str(config), "-p", str(everup.directory)],
                "port": port, "stop_signal": "SIGQUIT", "restart": SOON,
                "probe": {"liveness": {"http": "/", **FAST_PROBE}},
            }
        }
    )  # fmt: skip
    everup.wait_for(lambda: everup.instance("nginx.1")["probes"].get("liveness"), "probed")
    assert everup.instance("nginx.1")["probes"]["liveness"]["ok"]
    pid = everup.pid("nginx.1")
    os.kill(pid, signal.SIGKILL)  # its workers go on serving the port, were they not swept
    everup.wait_new_pid("nginx.1", pid)
    seq = everup.last_seq()
    everup.cli("stop", "nginx")
    exited = everup.events("instance.exited", "nginx.1", seq)
    assert [e["cause"] for e in exited] == ["exit 0"]


def test_output_of_the_last_moment_is_kept(everup: Everup) -> None:
    """What a process said just before it died is in its log."""
    script = sh("i=0; while [ $i -lt 500 ]; do echo line $i; i=$((i+1)); done; kill -9 $$")
    everup.up({"a": {"command": script, "restart": {"policy": "never"}}}, expect=4)
    everup.wait_for(lambda: "line 499" in everup.output("a.1"), "the last line is stored")
    assert everup.output("a.1") == [f"line {n}" for n in range(500)]


def test_foreground(everup: Everup) -> None:
    """``up`` without -d says what happens; SIGINT stops everything in order; a second one at
    once."""
    everup.write({"a": {"command": SLEEP}, "b": {"command": SLEEP, "depends_on": ["a"]}})
    running = everup.popen("up")
    everup.wait_for(lambda: everup.place and os.path.exists(everup.place.api_socket), "API")
    everup.wait_state("b.1", "ready")
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 0
    text = out.decode()
    assert "a.1: ready" in text
    assert "all services are down" in text
    assert text.index("b.1: stopped") < text.index("a.1: stopped")

    (everup.control / "stubborn").touch()
    everup.write({"a": everup.server(stop_timeout="1h")})
    running = everup.popen("up", stdout=subprocess.PIPE)
    everup.wait_for(lambda: os.path.exists(everup.place.api_socket), "API")
    everup.wait_state("a.1", "ready")
    everup.wait_for(lambda: everup.output("a.1"), "it has its handler")
    running.send_signal(signal.SIGTERM)
    everup.wait_state("a.1", "stopping")
    running.send_signal(signal.SIGTERM)
    out, _ = running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 0
    assert "killing what is left" in out.decode()
