"""Who takes part in deploy.py, how each runs the web application, and how each is told to replace
it."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from _common import HERE, BenchError, descendants, free_ports, wait_for
from _contestants import CACHE, EAGER, Circus, Contestant, Everup, Service

GRACE_S = 5  # the time that everyone gives to connections that are still open
COMMAND_S = 180.0
ROLLED_BACK_S = 15.0
UVICORN = (
    *("uvicorn", "webapp:app", "--app-dir", str(HERE)),
    *("--no-access-log", "--lifespan", "off", "--log-level", "warning"),
)


def command(*argv: str, ends_with: int | None = 0) -> tuple[int, str]:
    """Run it: its status and what it printed. It ends with us."""
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    try:
        text, _ = process.communicate(timeout=COMMAND_S)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    if ends_with not in (None, process.returncode):
        words = " ".join(map(os.path.basename, argv))
        raise BenchError(f"{words} ended with {process.returncode}: {text[-2000:]}")
    return process.returncode, text


class Deployed(Contestant):
    """A contestant that can replace its processes."""

    count = 2

    def root(self) -> int:
        """The process whose descendants serve."""
        return self.started[0].pid

    def workers(self) -> set[int]:
        found = set()
        for pid in descendants(self.root()):
            with contextlib.suppress(OSError):
                if b"webapp" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.add(pid)
        return found

    def deploy(self, step: int) -> None:
        """Restart, or bring out version ``step``; may return before it is over."""
        raise NotImplementedError

    def serves(self, _step: int) -> str:
        """The version that is served after that step."""
        return "v0"


class EverupRestart(Deployed, Everup):
    """Uvicorn on everup's kept socket; a replica is ready when /ready answers."""

    words: tuple[str, ...] = ("restart", "web")

    def __init__(self, label: str, count: int = 2) -> None:
        settings: dict[str, Any] = {
            "replicas": count,
            "environment": {"VERSION": "v0"},
            "probe": {"readiness": {"http": "/ready", "interval": "50ms", "timeout": "1s"}},
            "drain_timeout": f"{GRACE_S}s",
            "start_timeout": "20s",
            "restart": EAGER,
        }
        super().__init__(label, kept=True, settings=settings)
        self.count = count
        self.keeper = 0

    def missing(self) -> str | None:
        if why := super().missing():
            return why
        status, _ = command(self.program() or "", self.words[0], "--help", ends_with=None)
        return f"this everup has no {self.words[0]}" if status else None

    def root(self) -> int:
        self.keeper = self.keeper or int(self.status()["keeper"]["pid"])
        return self.keeper

    def launch(self, services: list[Service]) -> None:
        self.keeper = 0
        port = services[0].port
        super().launch([Service("web", (sys.executable, "-m", *UVICORN, "--fd", "3"), port)])
        self.wait_up()

    def edit(self, pattern: str, text: str) -> None:
        """Change the config, whole at once."""
        path = self.home / "everup.toml"
        changed, found = re.subn(pattern, lambda _: text, path.read_text(), flags=re.MULTILINE)
        if found != 1:
            raise BenchError(f"{pattern} is {found} times in the config")
        fresh = path.with_suffix(".new")
        fresh.write_text(changed)
        fresh.rename(path)

    def deploy(self, step: int) -> None:
        command(*self.argv(*self.words))


class EverupReload(EverupRestart):
    """A deploy: the environment changes in the config, then ``everup reload``."""

    words = ("reload",)

    def deploy(self, step: int) -> None:
        self.edit(r'"v\d+"', f'"v{step}"')
        super().deploy(step)

    def serves(self, step: int) -> str:
        return f"v{step}"


class EverupBroken(EverupRestart):
    """Each time a command that ends with status 1, and after it the good one again."""

    words = ("reload",)

    def __init__(self, label: str, count: int = 2) -> None:
        super().__init__(label, count)
        self.statuses: list[int] = []
        self.told: list[str] = []

    def deploy(self, step: int) -> None:
        config = self.home / "everup.toml"
        good = config.read_text()
        self.edit("^command = .*$", 'command = ["sh", "-c", "exit 1"]')
        status, text = command(*self.argv(*self.words), ends_with=None)
        self.statuses.append(status)
        self.told.append(text)
        fresh = config.with_suffix(".new")
        fresh.write_text(good)
        fresh.rename(config)

    def rolled_back(self) -> bool:
        """Whether all that are wanted run the old command and are ready, soon if not yet."""

        def back() -> bool:
            (service,) = self.status()["services"]
            states = [instance["state"] for instance in service["instances"]]
            return states == ["ready"] * self.count and len(self.workers()) == self.count

        try:
            return wait_for("rolled back", back, ROLLED_BACK_S)
        except BenchError:
            return False


