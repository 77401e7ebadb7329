"""Faults of the machine under a real everup, and a client that sees whether services go on."""

import contextlib
import http.client
import os
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import pytest
from _everup import COMMAND_S, EVERUP, Everup, alive, get

_ASK_EVERY_S = 0.02
SOON = {
    "jitter": "none", "delay": "10ms", "max_delay": "100ms",
    "intensity": {"limit": 1000, "period": "1s"},
}  # fmt: skip


class Client:
    """Asks a port for as long as the block lasts, a connection each; ``check`` is where it says
    what it saw."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.failures: list[str] = []
        self.pids: dict[int, int] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Client":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        until = time.monotonic() + 5  # a block can be over before the second answer
        while not self.failures and sum(self.pids.values()) < 2 and time.monotonic() < until:
            time.sleep(_ASK_EVERY_S)
        self._end.set()
        self._thread.join()
        if error is None:
            self.check()

    def _run(self) -> None:
        while not self._end.wait(_ASK_EVERY_S):
            try:
                pid = int(get(self.port)["pid"])
            except (OSError, http.client.HTTPException, ValueError, AssertionError) as error:
                if len(self.failures) < 20:
                    self.failures.append(f"{time.monotonic():.3f} {error!r}")
            else:
                self.pids[pid] = self.pids.get(pid, 0) + 1

    def check(self) -> None:
        """Every connection was answered, by one and the same process."""
        assert not self.failures
        assert len(self.pids) == 1, self.pids
        assert sum(self.pids.values()) > 1


class Pair:
    """Two services: ``web`` must never notice anything, ``lab`` is killed again and again."""

    def __init__(self, everup: Everup, **settings: object) -> None:
        self.everup = everup
        self.web_port, self.lab_port = everup.port(), everup.port()
        probe = {
            "readiness": {"http": "/readyz", "interval": "100ms", "timeout": "5s"},
            "liveness": {"http": "/healthz", "interval": "100ms", "timeout": "5s"},
        }
        self.services = {
            "web": everup.server("web", listen=f"127.0.0.1:{self.web_port}", probe=probe),
            "lab": everup.server("lab", listen=f"127.0.0.1:{self.lab_port}", restart=SOON),
            "off": everup.server("off"),
            "more": everup.server("more"),
        }  # fmt: skip
        self.services["web"] |= settings
        everup.write(self.services, metrics_interval="1s", storm_brake={"limit": 1000})

    def up(self, up: Callable[[], object] | None = None) -> "Pair":
        (up or self.everup.up)()
        self.web = self.everup.pid("web.1")
        self.lab = self.everup.pid("lab.1")
        self.keeper = self.everup.keeper_pid
        self.engine = self.everup.engine_pid
        self.everup.cli("stop", "off")
        return self

    def crash(self) -> int:
        """Kill lab as it is, and wait for its successor, which is seen by a client: everup itself
        need not be able to tell. Returns the pid."""
        old = self.lab
        os.kill(old, signal.SIGKILL)
        self.lab = int(
            self.everup.wait_for(lambda: answered(self.lab_port, old), "lab serves again")
        )
        return self.lab

    def kill_engine(self) -> int:
        """kill -9, and wait for the next one to answer."""
        old = self.engine
        os.kill(old, signal.SIGKILL)
        self.everup.wait_for(lambda: not alive(old), "the engine is gone")
        self.engine = self.everup.engine_pid
        assert self.engine != old
        return self.engine

    def check(self, *, run: int, engine: bool = True) -> None:
        """Nobody lost, nobody restarted without reason, what is off stays off, no everup process
        has died."""
        now = self.everup.instances()
        found = {
            "web": (now["web.1"]["pid"], now["web.1"]["state"], now["web.1"]["restarts"]),
            "lab": (now["lab.1"]["pid"], now["lab.1"]["run"]),
            "off": (now["off.1"]["state"], now["off.1"]["want"]),
            "keeper": (self.everup.keeper_pid, alive(self.keeper)),
            "engine": self.everup.engine_pid if engine else 0,
        }
        expected = {
            "web": (self.web, "ready", 0),
            "lab": (self.lab, run),
            "off": ("stopped", False),
            "keeper": (self.keeper, True),
            "engine": self.engine if engine else 0,
        }
        if found != expected:
            self.everup.fail(f"{found} instead of {expected}")


def answered(port: int, old: int) -> int:
    """Who answers, if it is somebody new."""
    with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
        pid = int(get(port)["pid"])
        return 0 if pid == old else pid
    return 0


def run(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def fill(directory: Path) -> Path:
    """Take all the room that is left; returns the file that has it."""
    ballast = directory / "ballast"
    with ballast.open("ab", 0) as file:
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"\0" * size)
    return ballast


@contextlib.contextmanager
def small_disk(directory: Path, size: str = "4m") -> Iterator[Path]:
    """A tmpfs at ``directory``, as root."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    directory.mkdir(exist_ok=True)
    if not run(
        "mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "everup-test", str(directory)
    ):
        pytest.skip("may not mount")
    try:
        yield directory
    finally:
        run("umount", "-l", str(directory))


