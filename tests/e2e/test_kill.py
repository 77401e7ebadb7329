"""kill -9 of everup's own processes, of any combination, at moments of many kinds.

What is to hold each time: the same processes go on, none is there twice, the sockets answer, no
line of output is lost or doubled, and everup can do all that it could before.
"""

import contextlib
import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from _everup import (
    DEADLINE_S,
    FAST_PROBE,
    SLEEP,
    Everup,
    Json,
    alive,
    get,
    parent_of,
    python,
    sh,
    state_of,
)

SOON = {"jitter": "none", "delay": "10ms", "max_delay": "100ms", "park_interval": "1h"}
READINESS = {"readiness": {"http": "/readyz", **FAST_PROBE}}
COUNT = "import time\nfor n in range(10**9):\n print(n, flush=True); time.sleep(0.002)"
WHO = ("engine", "keeper", "both")


# -- killing


def kill(everup: Everup, who: str) -> None:
    """kill -9; where nobody of everup is left, ``up`` again. Returns once the next one answers."""
    own = everup.own()
    assert own.keeper
    assert own.engine
    assert own.zygote
    everup.kill(*pids_of(everup, who))
    if who in ("both", "all"):
        everup.wait_for(lambda: not everup.own(), "nobody of everup is left")
        everup.up(arguments=("--timeout", "0"))
    everup.wait_for(
        lambda: (now := everup.own()).keeper and now.engine not in (0, own.engine)
        if who != "zygote"
        else everup.own().keeper,
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
        case _:
            return [own.keeper, own.engine, own.zygote]


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


def whole(everup: Everup, slot: str = "count.1") -> int:
    """No line lost, none doubled, and more to come; returns how many there are."""
    at = len(everup.output(slot))
    everup.wait_for(lambda: len(everup.output(slot)) > at + 5, "output goes on")
    lines = everup.output(slot, "stdout")
    assert lines == [str(n) for n in range(len(lines))]
    return len(lines)


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


# -- one after the other


@pytest.mark.parametrize(
    "whom",
    [
        "engine", "keeper", "zygote", "both", "all", "keeper keeper engine", "both keeper both",
        "engine all zygote",
    ],
)  # fmt: skip
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
    assert not everup.processes()
    assert not everup.groups()
