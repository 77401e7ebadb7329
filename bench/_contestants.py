"""everup and its peers: how each is configured at its fastest, started, asked and ended."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from _common import BenchError, descendants, end_processes_of, free_ports

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "everup-bench"
"""Peers from PyPI live here, each in a virtual environment of its own, outside the checkout."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service: a program, its arguments, and the port that it serves on, if any."""

    name: str
    argv: tuple[str, ...]
    port: int | None = None

    def own_port(self) -> tuple[str, ...]:
        """The command when the program opens its port by itself."""
        return self.argv if self.port is None else (*self.argv, "--port", str(self.port))


class Contestant:
    """One supervisor. ``start`` returns once the command has been given, not when it is done."""

    name: ClassVar[str] = ""
    command: ClassVar[str] = ""
    stop_signal: ClassVar[int] = signal.SIGTERM

    def __init__(self, label: str = "") -> None:
        self.label = label or self.name
        self.home = Path()
        self.started: list[subprocess.Popen[bytes]] = []

    def program(self, name: str = "") -> str | None:
        return shutil.which(name or self.command)

    def missing(self) -> str | None:
        """Why it cannot take part, or None."""
        return None if self.program() else "not installed"

    def version(self) -> str:
        return ""

    def start(self, home: Path, services: list[Service]) -> None:
        """Writes the configuration into ``home`` and starts the supervisor there."""
        home.mkdir(parents=True)
        self.home = home
        self.started = []
        self.launch(services)

    def launch(self, services: list[Service]) -> None:
        raise NotImplementedError

    def spawn(self, *argv: str) -> None:
        with (self.home / "supervisor.log").open("ab") as log:
            self.started.append(
                subprocess.Popen(
                    argv,
                    cwd=self.home,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    def check(self) -> None:
        """Raises BenchError if the supervisor has already failed."""
        for process in self.started:
            if process.poll():
                log = (self.home / "supervisor.log").read_text(errors="replace")
                raise BenchError(f"{self.label} ended with {process.returncode}: {log[-2000:]}")

    def supervisors(self) -> list[int]:
        """Every process that supervises: what was started and what it started, without the
        benchmark's own programs."""
        pids = []
        for process in self.started:
            pids += [process.pid, *descendants(process.pid)]
        return [pid for pid in pids if not self._is_ours(pid)]

    def _is_ours(self, pid: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/exe").startswith(f"{self.home.parent}/bin/")
        except OSError:
            return True  # it has ended: nothing to account for

    def status_argv(self) -> list[str]:
        raise NotImplementedError

    def stop(self) -> None:
        """Ends the supervisor the way it wants to be ended, then whatever it left."""
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(self.stop_signal)
        deadline = time.monotonic() + 10
        for process in self.started:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        end_processes_of(self.home)
        self.started = []


def _output(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip()


def _package_version(package: str) -> str:
    text = _output("dpkg-query", "-W", "-f", "${Version}", package)
    return text if text[:1].isdigit() else ""


class BareLoop(Contestant):
    """fork, exec, wait in C: what no supervisor can be faster than."""

    name = "bare C loop"
    command = "true"

    def launch(self, services: list[Service]) -> None:
        for service in services:
            self.spawn(str(self.home.parent / "bin" / "respawn_loop"), *service.own_port())


class _ServiceDirectories(Contestant):
    """runit and s6: a directory for each service. Theirs run scripts are usually shell; here they
    are a C program (run.c), which saves them a millisecond. No finish script: nothing to wait for.
    """

    def write(self, services: list[Service]) -> None:
        for service in services:
            place = self.home / "services" / service.name
            place.mkdir(parents=True)
            (place / "run").symlink_to(self.home.parent / "bin" / "run")
            (place / "argv").write_bytes(b"\0".join(map(os.fsencode, service.own_port())) + b"\0")

    def version(self) -> str:
        return _package_version(self.name)


class Runit(_ServiceDirectories):
    name = "runit"
    command = "runsvdir"
    stop_signal = signal.SIGHUP

    def launch(self, services: list[Service]) -> None:
        self.write(services)
        self.spawn(self.command, str(self.home / "services"))

    def status_argv(self) -> list[str]:
        return ["sv", "status", *map(str, sorted((self.home / "services").iterdir()))]


class S6(_ServiceDirectories):
    name = "s6"
    command = "s6-svscan"

    def launch(self, services: list[Service]) -> None:
        self.write(services)
        self.spawn(self.command, str(self.home / "services"))

    def status_argv(self) -> list[str]:
        # s6-svstat takes one directory at a time.
        loop = 'for d in "$1"/*/; do s6-svstat "$d"; done'
        return ["sh", "-c", loop, "sh", str(self.home / "services")]


class Supervisor(Contestant):
    name = "supervisor"
    command = "supervisord"

    def version(self) -> str:
        return _output("supervisord", "--version")

    def launch(self, services: list[Service]) -> None:
        socket_path = self.home / "s.sock"
        lines = [
            "[supervisord]",
            "nodaemon=true",
            "user=root" if os.geteuid() == 0 else "",
            f"logfile={self.home}/supervisord.log",
            f"pidfile={self.home}/supervisord.pid",
            f"childlogdir={self.home}",
            "minfds=4096" if os.geteuid() == 0 else "",
            f"[unix_http_server]\nfile={socket_path}",
            "[rpcinterface:supervisor]",
            "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface",
            f"[supervisorctl]\nserverurl=unix://{socket_path}",
        ]
        for service in services:
            lines += [
                f"[program:{service.name}]",
                f"command={shlex.join(service.own_port())}",
                "autorestart=true\nstartsecs=0\nstopwaitsecs=2",
                "stdout_logfile=NONE\nstderr_logfile=NONE",
            ]
        (self.home / "supervisord.conf").write_text("\n".join(filter(None, lines)) + "\n")
        self.spawn(self.command, "-c", str(self.home / "supervisord.conf"))

    def status_argv(self) -> list[str]:
        return ["supervisorctl", "-c", str(self.home / "supervisord.conf"), "status"]


class Monit(Contestant):
    """Monit starts what it misses in its cycle; 1 s is its shortest. With ``http_probe`` it asks
    every service once per cycle. Services write pid files."""

    name = "monit"
    command = "monit"

    def __init__(self, label: str = "", *, http_probe: bool = False) -> None:
        super().__init__(label)
        self.http_probe = http_probe

    def version(self) -> str:
        return _package_version("monit")

    def launch(self, services: list[Service]) -> None:
        conf = self.home / "monitrc"
        lines = [
            "set daemon 1",
            f"set log {self.home}/monit.log",
            f"set pidfile {self.home}/monit.pid",
            f"set statefile {self.home}/monit.state",
            f"set idfile {self.home}/monit.id",
            f"set httpd unixsocket {self.home}/m.sock allow bench:bench",
        ]
        for service in services:
            pidfile = self.home / f"{service.name}.pid"
            argv = service.own_port()
            argv += (str(pidfile),) if service.port is None else ("--pidfile", str(pidfile))
            lines += [
                f"check process {service.name} with pidfile {pidfile}",
                # Monit waits up to 30 s for the start program to end: into the background.
                f"  start program = \"/bin/sh -c '{' '.join(argv)} >/dev/null 2>&1 &'\"",
                f"  stop program = \"/bin/sh -c 'kill -9 $(cat {pidfile})'\"",
                "  if does not exist then start",
            ]
            if self.http_probe and service.port is not None:
                lines.append(
                    f"  if failed host 127.0.0.1 port {service.port} protocol http "
                    'request "/" timeout 1 seconds then restart'
                )
        conf.write_text("\n".join(lines) + "\n")
        conf.chmod(0o600)
        reaper = str(self.home.parent / "bin" / "reaper")
        self.spawn(reaper, self.program() or self.command, "-c", str(conf), "-I")

    def status_argv(self) -> list[str]:
        return ["monit", "-c", str(self.home / "monitrc"), "summary", "-B"]


class Circus(Contestant):
    """``check_delay_s`` is how often it looks at its processes (its own default is 5 s).
    ``shared`` lets circus hold the socket and pass its descriptor."""

    name = "circus"
    command = "circusd"

    def __init__(
        self, label: str = "", *, check_delay_s: float = 0.02, shared: bool = False, count: int = 1
    ) -> None:
        super().__init__(label)
        self.check_delay_s = check_delay_s
        self.shared = shared
        self.count = count
        self.endpoint = ""

    def program(self, name: str = "") -> str | None:
        name = name or self.command
        return shutil.which(str(CACHE / "circus" / "bin" / name)) or shutil.which(name)

    def version(self) -> str:
        return _output(self.program() or "circusd", "--version")

    def launch(self, services: list[Service]) -> None:
        control, events = free_ports(2)
        self.endpoint = f"tcp://127.0.0.1:{control}"
        lines = [
            "[circus]",
            f"check_delay = {self.check_delay_s}",
            f"endpoint = {self.endpoint}",
            f"pubsub_endpoint = tcp://127.0.0.1:{events}",
        ]
        for service in services:
            argv = service.own_port()
            if self.shared:
                argv = (*service.argv, "--fd", f"$(circus.sockets.{service.name})")
                lines += [f"[socket:{service.name}]", "host = 127.0.0.1"]
                lines += [f"port = {service.port}", "backlog = 4096"]
            lines += [
                f"[watcher:{service.name}]",
                # No shell quoting: circus splits at spaces, and fills in $(...) unquoted.
                f"cmd = {' '.join(argv)}",
                f"numprocesses = {self.count}",
                f"use_sockets = {self.shared}",
                "copy_env = True\nrespawn = True\ngraceful_timeout = 1",
            ]
        (self.home / "circus.ini").write_text("\n".join(lines) + "\n")
        self.spawn(self.program() or "circusd", str(self.home / "circus.ini"))

    def status_argv(self) -> list[str]:
        program = self.program("circusctl") or "circusctl"
        return [program, "--endpoint", self.endpoint, "status"]


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{key} = {_toml(item)}" for key, item in value.items())
        return "{ " + inner + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)  # strings, numbers and booleans look alike in JSON and TOML


EAGER: dict[str, Any] = {
    "delay": "0s",
    "reset_after": "0s",
    "intensity": {"limit": 10000, "period": "10s"},
}
"""Restart settings for being killed over and over."""


class Everup(Contestant):
    """``kept``: everup opens the socket and keeps it; else the service binds its own port.
    ``settings`` are further keys of every service."""

    name = "everup"
    command = "everup"

    def __init__(
        self, label: str = "", *, kept: bool = False, settings: dict[str, Any] | None = None
    ) -> None:
        super().__init__(label)
        self.kept = kept
        self.settings = settings or {}

    def program(self, name: str = "") -> str | None:
        return shutil.which(str(Path(sys.executable).parent / (name or self.command)))

    def version(self) -> str:
        return _output(self.program() or "everup", "--version")

    def launch(self, services: list[Service]) -> None:
        lines = ["[everup]", 'state_dir = "state"']
        for service in services:
            keys: dict[str, Any] = {"command": service.own_port(), **self.settings}
            if self.kept and service.port is not None:
                keys["command"] = service.argv
                keys["listen"] = f"127.0.0.1:{service.port}"
            elif service.port is not None:
                keys["command"] = (*service.argv, "--port", "{port}")
                keys["port"] = service.port
            lines.append(f"[service.{service.name}]")
            lines += [f"{key} = {_toml(value)}" for key, value in keys.items()]
        (self.home / "everup.toml").write_text("\n".join(lines) + "\n")
        self.spawn(*self.argv("up", "-d"))

    def argv(self, *words: str) -> list[str]:
        return [self.program() or "everup", "-c", str(self.home / "everup.toml"), *words]

    def wait_up(self, limit_s: float = 60.0) -> None:
        """Waits for ``up -d``, which returns when everything is ready."""
        self.started[0].wait(limit_s)
        self.check()

    def status(self) -> dict[str, Any]:
        done = subprocess.run(
            self.argv("status", "--json"), capture_output=True, timeout=20, check=True
        )
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def supervisors(self) -> list[int]:
        status = self.status()
        return [int(status["keeper"]["pid"]), int(status["engine"]["pid"])]

    def status_argv(self) -> list[str]:
        return self.argv("status")

    def stop(self) -> None:
        if not self.started:
            return
        # up -d may still wait for something that never gets ready.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.started[0].wait(5)
        with contextlib.suppress(subprocess.TimeoutExpired, OSError):
            subprocess.run(self.argv("down"), capture_output=True, timeout=30, check=False)
        super().stop()