@contextlib.contextmanager
def file_system(directory: Path, image: Path) -> Iterator[Path]:
    """An ext4 at ``directory``, as root."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    directory.mkdir(exist_ok=True)
    with image.open("wb") as file:
        file.truncate(16 << 20)
    if not run("mkfs.ext4", "-q", str(image)) or not run(
        "mount", "-o", "loop", str(image), str(directory)
    ):
        pytest.skip("may not mount an ext4")
    try:
        yield directory
    finally:
        run("umount", "-l", str(directory))


@contextlib.contextmanager
def frozen(directory: Path) -> Iterator[None]:
    """Whoever writes to this file system waits, and cannot be killed, as with a volume that does
    not answer. It thaws by itself should this process be killed."""
    thaw = f"trap '' INT TERM; sleep 90; fsfreeze -u {shlex.quote(str(directory))}"
    guard = subprocess.Popen(["sh", "-c", thaw], start_new_session=True)
    if not run("fsfreeze", "-f", str(directory)):
        os.killpg(guard.pid, signal.SIGKILL)
        guard.wait()
        pytest.skip("this machine freezes no file system")
    try:
        yield
    finally:
        run("fsfreeze", "-u", str(directory))
        os.killpg(guard.pid, signal.SIGKILL)
        guard.wait()


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """No file in it can be written, made or deleted, by nobody, also one that is open already."""
    things = [p for p in [directory, *directory.rglob("*")] if p.is_dir() or p.is_file()]
    if not run("chattr", "+i", *map(str, things)):
        pytest.skip("no chattr")
    try:
        with pytest.raises(OSError, match="not permitted"):
            (directory / "try").touch()
        yield
    finally:
        assert run("chattr", "-i", *map(str, things))


_CLOCK = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long long *offset;

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("CLOCK_OFFSET");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(0, 8, PROT_READ, MAP_SHARED, fd, 0);
    if (page != MAP_FAILED) offset = page;
    close(fd);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, clock, now);
    if (!result && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *offset;
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    now->tv_sec = t.tv_sec;
    now->tv_usec = t.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    if (out) *out = t.tv_sec;
    return t.tv_sec;
}
"""


class WallClock:
    """The wall clock of all processes of an everup, but not of its services."""

    def __init__(self, everup: Everup) -> None:
        directory = everup.directory
        source, library = directory / "clock.c", directory / "clock.so"
        source.write_text(_CLOCK)
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None or not run(
            compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source)
        ):
            pytest.skip("no C compiler")
        self._offset = directory / "offset"
        self.step(0)
        everup.environment |= {"LD_PRELOAD": str(library), "CLOCK_OFFSET": str(self._offset)}

    def step(self, hours: float) -> None:
        """So far from the true time, from now on."""
        with self._offset.open("r+b" if self._offset.exists() else "wb", 0) as file:
            file.write(struct.pack("=q", int(hours * 3600)))


class Space:
    """Everup in a mount namespace of its own, in which file systems can be covered."""

    def __init__(self, everup: Everup) -> None:
        if os.getuid() != 0 or not run("unshare", "-m", "true"):
            pytest.skip("may not make a mount namespace")
        self.everup = everup

    def up(self, script: str = "") -> None:
        """``everup up -d`` in a new one, after ``script``."""
        line = [EVERUP, "-c", str(self.everup.config), "up", "-d", "--timeout", "20"]
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", f'{script}\nexec "$@"', "sh", *line],
            env=self.everup.environment,
            cwd=self.everup.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_S,
            check=False,
        )
        if done.returncode:
            self.everup.fail(f"up: {done.stderr.decode()}")

    @contextlib.contextmanager
    def covered(self, path: str) -> Iterator[None]:
        """There is nothing at ``path`` for it and its services."""
        assert self._run("mount", "-t", "tmpfs", "none", path)
        try:
            yield
        finally:
            self.uncover(path)

    def uncover(self, path: str) -> None:
        # umount(8) wants to read /proc first.
        code = f"import ctypes; assert ctypes.CDLL(None).umount2({path.encode()!r}, 2) == 0"
        assert self._run(sys.executable, "-S", "-E", "-c", code)

    def _run(self, *command: str) -> bool:
        return run("nsenter", "-m", "-t", str(self.everup.keeper_pid), *command)


def mounts() -> list[tuple[str, str]]:
    """(mount point, type)"""
    rows = Path("/proc/mounts").read_text().splitlines()
    return [(row.split()[1], row.split()[2]) for row in rows]
