"""Stops that were asked for: what is left after the main process gets the signal and time too."""

import os
import signal
import sys
from pathlib import Path

import pytest
from _everup import SLEEP, Everup, sh

# Saves when it is asked to end, which takes a moment; whoever kills it before loses the data.
APP = """
import pathlib, signal, sys, time
directory = pathlib.Path(sys.argv[1])
def stop(*_):
    time.sleep(0.3)
    with open(directory / "saved", "a") as file:
        file.write("x")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
(directory / "up").write_text("")
while True:
    signal.pause()
"""
STUBBORN = "trap '' TERM; sleep 1000 & wait"


def wrapped(everup: Everup, script: str) -> list[str]:
    """A shell that runs the program and takes the stop signal for it."""
    path = everup.directory / "app.py"
    path.write_text(APP)
    program = f"{sys.executable} -S -E {path} {everup.control}"
    return sh(script.replace("APP", program))


def start(everup: Everup, command: list[str], **settings: object) -> None:
    everup.up({"web": {"command": command, **settings}})
    everup.wait_for((everup.control / "up").exists, "the program runs")


def saved(everup: Everup) -> str:
    path = everup.control / "saved"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("groups", [True, False], ids=["groups", "no groups"])
def test_the_program_behind_a_shell_may_end_in_order(everup: Everup, groups: bool) -> None:
    if not groups:
        everup.without_groups()
    start(everup, wrapped(everup, "APP; echo after"))
    everup.cli("stop", "web")
    assert saved(everup) == "x"
    told = everup.events("instance.lingering", "web.1")
    assert [(e["signal"], e["cause"]) for e in told] == [("SIGTERM", "SIGTERM")]
    assert any("python" in name for name in told[0]["left"])
    assert not everup.events("instance.killing")
    assert everup.state("web.1") == "stopped"


@pytest.mark.parametrize("way", ["restart", "down", "reload"])
def test_every_way_of_stopping_gives_the_rest_time(everup: Everup, way: str) -> None:
    command = wrapped(everup, "APP; echo after")
    start(everup, command)
    if way == "reload":
        everup.write({"web": {"command": command, "environment": {"NEW": "1"}}})
    everup.cli(way)
    assert saved(everup) == "x"
    assert everup.events("instance.lingering", "web.1")


def test_a_hook_that_ends_the_main_process_leaves_the_rest_its_time(everup: Everup) -> None:
    command = wrapped(everup, "echo $$ > $EVERUP_STATE/main; APP; echo after")
    hook = sh("kill $(cat ../main 2>/dev/null || cat .everup/main); sleep 0.1")
    start(everup, command, hooks={"pre_stop": hook})
    everup.cli("stop", "web")
    assert saved(everup) == "x"
    assert everup.events("instance.lingering", "web.1")


def test_what_does_not_end_is_killed_when_the_time_is_over(everup: Everup) -> None:
    start(
        everup,
        sh(f'sh -c "{STUBBORN}" & touch {everup.control}/up; wait'),
        stop_timeout="300ms",
    )
    everup.cli("stop", "web")
    order = [
        e["kind"] for e in everup.events(subject="web.1")
        if e["kind"] in ("instance.lingering", "instance.killing", "instance.stopped")
    ]  # fmt: skip
    assert order == ["instance.lingering", "instance.killing", "instance.stopped"]


def test_with_scope_all_everybody_gets_the_signal_once(everup: Everup) -> None:
    """Bash waits for its child before it runs a trap: the child never hears of the stop."""
    script = "trap 'echo trapped; exit 0' TERM; APP; echo after"
    start(everup, wrapped(everup, script), stop_scope="all")
    everup.cli("stop", "web")
    assert saved(everup) == "x"
    assert not everup.events("instance.killing")


def test_after_a_crash_nothing_is_left_for_the_successor(everup: Everup) -> None:
    start(everup, wrapped(everup, "APP & wait; echo after"))
    before = everup.pid("web.1")
    os.kill(before, signal.SIGKILL)
    everup.wait_for(lambda: everup.instance("web.1")["run"] == 2, "it was started again")
    assert saved(everup) == ""
    assert not everup.events("instance.lingering")


@pytest.mark.parametrize("who", ["engine", "keeper"])
def test_everups_own_death_takes_nobody_his_time(everup: Everup, who: str) -> None:
    app = APP.replace("time.sleep(0.3)", 'while not (directory / "go").exists(): time.sleep(0.02)')
    command = wrapped(everup, "APP; echo after")
    Path(everup.directory / "app.py").write_text(app)
    start(everup, command, stop_timeout="60s")
    everup.cli("stop", "web", "--timeout", "0")
    everup.wait_event("instance.lingering", "web.1")
    own = everup.own()
    everup.kill(own.engine if who == "engine" else own.keeper)
    everup.wait_for(
        lambda: len(everup.events("engine.started")) > 1 and everup.state("web.1") == "stopping",
        "another engine has taken over",
    )
    everup.tell("go")
    everup.wait_for(lambda: everup.state("web.1") == "stopped", "it ends")
    assert saved(everup) == "x"
    assert not everup.events("instance.killing")


def test_check_warns_of_a_shell_that_stays_in_between(everup: Everup) -> None:
    everup.write({"web": {"command": ["sh", "-c", "python3 app.py; echo after"]}})
    assert "write exec" in everup.cli("check").text
    everup.write({"web": {"command": ["sh", "-c", "cd x && exec python3 app.py"]}})
    assert "write exec" not in everup.cli("check").text
    everup.write({"web": {"command": ["bash", "-ec", "python3 app.py"], "stop_scope": "all"}})
    assert "write exec" not in everup.cli("check").text
    everup.write({"web": {"command": SLEEP}})
    assert "write exec" not in everup.cli("check").text
