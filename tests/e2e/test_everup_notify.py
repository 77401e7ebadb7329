"""What services say of themselves: sd_notify and its watchdog."""

import os
import socket
from pathlib import Path
from typing import Any

from _everup import Everup, alive, python

SOON = {"jitter": "none", "delay": "10ms", "max_delay": "100ms", "park_interval": "1h"}
CALM = {"starvation_psi": 100, "starvation_lag": "60s"}


def notifier(everup: Everup, **settings: Any) -> dict[str, Any]:
    return everup.server(notify=True, restart=SOON, **settings)


def test_ready_gates_the_start(everup: Everup) -> None:
    """READY=1 makes it started, and what depends on it waits for that."""
    everup.up(
        {"a": notifier(everup), "b": {"command": ["sleep", "1000"], "depends_on": ["a"]}},
        arguments=("--timeout", "0"),
    )
    everup.wait_for(lambda: everup.output("a.1"), "it runs")
    assert everup.state("a.1") == "starting"
    everup.tell("notify", "STATUS=loading 7 of 9")
    everup.wait_for(lambda: everup.instance("a.1")["status_text"] == "loading 7 of 9", "STATUS")
    assert "a.1 says: loading 7 of 9" in everup.cli("status", expect=4).out
    assert everup.instance("b.1")["pid"] is None
    everup.tell("notify", "READY=1\nSTATUS=serving")
    everup.wait_state("b.1", "ready")
    assert everup.instance("a.1")["status_text"] == "serving"
    everup.tell("notify", "STOPPING=1\nSTATUS=going")
    everup.wait_state("a.1", "running")
    assert everup.instance("a.1")["reason"] == "it says that it stops"


def test_start_without_ready_times_out(everup: Everup) -> None:
    """Without READY=1 it is killed; EXTEND_TIMEOUT_USEC gives it more time."""
    everup.up({"a": notifier(everup, start_timeout="400ms")}, arguments=("--timeout", "0"))
    why = "not started within 0.4 s: READY=1 was awaited (notify = true) and did not come"
    everup.wait_event("instance.unhealthy", "a.1", reason=why)
    exits = everup.wait_event("instance.exited", "a.1")
    assert exits["cause"] == f"SIGKILL ({why})"
    everup.down()

    everup.tell("notify", f"EXTEND_TIMEOUT_USEC={60 * 10**6}")
    seq = everup.last_seq()
    everup.up({"a": notifier(everup, start_timeout="2s")}, arguments=("--timeout", "0"))
    everup.wait_for(lambda: not (everup.control / "notify").exists(), "it has asked for time")
    since = everup.wait_event("instance.spawned", "a.1", after=seq)["mono"]

    def past() -> bool:
        return everup.status()["services"][0]["instances"][0]["since_s"] > 2.5

    everup.wait_for(past, "it has been starting for longer than its start_timeout")
    assert since
    assert everup.state("a.1") == "starting"
    assert not everup.events("instance.unhealthy", after=seq)
    everup.tell("notify", "READY=1")
    everup.wait_state("a.1", "ready")


def test_watchdog(everup: Everup) -> None:
    """Silence kills it; it is restarted; another one that speaks is not touched."""
    for name in ("quiet", "steady"):
        everup.control.joinpath(name).mkdir()
        everup.tell(f"{name}/watchdog")
    watchdog = {"watchdog": {"interval": "500ms"}, "restart": SOON}
    everup.up({name: everup.server(name, **watchdog) for name in ("quiet", "steady")}, **CALM)
    pids = everup.pid("quiet.1"), everup.pid("steady.1")
    environ = Path(f"/proc/{pids[0]}/environ").read_bytes()
    assert b"WATCHDOG_USEC=500000\0" in environ
    everup.untell("quiet/watchdog")
    unhealthy = everup.wait_event("instance.unhealthy", "quiet.1")
    assert unhealthy["reason"] == "watchdog: no WATCHDOG=1 for 0.5 s"
    everup.tell("quiet/watchdog")
    everup.wait_new_pid("quiet.1", pids[0])
    assert everup.pid("steady.1") == pids[1]
    everup.tell("quiet/notify", "WATCHDOG=trigger")
    everup.wait_event(
        "instance.unhealthy", "quiet.1", after=unhealthy["seq"],
        reason="watchdog: it reported itself",
    )  # fmt: skip


HANDOVER = """
import os, socket, sys, time
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text.encode(), os.environ["NOTIFY_SOCKET"])
child = os.fork()
if child == 0:
    while not os.path.exists("go"):
        time.sleep(0.01)
    time.sleep(1000)
print(child, flush=True)
say(f"MAINPID={child}\\nREADY=1")
while not os.path.exists("go"):
    time.sleep(0.01)
os._exit(0)
"""


def test_main_process_hands_over(everup: Everup) -> None:
    """MAINPID: the end of the old main process is no end; that of the new one is."""
    everup.up({"a": {"command": python(HANDOVER), "notify": True, "restart": SOON}})
    old = int(everup.events("instance.spawned", "a.1")[0]["pid"])
    new = int(everup.output("a.1")[0])
    everup.wait_for(lambda: everup.pid("a.1") == new, "the child is the main process")
    (everup.directory / "go").touch()
    everup.wait_for(lambda: not os.path.exists(f"/proc/{old}"), "the old one has gone, reaped")
    assert alive(new)
    instance = everup.instance("a.1")
    assert (instance["state"], instance["pid"], instance["restarts"]) == ("ready", new, 0)
    (everup.directory / "go").unlink()
    os.kill(new, 9)
    exited = everup.wait_event("instance.exited", "a.1")
    assert exited["cause"] == "SIGKILL"
    assert exited["pid"] == new
    everup.wait_state("a.1", "ready")


def test_foreign_datagrams_are_refused(everup: Everup) -> None:
    """Who speaks is told by the kernel: a stranger cannot make a service ready."""
    everup.up({"a": notifier(everup)}, arguments=("--timeout", "0"))
    everup.wait_for(lambda: everup.output("a.1"), "it runs")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        for text in (b"READY=1", b"\xff" * 100, b"READY=1\n" * 1000):
            sock.sendto(text, everup.place.notify_socket)
    refused = everup.wait_event("notify.refused", "everup")
    assert f"pid {os.getpid()}" in refused["detail"]
    assert everup.state("a.1") == "starting"
    # A service cannot name a main process that is not its own.
    everup.tell("notify", f"MAINPID={os.getpid()}")
    everup.wait_for(lambda: not (everup.control / "notify").exists(), "said")
    everup.tell("notify", "READY=1")
    everup.wait_state("a.1", "ready")
    assert everup.pid("a.1") != os.getpid()
