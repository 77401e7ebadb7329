"""kill -9 of everup's own processes, of any combination, at moments of many kinds.

What is to hold each time: the same processes go on, none is there twice, the sockets answer, no
line of output is lost or doubled, and everup can do all that it could before.
"""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _everup import (
    DEADLINE_S,
    FAST_PROBE,
    SLEEP,
    Everup,
    Json,
    UnixConnection,
    alive,
    get,
    parent_of,
    python,
    sh,
    state_of,
    stop,
)
from kill_loop import Loop

SOON = {"jitter": "none", "delay": "10ms", "max_delay": "100ms", "park_interval": "1h"}
READINESS = {"readiness": {"http": "/readyz", **FAST_PROBE}}
COUNT = "import time\nfor n in range(10**9):\n print(n, flush=True); time.sleep(0.002)"
WHO = ("engine", "keeper", "both")


# -- killing


def kill(everup: Everup, who: str) -> None:
    """kill -9; where nobody of everup is left, ``up`` again. Returns once the next one answers."""
    own, victims = everup.own(), pids_of(everup, who)
    assert all(victims), own
    everup.kill(*victims)
    if who in ("both", "all"):
        everup.wait_for(lambda: not everup.own(), "nobody of everup is left")
        everup.up(arguments=("--timeout", "0"))
    everup.wait_for(
        lambda: (
            (now := everup.own()).keeper and now.engine not in (0, own.engine)
            if who != "zygote"
            else everup.own().keeper
        ),
        "everup has its processes again",
    )
    everup.status()


def pids_of(everup: Everup, who: str) -> list[int]:
    own = everup.own()
    match who:
        case "engine":
            return [own.engine]
        case "keeper":
            return [own.keeper]
        case "zygote":
            return [own.zygote]
        case "both":
            return [own.keeper, own.engine]
        case _:  # where nothing was to be born since the last zygote died, there is none
            return [own.keeper, own.engine, *filter(None, [own.zygote])]


# -- looking


def identities(everup: Everup) -> dict[str, tuple[Any, ...]]:
    return {
        slot: (i["pid"], i["run"], i["restarts"], i["state"])
        for slot, i in everup.instances().items()
    }


def one_each(everup: Everup) -> None:
    """Every instance has exactly the process that everup says, and nobody else has its mark."""
    instances = everup.instances()

    def settled() -> bool:
        instances.update(everup.instances())
        living = {slot: [(i["run"], i["pid"])] for slot, i in instances.items() if i["pid"]}
        return everup.members() == living

    with contextlib.suppress(BaseException):
        everup.wait_for(settled, "one process for each instance", 5.0)
        return
    pytest.fail(f"{everup.members()} is not {instances}\n{everup.report()}")


def more(everup: Everup, slot: str) -> None:
    """More output comes."""
    at = len(everup.output(slot))
    everup.wait_for(lambda: len(everup.output(slot)) > at + 5, "output goes on")


def whole(everup: Everup, slot: str = "count.1") -> None:
    """No line lost, none doubled, and more to come."""
    more(everup, slot)
    lines = everup.output(slot, "stdout")
    assert lines == [str(n) for n in range(len(lines))]


def ended_and_back(everup: Everup, slot: str) -> None:
    """Its end is seen at once and as what it was, and it starts again."""
    pid, after = everup.pid(slot), everup.last_seq()
    os.kill(pid, signal.SIGKILL)
    event = everup.wait_event("instance.exited", slot, after)
    assert event["cause"] == "SIGKILL"
    everup.wait_new_pid(slot, pid)


def shop(everup: Everup, port: int) -> dict[str, Json]:
    return {
        "web": everup.server(
            listen=f"127.0.0.1:{port}", replicas=2, probe=READINESS, restart=SOON,
            drain_timeout="2s",
        ),
        "count": {"command": python(COUNT), "restart": SOON},
        "idle": {"command": SLEEP, "restart": SOON, "limits": {"nofile": 64}},
    }  # fmt: skip


