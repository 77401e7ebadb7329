"""What cannot start is told before anything that serves is stopped for it."""

import os
from pathlib import Path

import pytest
from _everup import SLEEP, Everup, get, sh
from _fixtures import needs_root


def serving(everup: Everup, **settings: object) -> tuple[dict[str, object], int]:
    """A web server whose program is a file that can vanish."""
    port = everup.port()
    web = everup.server(**settings)
    everup.up({"db": {"command": SLEEP}, "web": {**web, "listen": f"127.0.0.1:{port}"}})
    return web | {"listen": f"127.0.0.1:{port}"}, port


def untouched(everup: Everup, port: int, pid: int, *said: str) -> None:
    assert get(port)["pid"] == pid
    assert not everup.events("instance.stopping", "web.1")
    assert not everup.events("config.reloading")


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("state", ["stopped", "parked"])
def test_a_dependency_that_is_down(everup: Everup, state: str, overlap: bool) -> None:
    port = everup.port()
    web = everup.server(listen=f"127.0.0.1:{port}", overlap=overlap, depends_on=["db"])
    command = sh("until [ -e die ]; do sleep 0.05; done; exit 3")
    db = {"command": command, "directory": str(everup.directory), "stop_scope": "all"}
    everup.up({"db": db, "web": web})
    pid = get(port)["pid"]
    if state == "stopped":
        everup.cli("stop", "db")
    else:
        (everup.directory / "die").touch()
        everup.wait_for(lambda: everup.state("db.1") == "parked", "it is parked")
    done = everup.cli("restart", "web", expect=1)
    assert f"web needs db, which is {state}" in done.err
    assert "everup start db" in done.err
    untouched(everup, port, pid)
    everup.write({"db": {"command": SLEEP, "autostart": False}, "web": web | {"nice": 3}})
    if state == "stopped":
        assert "web needs db" in everup.cli("reload", expect=1).err
        untouched(everup, port, pid)
    everup.cli("stop", "web")
    assert "web needs db" in everup.cli("start", "web", expect=1).err
    (everup.directory / "die").unlink(missing_ok=True)
    everup.cli("start", "db", "web")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"command": ["./gone"]}, "there is no such file"),
        ({"command": ["no-such-command"]}, "no such command in PATH"),
        ({"directory": "gone"}, "the directory"),
        ({"group": "no-such-group"}, "no-such-group"),
        ({"environment_file": ["gone.env"]}, "gone.env"),
        ({"hooks": {"pre_start": ["./gone"]}}, "hooks.pre_start"),
        ({"probe": {"readiness": {"exec": ["./gone"]}}}, "probe.readiness.exec"),
        ({"command": ["./plain"]}, "chmod +x"),
        ({"command": ["./interpreted"]}, "interpreter"),
        ({"command": ["./"]}, "is no file"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_reload_to_what_cannot_start(
    everup: Everup, settings: dict[str, object], said: str
) -> None:
    (everup.directory / "plain").write_text("x")
    script = everup.directory / "interpreted"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    web, port = serving(everup, overlap=False)
    pid = get(port)["pid"]
    everup.write({"db": {"command": SLEEP}, "web": web | settings})
    done = everup.cli("reload", expect=1)
    assert said in done.err
    assert "nothing was stopped" in done.err
    untouched(everup, port, int(str(pid)))
    assert said in everup.cli("reload", "--dry-run", expect=1).err


@pytest.mark.parametrize("what", ["command", "directory", "environment_file"])
def test_a_restart_of_what_has_gone_meanwhile(everup: Everup, what: str) -> None:
    program = everup.directory / "program"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    directory = everup.directory / "home"
    directory.mkdir()
    variables = everup.directory / "web.env"
    variables.write_text("A=1\n")
    web = {"command": [str(program)], "directory": "home", "environment_file": ["web.env"]}
    everup.up({"web": web})
    pid = everup.pid("web.1")
    gone = {"command": program, "directory": directory, "environment_file": variables}[what]
    gone.rename(f"{gone}.away")
    done = everup.cli("restart", expect=1)
    assert str(gone) in done.err
    assert everup.pid("web.1") == pid
    Path(f"{gone}.away").rename(gone)
    everup.cli("restart")
    assert everup.pid("web.1") != pid


@needs_root
def test_a_program_that_the_user_may_not_reach(everup: Everup) -> None:
    program = everup.directory / "program"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o700)
    web: dict[str, object] = {"command": [str(program)], "directory": "/"}
    everup.up({"web": web})
    pid = everup.pid("web.1")
    everup.write({"web": web | {"user": "nobody"}})
    assert "may not be executed by uid" in everup.cli("reload", expect=1).err
    assert everup.pid("web.1") == pid


def test_up_keeps_what_runs_when_the_changed_config_cannot_start(everup: Everup) -> None:
    everup.up({"web": {"command": SLEEP}})
    pid = everup.pid("web.1")
    own = everup.own()
    everup.kill(own.keeper, own.engine)
    everup.write({"web": {"command": ["./gone"]}})
    done = everup.cli("up", "-d", expect=None)
    assert "there is no such file" in done.text.replace("No such file", "there is no such file")
    assert everup.pid("web.1") == pid
    assert os.path.exists(f"/proc/{pid}")
    assert not everup.events("config.reloading")
