"""Several everups on one machine, each in a directory of its own, as machines of a cluster."""

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from _etcd import Members
from _everup import Everup

WITNESS = str(Path(__file__).with_name("witness.py"))
Line = tuple[float, str, int, int]
"""CLOCK_BOOTTIME, node, token, pid."""


class Nodes:
    """Machines ``n1``, ``n2``, ... of one cluster with one singleton, ``db``: a witness that writes
    its token and the time into a file that all share."""

    def __init__(self, count: int, folder: Path, etcd: Members, **cluster: Any) -> None:
        self.log = folder / "witness.log"
        self.log.touch()
        self.log.chmod(0o666)
        self.names = [f"n{number + 1}" for number in range(count)]
        self.of: dict[str, Everup] = {}
        times = {"ttl": "3s", "loop_wait": "500ms", "retry_timeout": "1s"}
        for name in self.names:
            directory = folder / name
            directory.mkdir(mode=0o755)
            directory.chmod(0o755)
            node = self.of[name] = Everup(directory)
            table = {
                "name": folder.name.replace("_", "-"),
                "node": name,
                "etcd": list(etcd.urls),
                **times,
                **cluster,
            }
            node.write(self.services(name), tables={"cluster": table}, observer=True)

    def services(self, name: str) -> Mapping[str, Mapping[str, Any]]:
        argv = [sys.executable, "-S", "-E", WITNESS, str(self.log), name]
        return {"db": {"command": argv, "singleton": True, "stop_timeout": "1s"}}

    def up(self, *names: str) -> None:
        for name in names or self.names:
            self.of[name].up()

    def lines(self) -> list[Line]:
        """All that witnesses have written."""
        found = []
        for line in self.log.read_text().splitlines():
            at, node, token, pid = line.split()
            found.append((float(at), node, int(token), int(pid)))
        return found

    def owner(self, timeout_s: float = 20.0, *, other_than: str = "", after: float = 0.0) -> Line:
        """Wait until somebody serves after that time (0: from now on); gives its first line."""
        until = time.monotonic() + timeout_s
        after = after or time.clock_gettime(time.CLOCK_BOOTTIME)
        while True:
            for line in self.lines():
                if line[1] != other_than and line[0] > after:
                    return line
            if time.monotonic() > until:
                some = self.of[self.names[0]]
                some.fail("nobody owns db\n" + "\n".join(n.report() for n in self.of.values()))
            time.sleep(0.02)

    def check_one_owner(self) -> None:
        """No two processes have written at the same time, and no token came after a newer one."""
        spans: dict[tuple[str, int, int], list[float]] = {}
        newest = 0
        for at, node, token, pid in sorted(self.lines()):
            assert token >= newest, f"{node} wrote by token {token} after {newest}"
            newest = token
            spans.setdefault((node, token, pid), [at, at])[1] = at
        order = sorted((first, last, who) for who, (first, last) in spans.items())
        for (_, last, who), (first, _, other) in pairwise(order):
            assert last < first, f"{who} and {other} served at the same time, {last - first:.3f} s"

    def cluster(self, name: str) -> dict[str, Any]:
        """How the cluster stands, as that machine shows it, once it is a member."""

        def seen() -> dict[str, Any] | None:
            said = self.of[name].cli("cluster", "--json", expect=None)
            found: dict[str, Any] = json.loads(said.out) if said.out else {}
            return found if found.get("member") else None

        found = self.of[name].wait_for(seen, f"{name} is a member")
        assert found is not None
        return found

    def joined(self) -> None:
        """Wait until each machine is a member."""
        for name in self.names:
            if self.of[name].processes():
                self.cluster(name)

    def kill_everything(self, name: str) -> float:
        """kill -9 of everything of a machine at one moment, as if its power went; gives when."""
        node = self.of[name]
        pids: Sequence[int] = list(node.processes())
        at = time.clock_gettime(time.CLOCK_BOOTTIME)
        node.kill(*pids)
        return at

    def close(self) -> None:
        with ExitStack() as all_of_them:  # also where one of them has something to complain of
            for node in self.of.values():
                all_of_them.callback(node.close)


@contextmanager
def nodes(count: int, etcd: Members, **cluster: Any) -> Iterator[Nodes]:
    """Machines that are not up yet, down at the end."""
    folder = Path(tempfile.mkdtemp(prefix="everup-cluster-"))
    os.chmod(folder, 0o755)
    try:
        found = Nodes(count, folder, etcd, **cluster)
        try:
            yield found
        finally:
            found.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def observers(node: Everup) -> list[int]:
    """The pids of a machine's observer."""
    return [pid for pid, line in node.processes().items() if " -m everup.observer " in line]