def everything_works(everup: Everup, port: int) -> None:
    """What an operator does, and what everup does by itself."""
    ended_and_back(everup, "web.1")
    ended_and_back(everup, "idle.1")
    before = {slot: everup.pid(slot) for slot in ("web.1", "web.2")}
    everup.cli("restart", "web")
    for slot, pid in before.items():
        assert everup.pid(slot) != pid
        assert not alive(pid)
    everup.cli("stop", "idle")
    assert everup.state("idle.1") == "stopped"
    everup.cli("start", "idle")
    everup.cli("scale", "web", "3")
    assert {get(port)["replica"] for _ in range(60)} == {"1", "2", "3"}
    everup.cli("scale", "web", "2")
    assert "serving as" in everup.cli("logs", "web.1").out
    everup.wait_for(lambda: set(everup.instances()) == {"web.1", "web.2", "idle.1", "count.1"}, "2")
    one_each(everup)


class Clients:
    """One client that asks again and again, each time on a new connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: list[int] = []
        self.errors: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Clients":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(DEADLINE_S)

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                self.answers.append(get(self.port)["pid"])
            except (OSError, http.client.HTTPException, AssertionError) as error:
                self.errors.append(repr(error))
            time.sleep(0.005)


# -- one after the other


@pytest.mark.parametrize("whom", ["keeper keeper engine", "both keeper", "all zygote engine"])
def test_killed(everup: Everup, whom: str) -> None:
    port = everup.port()
    everup.up(shop(everup, port))
    before = identities(everup)
    for who in whom.split():
        kill(everup, who)
        assert get(port)["pid"] in (before["web.1"][0], before["web.2"][0])
        everup.wait_for(lambda: identities(everup) == before, "all are as they were")
        one_each(everup)
        whole(everup)
    everything_works(everup, port)
    whole(everup)
    assert not everup.events("instance.leftover")
    assert not everup.events("instance.lost")
    assert not everup.events("facility.missing")
    everup.down()
    everup.wait_for(lambda: not everup.processes(), "nothing is left, the zygote neither")
    assert not everup.groups()


def test_without_control_groups(everup: Everup) -> None:
    """The session of each instance has to do."""
    everup.without_groups()
    port = everup.port()
    family = sh("sleep 1001 & sleep 1002 & echo up; wait")
    everup.up(shop(everup, port) | {"family": {"command": family, "restart": SOON}})
    before = identities(everup)
    for who in ("keeper", "both"):
        kill(everup, who)
        everup.wait_for(lambda: identities(everup) == before, "all are as they were")
        assert not everup.groups()

    def sleepers() -> list[int]:
        return [pid for pid, command in everup.processes().items() if "sleep 100" in command]

    old = [pid for pid, command in everup.processes().items() if command.startswith("sleep 100")]
    assert len([pid for pid in old if parent_of(pid) == before["family.1"][0]]) == 2
    ended_and_back(everup, "family.1")
    everup.wait_for(lambda: not [p for p in old if alive(p) and p != before["idle.1"][0]], "swept")
    everything_works_quickly(everup, port)
    whole(everup)


# -- both at once, and what happens until the next one comes


@pytest.fixture
def both_dead(everup: Everup) -> Iterator[Everup]:
    """Whatever a test does to what is left, it does not outlive it."""
    try:
        yield everup
    finally:
        if not everup.own():
            everup.up(expect=None, arguments=("--timeout", "0"))


def ask(port: int) -> socket.socket:
    """A client that has sent its request and waits."""
    client = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    return client


def answer_of(client: socket.socket) -> str:
    with client:
        data = b""
        while part := client.recv(4096):
            data += part
    assert data.startswith(b"HTTP/1.1 200"), data
    return data.partition(b"\r\n\r\n")[2].decode()


def test_clients_that_queue_while_nobody_is_there(both_dead: Everup) -> None:
    """They are answered by the process on whose socket they wait, and by the one that comes after
    it if it dies once its socket is taken back."""
    everup, port = both_dead, both_dead.port()
    everup.up({"web": everup.server(listen=f"127.0.0.1:{port}", restart=SOON)})
    web = everup.pid("web.1")
    stop(web)
    everup.kill(*pids_of(everup, "both"))
    clients = [ask(port) for _ in range(5)]
    everup.up()
    assert everup.pid("web.1") == web
    clients += [ask(port) for _ in range(5)]
    os.kill(web, signal.SIGCONT)
    assert {answer_of(client) for client in clients} == {get_text(web)}

    stop(web)
    clients = [ask(port) for _ in range(5)]
    os.kill(web, signal.SIGKILL)
    fresh = everup.wait_new_pid("web.1", web)
    assert {answer_of(client) for client in clients} == {get_text(fresh)}


def get_text(pid: int) -> str:
    return f'{{"pid": {pid}, "replica": "1", "listener": "main"}}'


def test_one_of_two_dies_while_nobody_is_there(both_dead: Everup) -> None:
    """The other one serves all; the dead one is told of as what it is, and comes back."""
    everup, port = both_dead, both_dead.port()
    everup.up(shop(everup, port))
    before = identities(everup)
    everup.kill(*pids_of(everup, "both"))
    everup.kill(before["web.1"][0], before["idle.1"][0])
    everup.wait_for(lambda: not everup.own(), "nobody of everup is left")
    for _ in range(20):
        assert get(port)["pid"] == before["web.2"][0]
    result = everup.up()
    assert "2 instances of an earlier everup go on running" in result.out
    after = identities(everup)
    for slot in ("web.2", "count.1"):
        assert after[slot] == before[slot]
    for slot in ("web.1", "idle.1"):
        everup.wait_event("instance.lost", slot, run=1)
        assert after[slot][1] == 2
    everup.wait_for(lambda: {get(port)["replica"] for _ in range(20)} == {"1", "2"}, "both serve")
    one_each(everup)
    everything_works_quickly(everup, port)
    whole(everup)


def everything_works_quickly(everup: Everup, port: int) -> None:
    before = everup.pid("web.1")
    everup.cli("restart", "web")
    assert everup.pid("web.1") != before
    ended_and_back(everup, "web.2")
    assert get(port)["pid"]
    one_each(everup)


def test_output_of_the_time_without_anybody(both_dead: Everup) -> None:
    """It waits in the pipes, which the next ``up`` takes back; who fills his waits."""
    everup = both_dead
    fast = "for n in range(10**9):\n print(n, 'x' * 50, flush=True)"
    ends = "import time, os\nprint('begun', flush=True)\n"
    ends += "while not os.path.exists('control/end'): time.sleep(0.01)\n"
    ends += "print('last words', flush=True)"
    log = {"max_size": "16M", "files": 100}
    everup.up({
        "fast": {"command": python(fast), "log": log},
        "ends": {"command": python(ends), "restart": {"policy": "never"}},
    })  # fmt: skip
    fast_pid, ends_pid = everup.pid("fast.1"), everup.pid("ends.1")
    everup.wait_for(lambda: everup.output("ends.1"), "it has begun")
    everup.kill(*pids_of(everup, "both"))
    everup.wait_for(lambda: waits_to_write(fast_pid), "it has filled its pipe")
    everup.tell("end")
    everup.wait_for(lambda: not alive(ends_pid), "it has ended")
    everup.up(expect=None)
    assert everup.pid("fast.1") == fast_pid
    more(everup, "fast.1")
    everup.cli("stop", "fast")
    lines = [line.split()[0] for line in everup.output("fast.1", "stdout")]
    assert lines == [str(n) for n in range(len(lines))]
    # What is written by somebody who dies when nobody has the pipe is lost with the pipe.
    assert everup.output("ends.1")[0] == "begun"
    everup.wait_event("instance.lost", "ends.1")


def waits_to_write(pid: int) -> bool:
    """It wants to write without end, and does nothing."""
    before = cpu_of(pid)
    time.sleep(0.05)
    return state_of(pid) == "S" and cpu_of(pid) == before


def cpu_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


# -- in the middle of something


@pytest.mark.parametrize("who", WHO)
def test_killed_during_starts_stops_and_hooks(both_dead: Everup, who: str) -> None:
    """What had begun is finished; a hook that was under way is ended, and run again where the
    process waits for it."""
    everup = both_dead
    hold = "while test -e control/hold; do sleep 0.01; done"
    everup.tell("hold")
    everup.tell("stubborn")
    held = {"exec": sh("test ! -e control/hold"), **FAST_PROBE, "failure_threshold": 1000}
    say = "echo $EVERUP_INSTANCE $EVERUP_RUN"
    everup.up(
        {
            "hooked": {
                "command": SLEEP,
                "hooks": {"pre_start": sh(f"{say} pre >> hooks; {hold}"),
                          "post_start": sh(f"{say} post >> hooks")},
            },
            "after": {"command": SLEEP, "hooks": {"post_stop": sh(f"{say} end >> hooks; {hold}")}},
            "slow": {"command": SLEEP, "probe": {"startup": held}},
            "waits": {"command": SLEEP, "depends_on": ["slow"]},
            "stops": everup.server(stop_timeout="1500ms"),
            "off": {"command": SLEEP},
            "steady": {"command": SLEEP},
        },
        arguments=("--timeout", "0"),
    )  # fmt: skip
    for slot in ("after.1", "stops.1", "off.1", "steady.1"):
        everup.wait_state(slot, "ready")
    everup.wait_state("slow.1", "starting")
    everup.wait_for(lambda: everup.output("stops.1"), "it has its handler")
    before = {slot: everup.pid(slot) for slot in ("slow.1", "stops.1", "steady.1")}
    everup.cli("stop", "off")
    everup.cli("stop", "stops", "after", "--timeout", "0")
    hooks = everup.directory / "hooks"
    everup.wait_for(lambda: "after.1 1 end" in hooks.read_text(), "post_stop runs")
    assert "hooked.1 1 pre" in hooks.read_text()
    kill(everup, who)
    everup.untell("hold")
    for slot in ("hooked.1", "slow.1", "waits.1", "steady.1"):
        everup.wait_state(slot, "ready")
    for slot in ("stops.1", "off.1", "after.1"):
        everup.wait_state(slot, "stopped")
    assert not alive(before["stops.1"])
    for slot in ("slow.1", "steady.1"):
        assert everup.pid(slot) == before[slot]
    everup.wait_for(lambda: "post" in hooks.read_text(), "post_start has run")
    assert len(everup.events("instance.spawned", "hooked.1")) == 1
    one_each(everup)


@pytest.mark.parametrize(
    ("what", "who"), [*(("restart", who) for who in WHO), ("reload", "keeper"), ("reload", "both")]
)
def test_killed_during_a_rollout(both_dead: Everup, what: str, who: str) -> None:
    """The successor of one is on its way to ready while the old one serves: the rollout goes on,
    and not a request is lost."""
    everup, port = both_dead, both_dead.port()
    startup = {"exec": sh("test ! -e control/hold"), **FAST_PROBE, "failure_threshold": 1000}
    web = everup.server(
        listen=f"127.0.0.1:{port}", replicas=2, probe=READINESS | {"startup": startup},
        drain_timeout="5s", restart=SOON, environment={"VERSION": "1"},
    )  # fmt: skip
    services: dict[str, Json] = {"web": web, "count": {"command": python(COUNT)}}
    everup.up(services)
    before = identities(everup)
    with Clients(port) as clients:
        everup.tell("hold")
        if what == "reload":
            everup.write(services | {"web": web | {"environment": {"VERSION": "2"}}})
        everup.cli(what, *(["web"] if what == "restart" else []), "--timeout", "0")
        everup.wait_for(lambda: len(everup.members().get("web.1", ())) == 2, "both run")
        kill(everup, who)
        # A probe, which leads a session of its own too, may be among them for a moment.
        everup.wait_for(
            lambda: [run for run, _ in everup.members()["web.1"]] == [1, 2], "the two, once each"
        )
        assert get(port)["pid"] in (before["web.1"][0], before["web.2"][0])
        everup.untell("hold")
        everup.wait_event("rollout.done", "web")
        everup.wait_for(lambda: len(everup.members()["web.2"]) == 1, "the old ones have gone")
        for slot in ("web.1", "web.2"):
            everup.wait_state(slot, "ready")
        asked = len(clients.answers)
        everup.wait_for(lambda: len(clients.answers) > asked + 20, "clients are served")
    assert clients.errors == []
    after = identities(everup)
    assert [after[slot][1] for slot in ("web.1", "web.2")] == [2, 2]
    assert after["count.1"] == before["count.1"]
    assert {get(port)["pid"] for _ in range(40)} == {after["web.1"][0], after["web.2"][0]}
    if what == "reload":
        everup.wait_event("config.reloaded")
        environ = Path(f"/proc/{after['web.1'][0]}/environ").read_text()
        assert "VERSION=2" in environ.split("\0")
    one_each(everup)
    whole(everup)


def test_killed_while_a_broken_rollout_is_undone(both_dead: Everup) -> None:
    """The successor never comes to ready: with both killed meanwhile, the old one still stays."""
    everup, port = both_dead, both_dead.port()
    startup = {"exec": sh("test ! -e control/broken"), **FAST_PROBE, "failure_threshold": 1000}
    everup.up({
        "web": everup.server(
            listen=f"127.0.0.1:{port}", probe={"startup": startup}, start_timeout="2s",
            drain_timeout="2s",
        )
    })  # fmt: skip
    web = everup.pid("web.1")
    everup.tell("broken")
    with Clients(port) as clients:
        everup.cli("restart", "web", "--timeout", "0")
        everup.wait_for(lambda: len(everup.members().get("web.1", ())) == 2, "both run")
        kill(everup, "both")
        everup.wait_event("rollout.stopped", "web")
        everup.wait_for(lambda: [p for _, p in everup.members()["web.1"]] == [web], "undone")
        asked = len(clients.answers)
        everup.wait_for(lambda: len(clients.answers) > asked + 20, "clients are served")
    assert clients.errors == []
    assert set(clients.answers) == {web}
    assert everup.pid("web.1") == web
    everup.wait_state("web.1", "ready")
    one_each(everup)


# -- moments in which somebody is just being born


@pytest.mark.parametrize("moment", ["before it reads", "as it takes over"])
def test_keeper_killed_while_the_engine_starts(both_dead: Everup, moment: str) -> None:
    """The keeper of an engine that has just been killed goes as soon as the next one is there,
    which is stopped before it has read, or while it takes over, what the keeper had to tell."""
    everup, port = both_dead, both_dead.port()
    everup.up(shop(everup, port))
    before = identities(everup)
    own, after = everup.own(), everup.last_seq()
    everup.kill(own.engine)

    def next_one() -> int:
        return next((pid for pid in everup.own().engines if pid != own.engine), 0)

    fresh = everup.wait_for(next_one, "another engine")
    if moment == "as it takes over":
        everup.wait_for(lambda: everup.events("engine.started", after=after), "it begins")
    stop(fresh)
    everup.kill(own.keeper)
    os.kill(fresh, signal.SIGCONT)
    everup.wait_for(lambda: everup.own().keeper not in (0, own.keeper), "another keeper")
    everup.wait_for(lambda: everup.own().engine not in (0, fresh), "another engine")
    everup.wait_for(lambda: identities(everup) == before, "all are as they were")
    one_each(everup)
    ended_and_back(everup, "web.1")
    whole(everup)


def test_everybody_killed_as_soon_as_they_come(both_dead: Everup) -> None:
    """Keepers and engines are killed as fast as they come, whatever each was about to do."""
    everup, port = both_dead, both_dead.port()
    everup.up(shop(everup, port))
    before = identities(everup)
    victims = 0
    until = time.monotonic() + DEADLINE_S
    while victims < 15 and time.monotonic() < until:
        own = everup.own()
        for pid in (own.keepers + own.engines)[: 1 + victims % 3]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            victims += 1
        if not own:
            assert get(port)["pid"] in (before["web.1"][0], before["web.2"][0])
            everup.up(expect=None, arguments=("--timeout", "0"))
    everup.wait_for(lambda: up_again(everup), "everup has both processes again")
    everup.wait_for(lambda: identities(everup) == before, "all are as they were")
    one_each(everup)
    ended_and_back(everup, "web.1")
    whole(everup)


def test_a_command_that_comes_as_the_engine_leaves(both_dead: Everup) -> None:
    """Its keeper is gone, and it is about to go: what it is asked in these last moments is carried
    out by the next one, whole, or refused."""
    everup = both_dead
    hook = {"pre_stop": sh("echo $EVERUP_INSTANCE >> hooks")}
    everup.up({name: {"command": SLEEP, "hooks": hook} for name in ("a", "b")})
    own, after = everup.own(), everup.last_seq()
    stop(own.engine)
    clients = []
    for name in ("a", "b"):
        client = UnixConnection(everup.place.api_socket)
        body = json.dumps({"targets": [name]})
        client.request("POST", "/v1/stop", body, {"Content-Type": "application/json"})
        clients.append(client)
    everup.kill(own.keeper)
    os.kill(own.engine, signal.SIGCONT)
    done = set()
    for name, client in zip(("a", "b"), clients, strict=True):
        with contextlib.suppress(OSError, http.client.HTTPException):
            if client.getresponse().status == 200:
                done.add(f"{name}.1")
        client.close()
    everup.wait_for(lambda: everup.own().engine not in (0, own.engine), "another engine")
    for slot in ("a.1", "b.1"):
        everup.wait_state(slot, *(["stopped"] if slot in done else ["stopped", "ready"]))
    hooks = everup.directory / "hooks"
    stopped = {slot for slot, i in everup.instances().items() if i["state"] == "stopped"}
    ran = set(hooks.read_text().split()) if hooks.exists() else set()
    assert ran == stopped, everup.report()
    assert all(e["ok"] for e in everup.events("hook.ended", after=after))


@pytest.mark.parametrize("who", ["keeper", "both"])
def test_born_for_an_engine_that_did_not_hear_of_it(both_dead: Everup, who: str) -> None:
    """The engine is killed between its wish and the keeper's answer. The next one takes over what
    was born meanwhile, and whoever comes after that one does as well."""
    everup = both_dead
    everup.up({"idle": {"command": SLEEP}, "count": {"command": python(COUNT)}})
    everup.cli("stop", "idle", "count")
    own, after = everup.own(), everup.last_seq()
    stop(own.keeper)
    everup.request("POST", "/v1/start", {"targets": ["idle", "count"]})
    everup.wait_event("instance.starting", "count.1", after)
    everup.kill(own.engine)
    os.kill(own.keeper, signal.SIGCONT)
    everup.wait_for(lambda: everup.own().engine not in (0, own.engine), "another engine")
    for slot in ("idle.1", "count.1"):
        everup.wait_state(slot, "ready")
    before = identities(everup)
    more(everup, "count.1")
    for _ in range(2):
        kill(everup, who)
        everup.wait_for(lambda: identities(everup) == before, "all are as they were")
    assert not everup.events("instance.leftover")
    told = everup.events("instance.spawned", "count.1")[-1]
    assert told["start"] > 0
    assert told["leader"] == told["pid"] == before["count.1"][0]
    assert len(told["pipes"]) == 2
    one_each(everup)
    more(everup, "count.1")


def up_again(everup: Everup) -> bool:
    own = everup.own()
    if not own:
        everup.up(expect=None, arguments=("--timeout", "0"))
    return bool(own.keeper and own.engine)


# -- what the journal says and what is so


@pytest.mark.parametrize("stale", ["pid used again", "another boot"])
def test_a_journal_that_tells_of_somebody_else(both_dead: Everup, stale: str) -> None:
    """A process whose pid the journal names is neither taken over nor signalled unless its start
    time and the boot of the machine agree."""
    everup = both_dead
    everup.up({"idle": {"command": SLEEP, "stop_timeout": "1s"}, "other": {"command": SLEEP}})
    idle, other = everup.pid("idle.1"), everup.pid("other.1")
    everup.kill(*pids_of(everup, "both"))
    everup.kill(idle)
    if stale == "another boot":
        everup.kill(other)
    with subprocess.Popen(SLEEP, start_new_session=True) as foreign:
        try:
            start = int(
                Path(f"/proc/{foreign.pid}/stat").read_text().rpartition(")")[2].split()[19]
            )
            facts = {"pid": foreign.pid, "leader": foreign.pid}
            facts["start"] = start - 1 if stale == "pid used again" else start
            forge(everup, "idle.1", facts, other_boot=stale == "another boot")
            everup.up()
            assert everup.pid("idle.1") not in (foreign.pid, idle)
            adopted = {e["subject"]: e["pid"] for e in everup.events("instance.adopted")}
            assert adopted == ({"other.1": other} if stale == "pid used again" else {})
            one_each(everup)
            everup.cli("restart", "idle")
            everup.down()
            assert foreign.poll() is None
        finally:
            foreign.kill()


def forge(everup: Everup, slot: str, facts: Json, *, other_boot: bool) -> None:
    """Make the journal tell of another process than the one that was spawned."""
    database = sqlite3.connect(everup.place.journal, isolation_level=None)
    with contextlib.closing(database):
        rows = database.execute(
            "SELECT seq, payload FROM event WHERE kind = 'instance.spawned' AND subject = ?",
            (slot,),
        ).fetchall()
        assert rows
        for seq, payload in rows:
            changed = json.dumps(json.loads(payload) | facts)
            database.execute("UPDATE event SET payload = ? WHERE seq = ?", (changed, seq))
        if other_boot:
            database.execute("UPDATE event SET boot = ?", (str(uuid.uuid4()),))


def test_output_that_went_elsewhere(both_dead: Everup) -> None:
    """Instances that have closed their output, or turned it into a file, are taken over as well,
    and their ends are seen."""
    everup = both_dead
    everup.up({
        "closed": {"command": sh("echo up; exec >&- 2>&-; exec sleep 1000"), "restart": SOON},
        "file": {"command": sh("echo up; exec >output 2>&1; exec sleep 1000"), "restart": SOON},
        "half": {"command": sh("exec >&-; while :; do echo e >&2; sleep 0.01; done")},
    })  # fmt: skip
    everup.wait_for(lambda: everup.output("closed.1") == ["up"], "its only line")
    everup.wait_for(lambda: everup.output("file.1") == ["up"], "its only line")
    everup.wait_for(lambda: everup.output("half.1", "stderr"), "its lines")
    before = identities(everup)
    for who in ("keeper", "both"):
        kill(everup, who)
        everup.wait_for(lambda: identities(everup) == before, "all are as they were")
        more(everup, "half.1")
    ended_and_back(everup, "closed.1")
    ended_and_back(everup, "file.1")
    everup.wait_for(lambda: everup.output("closed.1") == ["up", "up"], "it says so again")
    assert set(everup.output("half.1")) == {"e"}
    one_each(everup)


# -- at random


def test_kill_loop(everup: Everup, record_property: Callable[[str, object], None]) -> None:
    """Random kills of everybody, in the middle of commands, under load. EVERUP_KILLS: how many;
    EVERUP_STOPS: how many per cent of them are a SIGSTOP of 1 to 40 s instead; EVERUP_SEED:
    which."""
    kills = int(os.environ.get("EVERUP_KILLS", "10"))
    seed = int(os.environ.get("EVERUP_SEED") or random.SystemRandom().randrange(1 << 30))
    stops = float(os.environ.get("EVERUP_STOPS", "0"))
    print(f"EVERUP_SEED={seed} EVERUP_KILLS={kills} EVERUP_STOPS={stops:g}")
    rate = float(os.environ.get("EVERUP_RATE") or (500 if kills > 50 else 200))
    loop = Loop(everup, kills=kills, seed=seed, rate=rate, stops=stops / 100)
    try:
        report = loop.run()
    finally:
        print(loop.report.table())
    record_property("report", report.table())
    assert not report.wrong, "\n".join(report.wrong)
    everup.down()
    everup.wait_for(lambda: not everup.processes(), "nothing is left, the zygote neither")
    assert not everup.groups()
