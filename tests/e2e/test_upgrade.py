"""everup is replaced by another version of itself, and its services do not notice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from _everup import COMMAND_S, DEADLINE_S, Everup, Result, sh
from test_rollout import QUICK, READY, assert_served, kept, load, served_by

import everup as package
from everup.adapters.journal import SCHEMA_VERSION

SOURCE = Path(package.__file__).parent
NEW = "99.1.0"
TALK = sh("i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done")


class Installed:
    """A virtual environment with a copy of everup of another version in it."""

    def __init__(self, directory: Path, version: str = NEW) -> None:
        self.directory = directory
        site = directory / sysconfig.get_path("purelib", vars={"base": "."})
        (directory / "bin").mkdir(parents=True)
        site.mkdir(parents=True)
        base = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
        (directory / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
        self.python = directory / "bin" / "python"
        self.python.symlink_to(base)
        (site / "rest.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
        self.package = site / "everup"
        self.version = version
        self.copy()

    def copy(self) -> None:
        shutil.rmtree(self.package, ignore_errors=True)
        shutil.copytree(SOURCE, self.package)
        self.edit("__init__.py", package.__version__, self.version)

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.package / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def newer_journal(self) -> None:
        """Its journal has one more step of migration."""
        file, now = "adapters/_journal_file.py", SCHEMA_VERSION
        self.edit(file, f"SCHEMA_VERSION = {now}", f"SCHEMA_VERSION = {now + 1}")
        step = "CREATE INDEX IF NOT EXISTS event_by_boot ON event (boot);"
        self.edit(file, "_MIGRATIONS = {", f'_MIGRATIONS = {{\n    {now}: "{step}",')

    def cli(
        self, everup: Everup, *arguments: str, expect: int = 0, env: Mapping[str, str] | None = None
    ) -> Result:
        done = subprocess.run(
            [str(self.python), "-m", "everup.cli", "-c", str(everup.config), *arguments],
            env=everup.environment | dict(env or {}), cwd=everup.directory, capture_output=True,
            stdin=subprocess.DEVNULL, timeout=COMMAND_S, text=True, check=False,
        )  # fmt: skip
        result = Result(done.returncode, done.stdout, done.stderr)
        if result.status != expect:
            everup.fail(f"{arguments} ended with {result.status}:\n{result.text}")
        return result


def start(everup: Everup, **settings: Any) -> dict[str, list[tuple[int, int]]]:
    """A service that is under load in the tests, and one that talks."""
    web = kept(everup, listen=f"127.0.0.1:{everup.port()}", replicas=2, probe=READY, **settings)
    everup.up({"web": web, "talk": {"command": TALK, "rollout": QUICK}})
    return everup.members()


def port_of(everup: Everup) -> int:
    return int(everup.service("web")["addresses"][0].rpartition(":")[2])


def test_upgrade_and_back(everup: Everup, tmp_path: Path) -> None:
    """``up -d`` of another version over a running one: the keeper stays, the services stay, no
    request and no line of output is lost; then back, then the same once more."""
    new = Installed(tmp_path / "new")
    before = start(everup)
    keeper, engines = everup.keeper_pid, {everup.engine_pid}
    with load(port_of(everup)) as client:
        result = new.cli(everup, "up", "-d")
        was, words = package.__version__, "3 instances go on as before"
        assert result.out.startswith(f"everup {was} was replaced by {NEW}; {words}")
        assert f"everup -c {everup.config} status" in result.out
        assert everup.status()["version"] == NEW
        engines.add(everup.engine_pid)
        # What it has become stays so, also when its engine dies.
        everup.kill(everup.engine_pid)
        assert everup.status()["version"] == NEW
        engines.add(everup.engine_pid)
        result = everup.cli("up", "-d")
        assert result.out.startswith(f"everup {NEW} was replaced by {was}; {words}")
        assert everup.status()["version"] == was
        engines.add(everup.engine_pid)
        result = everup.cli("reexec", "--json")
        assert result.json["version"] == result.json["before"] == was
        assert result.json["untouched"] == 3
        engines.add(everup.engine_pid)
        for _, pid in (*before["web.1"], *before["web.2"]):
            served_by(everup, client, pid)
        summary = client.stop()
    assert_served(summary)
    assert len(engines) == 5
    assert everup.keeper_pid == everup.status()["keeper"]["pid"] == keeper
    assert everup.members() == before
    upgrades = everup.events("everup.upgrading")
    assert [e["version"] for e in upgrades] == [NEW, was, was]
    assert {e["by"] for e in upgrades} == {f"uid {os.getuid()}"}
    everup.cli("stop", "talk")
    lines = [int(line.split()[1]) for line in everup.output("talk.1")]
    assert lines == list(range(len(lines)))
    assert len(lines) > 50


def test_files_replaced_under_a_running_everup(everup: Everup, tmp_path: Path) -> None:
    """As ``pip install -U`` does it; then ``everup reexec``."""
    installed = Installed(tmp_path / "venv", "99.0.9")
    everup.write({"web": kept(everup, listen=f"127.0.0.1:{everup.port()}", probe=READY)})
    installed.cli(everup, "up", "-d")
    before = everup.members()
    assert everup.status()["version"] == "99.0.9"
    installed.edit("__init__.py", "99.0.9", NEW)
    result = installed.cli(everup, "up", "-d")
    assert f"everup 99.0.9 was replaced by {NEW}; 1 instance goes on as before" in result.out
    assert everup.status()["version"] == NEW
    assert everup.members() == before
    # And what was changed in the config meanwhile waits for a reload, which is said.
    everup.config.write_text(everup.config.read_text() + "# changed\n")
    installed.edit("__init__.py", NEW, "99.2.0")
    assert f"everup -c {everup.config} reload" in installed.cli(everup, "up", "-d").out
    assert "nothing changes" in installed.cli(everup, "reload").out


BROKEN = {
    "keeper/keeper.py": ("class Keeper:", "class Keeper", "SyntaxError"),
    "daemon/runtime.py": ("class Runtime:", "class Runtime", "SyntaxError"),
    "api/server.py": ("from aiohttp import web", "import nothing_of_the_kind", "nothing_of_the"),
    "model/spec.py": ("    replicas: Annotated", "    copies: Annotated", "unknown key"),
    "adapters/_journal_file.py": ("SCHEMA_VERSION = ", "SCHEMA_VERSION = -", "newer everup"),
    "daemon/__main__.py": ("def main() -> int:", "def main() -> int:\n    raise OSError(99)", "99"),
}


def test_broken_version_is_refused(everup: Everup, tmp_path: Path) -> None:
    """Before anything changes: wherever it is broken."""
    new = Installed(tmp_path / "new")
    before, engine = start(everup), everup.engine_pid
    seq = everup.last_seq()
    for file, (old, bad, words) in BROKEN.items():
        path = new.package / file
        whole = path.read_text()
        new.edit(file, old, bad)
        if file == "model/spec.py":  # consistent in itself, but with another config
            for other in new.package.rglob("*.py"):
                other.write_text(other.read_text().replace(".replicas", ".copies"))
        result = reexec(everup, new)
        assert result.status == 1, (file, result.text)
        assert f"everup {NEW} cannot take over, and nothing was changed" in result.err, result.text
        assert words in result.err, (file, result.text)
        path.write_text(whole)
        if file == "model/spec.py":
            new.copy()
    # One that is not there at all, and one that is not what it says.
    for argv, words in (
        (["/nowhere/python"], "No such file"),
        ([sys.executable, "-S", "-E", str(SOURCE / "keeper" / "__main__.py")], "not 99.1.0"),
    ):
        engine_argv = [sys.executable, "-m", "everup.daemon", place_json(everup)]
        body = {"argv": argv, "engine": engine_argv, "version": NEW}
        status, answer = everup.request("POST", "/v1/reexec", body)
        assert status == 409
        assert words in json.loads(answer)["error"]
    assert everup.engine_pid == engine
    assert everup.members() == before
    assert not everup.events("everup.upgrading", after=seq)
    assert everup.cli("status").status == 0


def reexec(everup: Everup, new: Installed) -> Result:
    """With what the new one would say, by a program that is whole."""
    keeper = [str(new.python), "-S", "-E", str(new.package / "keeper" / "__main__.py")]
    engine = [str(new.python), "-m", "everup.daemon", place_json(everup)]
    body = {"argv": keeper, "engine": engine, "version": NEW}
    status, answer = everup.request("POST", "/v1/reexec", body, timeout_s=COMMAND_S)
    found = json.loads(answer)
    return Result(int(status != 200), "", f"{found.get('error', '')}\n{found.get('hint', '')}")


def place_json(everup: Everup) -> str:
    names = ("config", "config_dir", "state_dir", "run_dir")
    return json.dumps({name: getattr(everup.place, name) for name in names})


def test_newer_journal(everup: Everup, tmp_path: Path) -> None:
    """An older everup leaves it alone, and the services too: over a running one, and over what
    two killed processes left."""
    new = Installed(tmp_path / "new")
    new.newer_journal()
    before = start(everup)
    new.cli(everup, "up", "-d")
    assert "was migrated" in (everup.state_dir / "everup.log").read_text()
    result = everup.cli("up", "-d", expect=1)
    assert f"everup {package.__version__} cannot take over, and nothing was changed" in result.err
    assert "was written by a newer everup (format" in result.err
    assert everup.status()["version"] == NEW
    with load(port_of(everup)) as client:
        own = everup.own()
        everup.kill(*own.keepers, *own.engines)
        result = everup.cli("up", "-d", expect=1)
        assert "was written by a newer everup (format" in result.err
        assert "nothing was started, and what runs goes on" in result.err
        assert everup.members() == before
        assert not everup.own()
        result = new.cli(everup, "up", "-d")
        assert "3 instances of an earlier everup go on running" in result.out
        summary = client.stop()
    assert_served(summary)
    assert everup.members() == before
    assert everup.status()["version"] == NEW


def test_upgrade_in_the_middle_of_a_restart(everup: Everup, tmp_path: Path) -> None:
    """The new version goes on with it, and the command that waits for it does not notice."""
    new = Installed(tmp_path / "new")
    before = start(everup)
    with load(port_of(everup)) as client:
        restarting = everup.popen("restart", "web")
        everup.wait_event("instance.outgoing", "web.1")
        new.cli(everup, "up", "-d")
        out, _ = restarting.communicate(timeout=2 * DEADLINE_S)
        assert restarting.returncode == 0, out.decode() + everup.report()
        summary = client.stop()
    assert_served(summary)
    after = everup.members()
    assert after["talk.1"] == before["talk.1"]
    assert all(len(runs) == 1 for runs in after.values())
    assert not {after["web.1"][0], after["web.2"][0]} & {before["web.1"][0], before["web.2"][0]}
    assert everup.status()["version"] == NEW


def test_foreground_stays_in_front(everup: Everup, tmp_path: Path) -> None:
    """The keeper is replaced in place: the same pid, and Ctrl-C still ends it."""
    new = Installed(tmp_path / "new")
    everup.write({"talk": {"command": TALK}})
    running = everup.popen("up")
    everup.wait_for(lambda: os.path.exists(everup.place.api_socket), "API")
    everup.wait_state("talk.1", "ready")
    pid = everup.pid("talk.1")
    new.cli(everup, "reexec")
    assert everup.keeper_pid == running.pid
    assert everup.pid("talk.1") == pid
    assert everup.status()["version"] == NEW
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 0
    assert b"all services are down" in out
