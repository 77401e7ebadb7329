"""Drives a real everup: writes its config, runs its commands, looks at what it does."""

import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from everup.adapters import journal
from everup.adapters.place import Place

DEADLINE_S = 20.0
COMMAND_S = 60.0
_POLL_S = 0.02
EVERUP = str(Path(sys.executable).with_name("everup"))
_SERVER = str(Path(__file__).with_name("server.py"))
_WITHOUT_GROUPS = ("unshare", "-m", "sh", "-c", 'umount -l /sys/fs/cgroup && exec "$@"', "sh")

Json = dict[str, Any]
T = TypeVar("T")

FAST_PROBE = {"interval": "50ms", "timeout": "1s"}
SLEEP = ["sleep", "1000"]


def sh(script: str) -> list[str]:
    """A command that is a shell script; braces are everup's, so they are doubled."""
    return ["sh", "-c", script.replace("{", "{{").replace("}", "}}")]


def python(script: str, *arguments: str) -> list[str]:
    """A command that is a small Python program."""
    code = script.replace("{", "{{").replace("}", "}}")
    return [sys.executable, "-S", "-E", "-c", code, *arguments]


def toml(value: object) -> str:
    """A TOML value on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    if isinstance(value, bool | int | float | str):
        return json.dumps(value)
    raise TypeError(type(value))


@dataclass(frozen=True)
class Result:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class Own:
    """Processes of everup itself."""

    keepers: list[int]
    """The keeper, its zygote, and whom this one has born that is yet to become another."""
    engines: list[int]
    """The engine, or what it has become."""
    keeper: int
    """0: none that has signed the lock."""
    zygote: int

    @property
    def engine(self) -> int:
        return next(iter(self.engines), 0)

    def __bool__(self) -> bool:
        return bool(self.keepers or self.engines)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout_s: float = DEADLINE_S) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Everup:
    """One everup in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = directory / "everup.toml"
        self.control = directory / "control"
        self.control.mkdir()
        self.state_dir = directory / ".everup"
        self._ports: list[int] = []
        self.wrapper: tuple[str, ...] = ()
        """Runs each command of everup inside of this one."""
        # Every process of ours has this PATH, also those of services: so they can be found.
        self.mark = f"{directory}/bin"
        self.environment = os.environ | {
            "PATH": f"{self.mark}:{os.environ['PATH']}",
            "EVERUP_CONFIG": "",
        }
        del self.environment["EVERUP_CONFIG"]

    # -- config

    def write(
        self,
        services: Mapping[str, Mapping[str, Any]],
        *,
        groups: Mapping[str, Mapping[str, Any]] | None = None,
        tables: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> None:
        """Write the config; ``tables`` are further ones by header, keywords go to [everup]."""
        settings = {"observer": False} | settings
        lines = ["[everup]", *(f"{key} = {toml(value)}" for key, value in settings.items())]
        for kind, named in (("service", services), ("group", groups or {})):
            for name, table in named.items():
                lines.append(f"[{kind}.{name}]")
                lines += [f"{key} = {toml(value)}" for key, value in table.items()]
        for header, table in (tables or {}).items():
            lines.append(f"[{header}]")
            lines += [f"{key} = {toml(value)}" for key, value in table.items()]
        self.config.write_text("\n".join(lines) + "\n")
        if "state_dir" in settings:
            self.state_dir = self.directory / settings["state_dir"]

    def server(self, control: str = "", **settings: Any) -> Json:
        """A service that runs tests/e2e/server.py; ``control`` names a directory of its own."""
        directory = self.control / control
        directory.mkdir(exist_ok=True)
        return {"command": [sys.executable, "-S", "-E", _SERVER, str(directory)], **settings}

    def tell(self, name: str, text: str = "") -> Path:
        """Make a control file, whole at once."""
        path = self.control / name
        fresh = path.with_name(f".{path.name}")
        fresh.write_text(text)
        fresh.rename(path)
        return path

    def untell(self, name: str) -> None:
        (self.control / name).unlink()

    def port(self, family: int = socket.AF_INET) -> int:
        """A port that is free now."""
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        while True:
            with socket.socket(family, socket.SOCK_STREAM) as sock:
                sock.bind((host, 0))
                port = int(sock.getsockname()[1])
            if port not in self._ports:
                self._ports.append(port)
                return port

    # -- commands

    @property
    def place(self) -> Place:
        return Place.of(str(self.config), str(self.state_dir))

    def cli(self, *arguments: str, expect: int | None = 0, **options: Any) -> Result:
        """Run ``everup ARGUMENTS``; ``expect`` is its exit status (None: any)."""
        done = subprocess.run(
            [*self.wrapper, EVERUP, "-c", str(self.config), *arguments],
            env=self.environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_S,
            check=False,
            **options,
        )
        result = Result(
            done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode()
        )
        if expect is not None and result.status != expect:
            self.fail(
                f"everup {' '.join(arguments)} ended with {result.status} instead of {expect}:\n"
                f"{result.text}"
            )
        return result

    def popen(self, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        """Start ``everup ARGUMENTS`` and leave it running."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options
        argv = [*self.wrapper, EVERUP, "-c", str(self.config), *arguments]
        process = subprocess.Popen(
            argv,
            env=self.environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            **options,
        )
        return cast("subprocess.Popen[bytes]", process)

    def up(
        self,
        services: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        expect: int | None = 0,
        arguments: Sequence[str] = (),
        **settings: Any,
    ) -> Result:
        """Write the config (where one is given) and ``up -d``."""
        if services is not None:
            self.write(services, **settings)
        return self.cli("up", "-d", "--timeout", "20", *arguments, expect=expect)

    def down(self, expect: int | None = 0) -> Result:
        return self.cli("down", "--timeout", "20", expect=expect)

    def without_groups(self) -> None:
        """From now on every everup runs where no control groups are mounted."""
        if subprocess.run([*_WITHOUT_GROUPS, "true"], capture_output=True, check=False).returncode:
            pytest.skip("may not make a mount namespace")
        self.wrapper = _WITHOUT_GROUPS

    # -- everup's own processes

    def own(self) -> Own:
        """Those that run now, by their command lines: also while nobody answers."""
        engines, keepers = [], []
        for pid, command in self.processes().items():
            if "/everup/keeper/__main__.py " in command:
                keepers.append(pid)
            elif " -m everup.daemon " in command or " -m everup.cli " in command:
                engines.append(pid)
        signed = 0
        with contextlib.suppress(OSError, ValueError):
            signed = self.keeper_pid
        young = sorted(pid for pid in keepers if parent_of(pid) == signed)
        return Own(keepers, engines, signed if signed in keepers else 0, young[0] if young else 0)

    def kill(self, *pids: int) -> None:
        """kill -9 of all of them at one moment: nobody sees the end of another."""
        if len(pids) > 1:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            self.wait_for(lambda: all(map(stopped, pids)), "they are stopped")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.wait_for(lambda: not any(map(alive, pids)), "they are dead")

    def members(self) -> dict[str, list[tuple[int, int]]]:
        """The living main processes (and hooks) of each instance, told by the environment that
        they got: (run, pid) by slot. What they start themselves does not lead its session."""
        found: dict[str, list[tuple[int, int]]] = {}
        for pid in self.processes():
            with contextlib.suppress(OSError, KeyError, ValueError):
                data = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace")
                names = dict(line.partition("=")[::2] for line in data.split("\0"))
                if os.getsid(pid) == pid and alive(pid):
                    slot = found.setdefault(names["EVERUP_INSTANCE"], [])
                    slot.append((int(names["EVERUP_RUN"]), pid))
        return {slot: sorted(runs) for slot, runs in found.items()}

    # -- looking

    def request(
        self, method: str, path: str, body: object = None, timeout_s: float = DEADLINE_S
    ) -> tuple[int, bytes]:
        """Ask the API itself."""
        connection = UnixConnection(self.place.api_socket, timeout_s)
        try:
            data = None if body is None else json.dumps(body).encode()
            connection.request(method, path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def status(self) -> Json:
        """The API's status, also while the engine is being replaced."""
        until = time.monotonic() + DEADLINE_S
        while True:
            try:
                status, body = self.request("GET", "/v1/status", timeout_s=5.0)
                assert status == 200, body
                found: Json = json.loads(body)
                return found
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > until:
                    self.fail(f"the API does not answer: {error!r}")
                time.sleep(_POLL_S)

    def instances(self) -> dict[str, Json]:
        """By slot."""
        return {i["slot"]: i for service in self.status()["services"] for i in service["instances"]}

    def instance(self, slot: str) -> Json:
        return self.instances()[slot]

    def state(self, slot: str) -> str:
        return str(self.instance(slot)["state"])

    def pid(self, slot: str) -> int:
        """Of the main process, which must be there."""
        pid = self.instance(slot)["pid"]
        if pid is None:
            self.fail(f"{slot} has no process")
        return int(pid)

    def service(self, name: str) -> Json:
        found: Json = next(s for s in self.status()["services"] if s["name"] == name)
        return found

    @property
    def engine_pid(self) -> int:
        return int(self.status()["engine"]["pid"])

    @property
    def keeper_pid(self) -> int:
        return int((self.state_dir / "lock").read_text())

    def last_seq(self) -> int:
        events = self.events()
        return events[-1]["seq"] if events else 0

    def events(
        self, kind: str | None = None, subject: str | None = None, after: int = 0
    ) -> list[Json]:
        """The journal, read from its file: also while everup is down."""
        path = Path(self.place.journal)
        if not path.exists():
            return []
        entries = journal.read(
            path,
            after=after,
            limit=100_000,
            subjects=[subject] if subject else [],
            kinds=[kind] if kind else [],
        )
        return [
            {"seq": e.seq, "mono": e.mono, "kind": e.kind, "subject": e.subject, **e.payload}
            for e in entries
        ]

    def kinds(self, subject: str, after: int = 0) -> list[str]:
        """The kinds of the events of one subject, in order, their first word left out."""
        return [e["kind"].partition(".")[2] for e in self.events(subject=subject, after=after)]

    def output(self, slot: str, stream: str | None = None) -> list[str]:
        """Whole lines that an instance wrote, from its log files."""
        lines, held = [], ""
        for path in sorted(Path(self.place.logs).glob(f"{slot}.log*"), key=_rotation, reverse=True):
            try:
                data = path.read_bytes()
            except FileNotFoundError:  # rotated away just now
                continue
            for line in data.decode("utf-8", "replace").splitlines():
                _time, name, flag, text = (line + "   ").split(" ", 3)
                if stream in (None, name):
                    held += text.removesuffix("   ")
                    if flag.startswith("F"):
                        lines.append(held)
                        held = ""
        return lines

    # -- waiting

    def wait_for(self, condition: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
        """Until ``condition`` gives something true, which is returned."""
        until = time.monotonic() + deadline_s
        while True:
            found = condition()
            if found:
                return found
            if time.monotonic() > until:
                self.fail(f"not within {deadline_s:g} s: {what}")
            time.sleep(_POLL_S)

    def wait_event(
        self,
        kind: str,
        subject: str | None = None,
        after: int = 0,
        deadline_s: float = DEADLINE_S,
        **payload: Any,
    ) -> Json:
        """The first such event after ``after``."""

        def find() -> Json | None:
            found = self.events(kind, subject, after)
            return next((e for e in found if payload.items() <= e.items()), None)

        event = self.wait_for(find, f"event {kind} of {subject} {payload or ''}", deadline_s)
        assert event is not None
        return event

    def wait_state(self, slot: str, *states: str, deadline_s: float = DEADLINE_S) -> Json:
        """Until the instance is in one of the states; returns it."""
        found: dict[str, Json] = {}

        def there() -> bool:
            found.update(self.instances())
            return found[slot]["state"] in states

        self.wait_for(there, f"{slot} is {' or '.join(states)}", deadline_s)
        return found[slot]

    def wait_new_pid(self, slot: str, old: int, deadline_s: float = DEADLINE_S) -> int:
        """Until the instance is ready with another process."""

        def again() -> int:
            now = self.instance(slot)
            fresh = now["state"] == "ready" and now["pid"] not in (None, old)
            return int(now["pid"]) if fresh else 0

        return self.wait_for(again, f"{slot} is ready with another pid than {old}", deadline_s)

    # -- failing

    def fail(self, text: str) -> None:
        """End the test with everything that helps to see why."""
        pytest.fail(f"{text}\n{self.report()}", pytrace=True)

    def report(self) -> str:
        """Status, last events, everup's own log."""
        parts = [f"config:\n{self.config.read_text() if self.config.exists() else '(none)'}"]
        try:
            _, body = self.request("GET", "/v1/status", timeout_s=3.0)
            services = json.loads(body)["services"]
            rows = [json.dumps(i) for service in services for i in service["instances"]]
            parts.append("status:\n" + "\n".join(rows))
        except (OSError, http.client.HTTPException, ValueError) as error:
            parts.append(f"status: {error!r}")
        try:
            events = [json.dumps(e) for e in self.events()[-40:]]
            parts.append("events:\n" + "\n".join(events))
        except (sqlite3.Error, OSError) as error:
            parts.append(f"events: {error!r}")
        log = self.state_dir / "everup.log"
        if log.exists():
            parts.append(
                "everup.log:\n" + "\n".join(log.read_text("utf-8", "replace").splitlines()[-40:])
            )
        return "\n".join(parts)

    # -- the end

    def processes(self) -> dict[int, str]:
        """Living processes of this test, with their commands."""
        mark, found = self.mark.encode(), {}
        for name in os.listdir("/proc"):
            if not name.isdigit() or int(name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if mark in Path(f"/proc/{name}/environ").read_bytes():
                    command = Path(f"/proc/{name}/cmdline").read_bytes()
                    found[int(name)] = command.replace(b"\0", b" ").decode("utf-8", "replace")
        return found

    def groups(self) -> list[str]:
        """Control groups of this everup that are still there."""
        tag = hashlib.sha256(str(self.state_dir).encode()).hexdigest()[:10]
        found = []
        for line in Path("/proc/mounts").read_text().splitlines():
            _device, point, kind, *_ = line.split()
            if kind.startswith("cgroup"):
                found += [root for root, *_ in os.walk(point) if root.endswith(f"everup-{tag}")]
        return found

    def close(self) -> None:
        """Stop everything; nothing may be left, and nothing may have had to be killed."""
        trouble = []
        alive = False
        with contextlib.suppress(OSError, ValueError):
            pid = self.keeper_pid
            alive = pid in self.processes()
        if alive:
            done = self.cli("down", "--timeout", "20", expect=None)
            if done.status != 0:
                trouble.append(f"down failed: {done.text}")
        until = time.monotonic() + 5.0
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(_POLL_S)
        if left:
            trouble.append(f"processes are left: {left}")
            until = time.monotonic() + DEADLINE_S
            while (left := self.processes()) and time.monotonic() < until:
                for pid in left:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(_POLL_S)
        if groups := self.groups():
            trouble.append(f"control groups are left: {groups}")
            for group in groups:
                for root, *_ in os.walk(group, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(root)
        if trouble:
            pytest.fail("\n".join(trouble) + "\n" + self.report())


def _rotation(path: Path) -> int:
    """0 for the current file, then older and older."""
    return int(path.suffix[1:]) if path.suffix[1:].isdigit() else 0


def get(port: int, path: str = "/", host: str = "127.0.0.1") -> Json:
    """Who answers on a port; waits as a client would, and raises if it is refused."""
    client = http.client.HTTPConnection(host, port, timeout=DEADLINE_S)
    try:
        client.request("GET", path)
        response = client.getresponse()
        body = response.read()
        assert response.status == 200, body
        answer: Json = json.loads(body)
        return answer
    finally:
        client.close()


def alive(pid: int) -> bool:
    """Whether a process is there and is no zombie, with all of its threads: until the last one has
    ended, its descriptors are open, and connections go to a socket that nobody will ask."""
    return any(state not in b"ZX" for state in _threads(pid))


def state_of(pid: int) -> str:
    """The letter of its state; X: gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return "X"
    return stat.rpartition(b")")[2].split()[0].decode()


def parent_of(pid: int) -> int:
    """0: gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return 0
    return int(stat.rpartition(b")")[2].split()[1])


def stopped(pid: int) -> bool:
    """Whether all of its threads are stopped, or it is gone."""
    return all(state in b"TZX" for state in _threads(pid))


def _threads(pid: int) -> list[bytes]:
    """The letter of the state of each of its threads; none: gone."""
    states, tasks = [], Path(f"/proc/{pid}/task")
    try:
        threads = os.listdir(tasks)
    except OSError:
        return []
    for thread in threads:
        with contextlib.suppress(OSError):
            stat = (tasks / thread / "stat").read_bytes()
            states.append(stat.rpartition(b")")[2].split()[0])
    return states


def stop(pid: int) -> None:
    """SIGSTOP; returns once it is stopped."""
    os.kill(pid, signal.SIGSTOP)
    until = time.monotonic() + DEADLINE_S
    while not stopped(pid):
        assert time.monotonic() < until
        time.sleep(_POLL_S)
