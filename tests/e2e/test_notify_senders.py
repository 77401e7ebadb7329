"""Who may speak on the notify socket, and what a flood from outside does: nothing."""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from _everup import SLEEP, Everup, alive, python, sh
from _fixtures import needs_root

from everup.adapters import cgroups
from everup.adapters.cgroups import Cgroups
from everup.adapters.notify import NotifySocket

NOBODY = 65534
SOON = {"jitter": "none", "delay": "10ms", "max_delay": "100ms", "park_interval": "1h"}
CALM = {"starvation_psi": 100, "starvation_lag": "60s"}
SAY = """
import os, socket, sys, time
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
"""
DROPPED = (
    SAY
    + """
say("READY=1\\nSTATUS=real")
child = os.fork()
if child == 0:
    os.setgroups([])
    os.setuid(65534)
    say(f"MAINPID={os.getpid()}\\nSTATUS=taken")
    time.sleep(1000)
print(child, flush=True)
time.sleep(1000)
"""
)
BECOMES = (
    SAY
    + """
os.setgroups([])
os.setuid(65534)
say("STATUS=as nobody")
if os.fork() == 0:
    say("READY=1")
    os._exit(0)
os.wait()
time.sleep(1000)
"""
)
ONCE = SAY + "say('READY=1')"
Flood = Callable[..., list[int]]


@pytest.fixture
def flood() -> Iterator[Flood]:
    """Processes that send as fast as they can, as another user."""
    pids: list[int] = []

    def start(path: str, count: int, uid: int = NOBODY, text: bytes = b"WATCHDOG=1") -> list[int]:
        for _ in range(count):
            pid = os.fork()
            if pid == 0:
                with contextlib.suppress(BaseException):
                    os.setgroups([])
                    os.setuid(uid)
                    signal.alarm(60)
                    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                    sock.connect(path)
                    while True:
                        sock.send(text)
                os._exit(1)
            pids.append(pid)
        return pids

    yield start
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@needs_root
def test_a_child_of_another_user_is_not_heard(open_everup: Everup) -> None:
    everup = open_everup
    service = {"command": python(DROPPED), "notify": True, "restart": SOON}
    everup.up({"a": service})
    pid, child = everup.pid("a.1"), int(everup.wait_for(lambda: everup.output("a.1"), "said")[0])
    refused = everup.wait_event("notify.refused", "everup")
    assert f"pid {child} (uid {NOBODY}): no instance runs as that user" in refused["detail"]
    assert everup.instance("a.1")["status_text"] == "real"
    os.kill(child, signal.SIGKILL)
    everup.wait_for(lambda: not alive(child), "it is gone")
    assert everup.pid("a.1") == pid
    assert not everup.events("instance.main")
    assert not everup.events("instance.exited")


@needs_root
def test_nor_where_another_service_runs_as_that_user(open_everup: Everup) -> None:
    everup = open_everup
    other = {"command": SLEEP, "user": "nobody"}
    # After b: else nobody runs as that user yet when it speaks, which is another refusal.
    talker = {"command": python(DROPPED), "notify": True, "restart": SOON, "depends_on": ["b"]}
    everup.up({"b": other, "a": talker})
    child = int(everup.wait_for(lambda: everup.output("a.1"), "said")[0])
    refused = everup.wait_event("notify.refused", "everup")
    assert f"pid {child} of a.1, which runs as another user (uid {NOBODY})" in refused["detail"]
    assert everup.instance("a.1")["status_text"] == "real"
    assert not everup.events("instance.main")


@needs_root
def test_a_service_that_becomes_another_user_is_heard(open_everup: Everup) -> None:
    """And so is what it starts from then on."""
    everup = open_everup
    everup.up({"a": {"command": python(BECOMES), "notify": True, "restart": SOON}})
    assert everup.instance("a.1")["status_text"] == "as nobody"
    assert not everup.events("notify.refused")


@needs_root
def test_a_flood_costs_nobody_his_pings(open_everup: Everup, flood: Flood) -> None:
    everup = open_everup
    everup.tell("watchdog")
    watched = everup.server(watchdog={"interval": "500ms"}, restart=SOON)
    everup.up({"a": watched, "b": {"command": SLEEP, "restart": SOON}}, **CALM)
    pid, other = everup.pid("a.1"), everup.pid("b.1")
    flood(everup.place.notify_socket, 3)
    refused = everup.wait_event("notify.refused", "everup")
    assert f"(uid {NOBODY}): no instance runs as that user" in refused["detail"]
    for _ in range(3):  # a dozen intervals; crashes are seen to meanwhile
        os.kill(other, signal.SIGKILL)
        other = everup.wait_new_pid("b.1", other)
        until = time.monotonic() + 2
        everup.wait_for(lambda until=until: time.monotonic() > until, "the next one")
    assert everup.pid("a.1") == pid
    assert not everup.events("instance.unhealthy")


def test_ready_of_a_helper_that_ends_at_once(everup: Everup) -> None:
    """The kernel tells by its pidfd where the dead one belonged."""
    command = sh('"$0" -S -E -c "$1"; exec sleep 1000')
    service = {"command": [*command, *python(ONCE)[0:1], python(ONCE)[4]], "notify": True}
    everup.up({"a": service | {"replicas": 10, "start_timeout": "20s", "restart": SOON}})
    if not everup.groups():
        pytest.skip("no writable control groups")
    assert not everup.events("notify.refused")
    assert not everup.events("instance.exited")


def test_of_ones_own_user_alone_where_nobody_can_become_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for euid, mode in ((1000, 0o600), (0, 0o666)):
        monkeypatch.setattr(os, "geteuid", lambda euid=euid: euid)
        sock: NotifySocket[Any] = NotifySocket(
            str(tmp_path / "n"), lambda _sender: None, lambda *_: None, print
        )
        assert os.stat(tmp_path / "n").st_mode & 0o777 == mode
        sock.close()


@needs_root
def test_a_group_of_the_same_name_elsewhere(tmp_path: Path) -> None:
    """In a subtree that was handed to another user, who calls a group in it as everup would."""
    groups = Cgroups(str(tmp_path), print)
    if groups._base is None:
        pytest.skip("no writable control groups")
    elsewhere = groups._base.parent / "somebodys" / groups._base.name / "web.1"
    elsewhere.mkdir(parents=True)
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        (elsewhere / "cgroup.procs").write_text(str(pid))
        assert cgroups.group_of(pid, groups._base.name)
        assert groups.owner_group(pid) is None
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        for directory in (elsewhere, *list(elsewhere.parents)[:2]):
            directory.rmdir()
        groups.close()
