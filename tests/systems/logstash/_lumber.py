"""A real Lumberjack server: go-lumber's, in a small program that is built from the Go proxy."""

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _debian import MissingError, cache

SOURCE = Path(__file__).with_name("receiver")


def wait_for(condition: Callable[[], Any], what: str, deadline_s: float = 30.0) -> Any:
    until = time.monotonic() + deadline_s
    while not (found := condition()):
        assert time.monotonic() < until, f"not within {deadline_s:g} s: {what}"
        time.sleep(0.02)
    return found


def program() -> Path:
    """Give the server's program; build it where it is not there."""
    texts = [SOURCE / "main.go", SOURCE / "go.mod"]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in texts)).hexdigest()[:10]
    home = cache() / f"go-lumber-{digest}"
    with open(cache() / "go-lumber.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "receiver").exists():
            go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
            if go is None:
                raise MissingError("the Lumberjack server is built with Go: install Go 1.22")
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(SOURCE, home)
            argv = [go, "build", "-mod=mod", "-o", "receiver", "."]
            done = subprocess.run(argv, cwd=home, capture_output=True, text=True, check=False)
            if done.returncode:
                raise MissingError(f"{' '.join(argv)}: {done.stderr[-800:]}")
    return home / "receiver"


class Lumber:
    """One server on a port of its own. What it took outlives it."""

    def __init__(self, folder: Path, tls: Path | None = None) -> None:
        self.out = folder / "events"
        self._tls = tls
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = int(sock.getsockname()[1])
        self.host = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Lumber":
        argv = [str(program()), "-bind", self.host, "-out", str(self.out)]
        argv += ["-tls", str(self._tls)] if self._tls else []
        environment = {"PATH": os.environ["PATH"]}
        self.process = subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL)

        def listens() -> bool:
            assert self.process is not None
            assert self.process.poll() is None
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(listens, "the server listens")
        return self

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def took(self, dataset: str = "everup.events") -> list[tuple[str, int]]:
        """Give id and number of each event, as it came."""
        try:
            lines = [line.split() for line in self.out.read_text().splitlines()]
        except FileNotFoundError:
            return []
        return [(name, int(number)) for told, name, number in lines if told == dataset]
