"""Processes in sessions of their own, where no control group tells whose they are: they end with
what started them, and that is told."""

import os
import signal
import sys
from pathlib import Path

import pytest
from _everup import Everup, alive, python, sh

SOON = {"jitter": "none", "delay": "10ms", "max_delay": "100ms", "park_interval": "1h"}
QUIET = "stdin=-3, stdout=-3, stderr=-3"
# How a process may hide: what it keeps of its environment and its output.
WAYS = {
    "as it is": "",
    "output closed": f", {QUIET}",
    "environment cleared": ", env={}",
    "both": f", env={{}}, {QUIET}",
}
AWAY = """
import os, subprocess, sys, time
child = subprocess.Popen(["/bin/sleep", "1000"], start_new_session=TrueMORE)
with open("pids", "a") as file: file.write(f"{child.pid}\\n")
"""
DAEMON = """
import os, sys, time
with_pid = lambda: open("pids", "a").write(f"{os.getpid()}\\n")
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    with_pid()
    if os.fork() == 0:  # and it has a child, in a session of its own again
        os.setsid()
        with_pid()
    os.execv("/bin/sleep", ["sleep", "1000"])
os.wait()
"""
STAY = "time.sleep(1000)\n"


def pids(everup: Everup, count: int) -> list[int]:
    path = everup.directory / "pids"
    found = everup.wait_for(
        lambda: lines if path.exists() and len(lines := path.read_text().split()) >= count else [],
        "who goes away is there",
    )
    return list(map(int, found))


def service(script: str) -> dict[str, object]:
    return {"command": python(script + STAY), "restart": SOON}


@pytest.mark.parametrize("way", WAYS)
def test_they_end_with_the_main_process(everup: Everup, way: str) -> None:
    everup.without_groups()
    everup.up({"web": service(AWAY.replace("MORE", WAYS[way]))})
    (first,) = pids(everup, 1)
    everup.wait_for(lambda: Path(f"/proc/{first}/comm").read_text() == "sleep\n", "it is away")
    main = everup.pid("web.1")
    os.kill(main, signal.SIGKILL)
    everup.wait_new_pid("web.1", main)
    everup.wait_for(lambda: not alive(first), "the first one is gone")
    told = everup.wait_event("instance.escaped", "web.1")
    assert told["ended"] == [f"sleep (pid {first})"]
    assert told["of"] == "main"
    second = pids(everup, 2)[1]
    everup.cli("restart", "web")
    everup.wait_for(lambda: not alive(second), "nor is anything doubled by a restart")
    third = pids(everup, 3)[2]
    everup.down()
    assert not alive(third)


def test_daemons_and_their_children(everup: Everup) -> None:
    everup.without_groups()
    everup.up({"web": service(DAEMON), "other": service(DAEMON.replace('"pids"', '"others"'))})
    away, main, other = pids(everup, 2), everup.pid("web.1"), everup.pid("other.1")
    everup.wait_for((everup.directory / "others").exists, "the other one's are there too")
    os.kill(main, signal.SIGKILL)
    everup.wait_new_pid("web.1", main)
    everup.wait_for(lambda: not any(map(alive, away)), "both are gone")
    others = list(map(int, (everup.directory / "others").read_text().split()))
    assert all(map(alive, [other, *others]))  # those of another service are its own
    assert not everup.events("instance.escaped", "other.1")


def test_they_are_found_after_the_keepers_death(everup: Everup) -> None:
    """Then they are no children of the next keeper."""
    everup.without_groups()
    everup.up(
        {
            "web": service(AWAY.replace("MORE", "")),
            "b": service(AWAY.replace("MORE", WAYS["output closed"]).replace('"pids"', '"b"')),
        }
    )
    (away,), main = pids(everup, 1), everup.pid("web.1")
    (other,) = map(int, everup.wait_for((everup.directory / "b").read_text, "b").split())
    own = everup.own()
    everup.kill(own.keeper)
    everup.wait_for(lambda: everup.own().keeper not in (0, own.keeper), "another keeper")
    assert everup.pid("web.1") == main
    os.kill(main, signal.SIGKILL)
    everup.wait_new_pid("web.1", main)
    everup.wait_for(lambda: not alive(away), "it is gone")
    assert alive(other)
    everup.down()
    assert not alive(other)


@pytest.mark.parametrize("groups", [True, False], ids=["groups", "no groups"])
def test_hooks_and_probes_leave_nobody(everup: Everup, groups: bool) -> None:
    """They are in no control group anywhere."""
    if not groups:
        everup.without_groups()
    hook = python(AWAY.replace("MORE", WAYS["output closed"]))
    probe = sh("setsid sleep 1001 & exit 0")
    web = {"command": ["sleep", "1000"], "hooks": {"pre_start": hook}}
    web["probe"] = {"liveness": {"exec": probe, "interval": "100ms"}}
    everup.up({"web": web})
    (away,) = pids(everup, 1)
    everup.wait_for(lambda: not alive(away), "the hook's is gone")
    told = everup.wait_event("instance.escaped", "web.1", of="hook")
    assert told["ended"] == [f"sleep (pid {away})"]
    everup.wait_event("instance.escaped", "web.1", of="probe")
    everup.cli("stop", "web")
    everup.wait_for(
        lambda: not [c for c in everup.processes().values() if c == "sleep 1001 "],
        "the probes' are gone",
    )


def test_what_is_asked_to_stop_may_end_in_order(everup: Everup) -> None:
    """The one that went away gets the stop signal and its time as well."""
    everup.without_groups()
    script = sys.executable + " -S -E -c 'import signal, sys, time\n"
    script += 'signal.signal(15, lambda *_: (open("saved", "w"), sys.exit()))\n'
    script += 'open("pids", "w").write("0"); time.sleep(1000)\''
    everup.up({"web": {"command": sh(f"setsid {script} & exec sleep 1000")}})
    pids(everup, 1)
    everup.cli("stop", "web")
    assert (everup.directory / "saved").exists()
    assert not everup.events("instance.escaped")
