"""Where everup runs in a container or a build job: environment, output, descriptors."""

import os
import subprocess
from pathlib import Path

import pytest
from _everup import EVERUP, SLEEP, Everup, sh
from _fixtures import needs_root


def test_variables_are_passed_on_by_name(everup: Everup) -> None:
    everup.environment |= {"APP_A": "1", "APP_B": "2", "OTHER": "3", "EVERUP_X": "4", "TOLD": "5"}
    web = {
        "command": sh("env; exec sleep 1000"),
        "pass_environment": ["APP_*", "TOLD", "EVERUP_*", "MISSING"],
        "environment": {"APP_B": "mine"},
    }
    everup.up({"web": web})
    everup.wait_for(lambda: "TOLD=5" in everup.output("web.1"), "it has told")
    seen = set(everup.output("web.1"))
    assert {"APP_A=1", "APP_B=mine"} <= seen
    assert not [line for line in seen if line.startswith(("OTHER=", "EVERUP_X="))]


@needs_root
def test_dev_stdout_can_be_opened_by_the_services_user(open_everup: Everup) -> None:
    script = "echo one > /dev/stdout; echo two > /dev/stderr; exec sleep 1000"
    open_everup.up({"web": {"command": sh(script), "user": "nobody", "directory": "/"}})
    lines = open_everup.wait_for(lambda: open_everup.output("web.1"), "it has written")
    open_everup.wait_for(lambda: len(open_everup.output("web.1")) >= 2, "both")
    assert sorted(open_everup.output("web.1")) == ["one", "two"], lines


def test_what_everup_was_started_with_is_not_kept_open(everup: Everup) -> None:
    """A lock or the pipe of a build job: its reader must see the end."""
    everup.write({"web": {"command": SLEEP}})
    read, write = os.pipe()
    everup.cli("up", "-d", pass_fds=(write,))
    os.close(write)
    os.set_blocking(read, False)
    assert os.read(read, 1) == b""  # nobody has the other end
    os.close(read)


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_up_with_its_standard_descriptors_closed(everup: Everup, closed: str) -> None:
    everup.write({"web": {"command": sh("echo said; exec sleep 1000")}})
    line = f'exec "$@" {closed}'
    command = ["sh", "-c", line, "sh", EVERUP, "-c", str(everup.config), "up", "-d"]
    done = subprocess.run(command, env=everup.environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    everup.wait_for(lambda: everup.output("web.1") == ["said"], "its output is stored")
    for pid in (everup.keeper_pid, everup.engine_pid):
        for number in (0, 1, 2):
            assert Path(f"/proc/{pid}/fd/{number}").exists()
    assert everup.cli("status").status == 0


def test_output_is_copied_to_everups_own_stdout(everup: Everup) -> None:
    """For the log of a container; the files have it as ever, and a reader who stands still keeps
    nobody waiting."""
    script = "echo first; echo second >&2; until [ -e more ]; do sleep 0.05; done; "
    script += "seq 200000; echo last; exec sleep 1000"
    web = {"command": sh(script), "directory": str(everup.directory)}
    everup.write({"web": web | {"log": {"forward": "stdout", "max_size": "64M"}}})
    process = everup.popen("up")
    assert process.stdout is not None
    seen: set[bytes] = set()
    while not {b"web.1 | first\n", b"web.1 | second\n"} <= seen:
        line = process.stdout.readline()
        assert line, seen
        seen.add(line)
    (everup.directory / "more").touch()  # and nobody reads
    everup.wait_for(lambda: "last" in everup.output("web.1"), "all of it is stored")
    assert everup.cli("status").status == 0
    everup.cli("down", "--timeout", "0")
    rest = process.communicate(timeout=60)[0]
    assert b"web.1 | 1\n" in rest
