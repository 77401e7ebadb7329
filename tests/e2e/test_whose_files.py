"""Root's everup in a directory of somebody else, and what a umask may not change."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from _everup import SLEEP, Everup, Json, sh
from _fixtures import needs_root

from everup.adapters.place import STORE, Place

NOBODY = 65534
_AS_NOBODY = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),  # to find Python
)
_PYTHON = shutil.which("python3", path="/usr/bin:/bin") or "python3"
"""One that every user may run."""
_SAY = sh("while :; do echo words; sleep 0.05; done")
_NOTIFY = """
import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
time.sleep(1000)
"""


@pytest.fixture
def theirs(open_everup: Everup) -> Iterator[Everup]:
    """Root's everup in a directory of nobody's."""
    everup = open_everup
    os.chown(everup.directory, NOBODY, -1)
    everup.write({})
    everup.state_dir = Path(Place.own(str(everup.config), None).state_dir)
    try:
        yield everup
    finally:
        everup.close()
        shutil.rmtree(everup.state_dir, ignore_errors=True)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@needs_root
def test_the_state_of_root_is_where_the_directorys_owner_cannot_write(theirs: Everup) -> None:
    everup = theirs
    victim = everup.directory.with_suffix(".victim")
    planted = everup.directory / ".everup"
    planted.mkdir()
    (planted / "logs").mkdir()
    victim.write_text("")
    for name in ("everup.log", "logs/web.1.log", "lock", "config.accepted.toml.new"):
        (planted / name).symlink_to(victim)
    (planted / "config.accepted.toml").write_text('[service.evil]\ncommand = ["sleep", "999"]\n')
    try:
        said = everup.up({"web": {"command": _SAY}})
        assert str(everup.state_dir) in said.err
        assert everup.state_dir.parent == Path(STORE)
        everup.wait_for(lambda: everup.output("web.1"), "its output is stored")
        engine = everup.engine_pid
        everup.kill(engine)
        everup.wait_for(lambda: everup.engine_pid != engine, "another engine")
        assert [s["name"] for s in everup.status()["services"]] == ["web"]
        assert "ready" in everup.cli("status").out
        everup.down()
        assert "instance.stopped" in everup.cli("events").out
        assert "web" in everup.cli("report").out
        assert victim.read_text() == ""
        assert sorted(os.listdir(planted)) == sorted(
            ["everup.log", "logs", "lock", "config.accepted.toml", "config.accepted.toml.new"]
        )
    finally:
        victim.unlink()


@needs_root
def test_a_state_directory_that_the_config_names_is_refused_there(theirs: Everup) -> None:
    said = theirs.up({"web": {"command": SLEEP}}, expect=None, state_dir="state")
    assert said.status == 1
    assert f"{theirs.directory} belongs to" in said.err
    assert f"chown root {theirs.directory}" in said.err
    assert not (theirs.directory / "state").exists()


@needs_root
def test_an_engine_reads_nothing_that_somebody_else_could_write(open_everup: Everup) -> None:
    """The directory was given away while everup ran, and another state was put there."""
    everup = open_everup
    everup.up({"web": {"command": SLEEP}})
    pid, engine = everup.pid("web.1"), everup.engine_pid
    real = everup.directory / "real"
    everup.state_dir.rename(real)
    everup.state_dir.mkdir()
    evil = '[service.evil]\ncommand = ["sleep", "999"]\n'
    (everup.state_dir / "config.accepted.toml").write_text(evil)
    os.chown(everup.state_dir, NOBODY, -1)
    everup.kill(engine)
    log = real / "everup.log"
    everup.wait_for(lambda: "go on unattended" in log.read_text(), "it is refused")
    assert "chown root" in log.read_text()
    os.kill(pid, 0)
    shutil.rmtree(everup.state_dir)
    real.rename(everup.state_dir)
    everup.wait_for(lambda: everup.pid("web.1") == pid, "mended: the next engine takes over")


@needs_root
def test_planted_files_of_an_earlier_time_are_refused(open_everup: Everup) -> None:
    everup = open_everup
    everup.write({"web": {"command": SLEEP}})
    everup.state_dir.mkdir()
    (everup.state_dir / "config.accepted.toml").write_text("")
    os.chown(everup.state_dir / "config.accepted.toml", NOBODY, -1)
    said = everup.up(expect=1)
    assert f"rm {everup.state_dir}/config.accepted.toml" in said.err


@needs_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_root_finds_a_users_everup_and_leaves_nothing_of_its_own(open_everup: Everup) -> None:
    everup = open_everup
    everup.write({"web": {"command": SLEEP}})
    for path in (everup.directory, *everup.directory.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    everup.wrapper = _AS_NOBODY
    everup.up()
    everup.wrapper = ()
    assert everup.instances()["web.1"]["state"] == "ready"
    assert everup.state_dir == everup.directory / ".everup"
    assert "ready" in everup.cli("status").out
    assert "already" in everup.cli("up", "-d", expect=1).err
    for command in ("report", "events", "logs", "plan"):
        everup.cli(command, expect=None)
    everup.cli("down")
    for command in ("report", "events", "logs", "plan"):
        everup.cli(command, expect=None)
    owners = {path.lstat().st_uid for path in everup.directory.rglob("*")}
    assert owners == {NOBODY}


@pytest.mark.parametrize("umask", [0o000, 0o027, 0o077], ids=oct)
def test_modes_do_not_depend_on_the_umask(open_everup: Everup, umask: int) -> None:
    everup = open_everup
    told = [_PYTHON, "-S", "-E", "-c", _NOTIFY]
    services: dict[str, Json] = {"web": {"command": _SAY}, "told": {"command": told}}
    services["told"]["notify"] = True
    if os.getuid() == 0:
        services["told"]["user"] = "nobody"
    sock = everup.directory / "web.sock"
    services["open"] = everup.server(listen=[{"address": f"unix:{sock}", "mode": "0660"}])
    everup.write(services)
    everup.cli("up", "-d", "--timeout", "20", umask=umask)
    everup.wait_for(lambda: everup.output("web.1"), "its output is stored")
    state = everup.state_dir
    modes = {str(path.relative_to(state)): mode(path) for path in state.rglob("*")}
    modes.pop("logs/open.1.log", None)
    assert mode(state) == 0o755
    assert modes.pop("logs") == 0o750
    assert modes.pop("logs/web.1.log") == modes.pop("everup.log") == 0o640
    assert modes.pop("notify.sock") == (0o666 if os.getuid() == 0 else 0o600)
    assert {name: bits for name, bits in modes.items() if bits & 0o077} == {}
    assert mode(sock) == 0o660


def test_a_long_path_has_its_sockets_elsewhere(tmp_path: Path) -> None:
    """Found by who has another TMPDIR; a directory that somebody else has made is not taken."""
    directory = tmp_path / ("x" * 110)
    directory.mkdir()
    everup = Everup(directory)
    run = Path(everup.place.run_dir)
    try:
        assert run != everup.state_dir
        run.parent.mkdir(exist_ok=True)
        run.symlink_to(tmp_path)
        if os.getuid() == 0:
            os.chown(run, NOBODY, -1, follow_symlinks=False)
            everup.up({"web": {"command": SLEEP}}, expect=1)
        assert not (tmp_path / "api.sock").exists()
        run.unlink()
        everup.environment["TMPDIR"] = str(directory)
        everup.up({"web": {"command": SLEEP}})
        everup.environment["TMPDIR"] = "/var/tmp"
        everup.cli("status")
    finally:
        everup.close()
        run.unlink() if run.is_symlink() else shutil.rmtree(run, ignore_errors=True)


@needs_root
def test_a_unix_listener_never_changes_the_mode_of_another_file(open_everup: Everup) -> None:
    """Whoever may write into its directory puts a link in its place the moment it is bound."""
    everup = open_everup
    victim = everup.directory / "victim"
    victim.write_text("")
    victim.chmod(0o600)
    shared = everup.directory / "shared"
    shared.mkdir()
    os.chown(shared, NOBODY, -1)
    race = (
        "import os\n"
        f"path, victim = {str(shared / 'web.sock')!r}, {str(victim)!r}\n"
        "while True:\n"
        "    try:\n"
        "        if os.path.lexists(path) and not os.path.islink(path):\n"
        "            os.unlink(path); os.symlink(victim, path)\n"
        "    except OSError: pass\n"
    )
    attacker = subprocess.Popen([_PYTHON, "-S", "-c", race], user=NOBODY, group=NOBODY)
    try:
        listen = [{"address": f"unix:{shared}/web.sock", "mode": "0666"}]
        everup.write({"web": everup.server(listen=listen)})
        everup.cli("up", "-d", "--timeout", "3", expect=None)
        for _ in range(5):
            everup.cli("stop", "web", "--timeout", "3", expect=None)
            everup.cli("start", "web", "--timeout", "3", expect=None)
    finally:
        attacker.kill()
        attacker.wait()
    assert mode(victim) == 0o600
