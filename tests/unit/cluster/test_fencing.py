"""What a process of a singleton is started with."""

import os
import signal
import subprocess
from typing import Any

import pytest

from everup.daemon import fencing
from everup.keeper.spawn import start_ticks
from everup.model.action import Spawn
from everup.model.instance import Slot
from everup.model.record import Instance

SLOT = Slot("db", 1)


def test_only_a_singleton_gets_a_token_and_a_time() -> None:
    asked = {"env": {"A": "b"}}
    assert fencing.fenced(asked, Spawn(SLOT, 1)) == asked
    fenced = fencing.fenced(asked, Spawn(SLOT, 1, fence=7, until=12.5))
    assert fenced == {"env": {"A": "b", "EVERUP_FENCE": "7"}, "until": 12.5}
    assert asked == {"env": {"A": "b"}}  # it is kept for the next start


@pytest.mark.parametrize(("held", "number"), [({}, 3), ({3: "a", 4: "b"}, 5)])
def test_the_fuse_is_behind_the_sockets(held: dict[int, str], number: int) -> None:
    request: dict[str, Any] = {"until": 12.5}
    given: dict[int, int] = {}
    hold: dict[str, int] = {}
    with fencing.fuse(request, held, given, hold, "db.1:1"):
        assert request["fuse"] == number
        os.write(hold["fuse:db.1:1"], b"x")
        assert os.read(given[number], 1) == b"x"
    assert os.read(given[number], 1) == b""  # ours is closed: whoever took it holds it alone
    os.close(given[number])


def test_others_get_none() -> None:
    request: dict[str, Any] = {}
    given: dict[int, int] = {}
    with fencing.fuse(request, {}, given, {}, "web.1:1"):
        assert (request, given) == ({}, {})


def test_an_engine_that_takes_over_leaves_the_fuses_of_the_living_alone() -> None:
    ends = [os.pipe() for _ in range(2)]
    held = {"fuse:db.1:3": ends[0][1], "fuse:db.1:2": ends[1][1], "pipe:db.1:3:out": 99}
    fencing.keep(held, [{"id": "main:db.1:3"}, {"id": "main:db.1:2", "exit": {}}])
    assert held == {"fuse:db.1:2": ends[1][1], "pipe:db.1:3:out": 99}
    for fd in (ends[0][0], *ends[1]):
        os.close(fd)


def test_whoever_has_the_number_by_now_is_not_killed() -> None:
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as process:
        pid, start = process.pid, start_ticks(process.pid)
        instance = Instance(SLOT, pid=pid, facts={"start": start + 1, "leader": pid})
        fencing.kill(instance)
        assert process.poll() is None
        fencing.kill(Instance(SLOT, pid=pid, facts={"start": start, "leader": pid}))
        assert process.wait() == -signal.SIGKILL