class Gunicorn(Deployed):
    """``kill -HUP`` to the master: new workers, then the old ones end."""

    name = "gunicorn"
    command = "gunicorn"

    def __init__(self, label: str, *worker: str) -> None:
        super().__init__(label)
        self.worker = worker

    def program(self, name: str = "") -> str | None:
        name = name or self.command
        return shutil.which(str(Path(sys.executable).parent / name)) or shutil.which(name)

    def version(self) -> str:
        return command(self.program() or "", "--version")[1].strip()

    def launch(self, services: list[Service]) -> None:
        argv = [self.program() or "", "--workers", "2", *self.worker, "--pythonpath", str(HERE)]
        argv += ["--bind", f"127.0.0.1:{services[0].port}", "--backlog", "4096"]
        argv += ["--graceful-timeout", str(GRACE_S), "--env", "VERSION=v0"]
        self.spawn(*argv)

    def deploy(self, step: int) -> None:
        os.kill(self.root(), signal.SIGHUP)


class Pm2(Deployed):
    """Cluster mode; an instance is ready when it says so."""

    name = "PM2"
    command = "pm2"

    def program(self, name: str = "") -> str | None:
        name = name or self.command
        place = CACHE / "pm2" / "node_modules" / ".bin" / name
        return shutil.which(str(place)) or shutil.which(name)

    def missing(self) -> str | None:
        return super().missing() or (None if shutil.which("node") else "no node")

    def version(self) -> str:
        # The command itself would start a daemon in the home directory.
        package = Path(os.path.realpath(self.program() or "")).parents[1] / "package.json"
        return str(json.loads(package.read_text())["version"])

    def argv(self, *words: str) -> list[str]:
        return ["env", f"PM2_HOME={self.home}/pm2", self.program() or "", *words]

    def launch(self, services: list[Service]) -> None:
        app = {
            "name": "web",
            "script": str(HERE / "webapp.js"),
            "cwd": str(self.home),
            "exec_mode": "cluster",
            "instances": 2,
            "wait_ready": True,
            "listen_timeout": 10000,
            "kill_timeout": 1000 * GRACE_S,
            "env": {"PORT": str(services[0].port), "VERSION": "v0"},
        }
        config = self.home / "web.config.json"
        config.write_text(json.dumps({"apps": [app]}))
        self.spawn(*self.argv("start", str(config), "--no-daemon"))

    def deploy(self, step: int) -> None:
        command(*self.argv("reload", "web"))


class CircusShared(Deployed, Circus):
    """Uvicorn on circus' socket; ``words`` is what circusctl is told."""

    def __init__(self, label: str, *words: str) -> None:
        super().__init__(label)
        self.words = words

    def launch(self, services: list[Service]) -> None:
        control, events = free_ports(2)
        self.endpoint = f"tcp://127.0.0.1:{control}"
        argv = (sys.executable, "-m", *UVICORN, "--fd", "$(circus.sockets.web)")
        lines = [
            f"[circus]\ncheck_delay = {self.check_delay_s}\nendpoint = {self.endpoint}",
            f"pubsub_endpoint = tcp://127.0.0.1:{events}",
            f"[socket:web]\nhost = 127.0.0.1\nport = {services[0].port}\nbacklog = 4096",
            f"[watcher:web]\ncmd = {' '.join(argv)}\nnumprocesses = {self.count}",
            f"use_sockets = True\ncopy_env = True\ngraceful_timeout = {GRACE_S}",
            "[env:web]\nVERSION = v0",
        ]
        (self.home / "circus.ini").write_text("\n".join(lines) + "\n")
        self.spawn(self.program() or "circusd", str(self.home / "circus.ini"))

    def deploy(self, step: int) -> None:
        program = self.program("circusctl") or "circusctl"
        command(program, "--endpoint", self.endpoint, "--timeout", "60", *self.words)


def contestants() -> list[Deployed]:
    return [
        EverupRestart("everup restart (2 replicas)"),
        EverupRestart("everup restart (1 replica)", count=1),
        EverupReload("everup reload (2 replicas)"),
        Gunicorn(
            "gunicorn HUP (2 threaded workers)", "-k", "gthread", "--threads=8", "webapp:wsgi"
        ),
        Gunicorn("gunicorn HUP (2 ASGI workers)", "-k", "asgi", "webapp:app"),
        Pm2("PM2 reload (2 instances)"),
        CircusShared("circus restart (2 processes)", "restart", "web", "--waiting"),
        CircusShared("circus reload (2 processes)", "reload", "web", "--waiting"),
        EverupBroken("everup reload (broken command)"),
    ]
