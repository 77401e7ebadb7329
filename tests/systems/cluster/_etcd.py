"""Three members of Debian's etcd on loopback, to be killed, stopped and started again."""

import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from _debian import libraries, unpacked


class Members:
    """A cluster of etcd. ``flags``: more for each member."""

    def __init__(self, folder: Path, count: int = 3, flags: Sequence[str] = ()) -> None:
        self._root = unpacked("etcd", ["etcd-server", "etcd-client"])
        self._folder = folder
        self._flags = flags
        self.ports = _free(2 * count)
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self.scheme = "https" if any("--cert-file" in flag for flag in flags) else "http"
        for number in range(count):
            self.start(number)

    @property
    def urls(self) -> tuple[str, ...]:
        half = len(self.ports) // 2
        return tuple(f"{self.scheme}://127.0.0.1:{port}" for port in self.ports[:half])

    def start(self, number: int) -> None:
        half = len(self.ports) // 2
        peers = [f"http://127.0.0.1:{port}" for port in self.ports[half:]]
        whole = ",".join(f"m{n}={peer}" for n, peer in enumerate(peers))
        argv = [
            str(self._root / "usr/bin/etcd"), "--name", f"m{number}",
            "--data-dir", str(self._folder / f"m{number}"),
            "--listen-client-urls", self.urls[number],
            "--advertise-client-urls", self.urls[number],
            "--listen-peer-urls", peers[number],
            "--initial-advertise-peer-urls", peers[number],
            "--initial-cluster", whole, "--initial-cluster-state", "new",
            "--log-level", "error", *self._flags,
        ]  # fmt: skip
        env = {**os.environ, "LD_LIBRARY_PATH": libraries(self._root)}
        log = open(self._folder / f"m{number}.log", "ab")  # noqa: SIM115
        with log:
            self._running[number] = subprocess.Popen(argv, env=env, stdout=log, stderr=log)

    def signal(self, number: int, what: signal.Signals) -> None:
        self._running[number].send_signal(what)

    def kill(self, number: int) -> None:
        self.signal(number, signal.SIGKILL)
        self._running[number].wait()

    def leader(self) -> int:
        """Give the number of the member that leads."""
        for number, url in enumerate(self.urls):
            if self._running[number].poll() is None:
                found = _post(f"{url}/v3/maintenance/status", {})
                if found.get("leader") == found["header"]["member_id"]:
                    return number
        raise AssertionError("etcd has no leader")

    def wait(self) -> None:
        """Wait until each member answers, and one leads."""
        by = time.monotonic() + 30
        while True:
            try:
                for url in self.urls:
                    _post(f"{url}/v3/kv/range", {"key": "AA=="})
                return
            except OSError:
                if time.monotonic() > by:
                    raise
                time.sleep(0.05)

    def ctl(self, *words: str) -> str:
        """Run etcdctl."""
        env = {**os.environ, "LD_LIBRARY_PATH": libraries(self._root), "ETCDCTL_API": "3"}
        argv = [str(self._root / "usr/bin/etcdctl"), "--endpoints", self.urls[0], *words]
        return subprocess.run(argv, env=env, check=True, capture_output=True, text=True).stdout

    def close(self) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.send_signal(signal.SIGCONT)
                process.wait()


@contextmanager
def members(folder: Path, count: int = 3, flags: Sequence[str] = ()) -> Iterator[Members]:
    """Run a cluster of etcd whose members answer."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Members(folder, count, flags)
    try:
        if cluster.scheme == "http":
            cluster.wait()
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


def _post(url: str, body: dict[str, object]) -> dict[str, object]:
    request = urllib.request.Request(url, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=2) as answer:
        found: dict[str, object] = json.load(answer)
    return found


def _free(count: int) -> list[int]:
    held = [socket.socket() for _ in range(count)]
    try:
        for sock in held:
            sock.bind(("127.0.0.1", 0))
        return [int(sock.getsockname()[1]) for sock in held]
    finally:
        for sock in held:
            sock.close()
