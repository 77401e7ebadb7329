"""A writer of the journal to be killed: ``PATH ROUNDS`` kills it at random moments, ``PATH each``
before and after each statement in turn. Prints one line of JSON per round.

It forks, so that a round costs no start of Python."""

import contextlib
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from everup.adapters import _journal_disk as disks
from everup.adapters import _journal_file as files
from everup.adapters import journal as journals
from everup.adapters.journal import Journal
from everup.model.action import Record
from everup.model.journal import Kind

V1 = files._MIGRATIONS[0] + "PRAGMA user_version = 1;"


def forked(work: Callable[[int], None], kill_after_s: float | None) -> tuple[int, list[int]]:
    """Status of the child, and the numbers that it had been told were written."""
    out, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(out)
        with contextlib.suppress(BaseException):
            work(told)
            os._exit(0)
        os._exit(1)
    os.close(told)
    if kill_after_s is not None:
        time.sleep(kill_after_s)
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(out, "rb") as stream:
        data = stream.read()
    status = os.waitpid(pid, 0)[1]
    return status, [int(word) for word in data.split(b"\n")[:-1]]


def writer(path: Path, most: int) -> Callable[[int], None]:
    def work(told: int) -> None:
        disks._CHECKPOINT_EVERY = 20
        journal = Journal(path, lambda _text: None)
        for n in range(most):
            records = [Record(Kind.READY, f"web.{i}", {"n": n}, durable=n % 7 == 0) for i in (1, 2)]
            journal.append(records[: 1 + n % 2])
            os.write(told, b"%d\n" % journal.last_seq)
            if n % 11 == 0:
                journal.retry()
            if n % 29 == 0:
                journal.prune(1e9)

    return work


def killed_at(step: int, work: Callable[[int], None]) -> Callable[[int], None]:
    """Kill it as statement number ``step`` begins."""

    def run(told: int) -> None:
        left = step
        connect = sqlite3.connect

        def traced(_statement: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        def connecting(*args: Any, **options: Any) -> sqlite3.Connection:
            db = connect(*args, **options)
            db.set_trace_callback(traced)
            return db

        sqlite3.connect = connecting  # type: ignore[assignment]
        work(told)

    return run


def verdict(path: Path, written: list[int]) -> dict[str, object]:
    said: list[str] = []
    last = max(written, default=0)
    before = [e.seq for e in journals.read(path, limit=10**6)] if path.exists() else []
    assert before == sorted(set(before))
    journal = Journal(path, said.append)
    after = [e.seq for e in journals.read(path, limit=10**6)]
    journal.append([Record(Kind.READY, "web.9", {})])
    state = journal.latest() == journals.latest(path)
    journal.close()
    db = sqlite3.connect(path)
    checked = db.execute("PRAGMA integrity_check").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    db.close()
    return {
        "written": last,
        "missing": len(set(range(1, last + 1)) - (set(before) & set(after))),
        "state": state,
        "set_aside": journal.set_aside is not None,
        "degraded": journal.degraded,
        "check": checked,
        "version": version,
        "events": len(after),
        "said": said,
    }


def at_random(path: Path, rounds: int) -> None:
    for n in range(rounds):
        _, written = forked(writer(path, 10**6), random.uniform(0.002, 0.05))
        print(json.dumps({"round": n, **verdict(path, written)}), flush=True)


def each(directory: Path) -> None:
    """First a new journal, then one of version 1 with events."""
    for kind in ("new", "v1"):
        for step in range(200):
            path = directory / f"{kind}-{step}.db"
            if kind == "v1":
                db = sqlite3.connect(path, isolation_level=None)
                db.executescript("PRAGMA journal_mode = WAL;" + V1)
                db.execute(
                    "INSERT INTO event VALUES (1, 1, 1, 'b', 'instance.ready', 'web.1', '{}')"
                )
                db.close()
            status, written = forked(killed_at(step, writer(path, 6)), None)
            print(json.dumps({"kind": kind, "step": step, **verdict(path, written)}), flush=True)
            if status == 0:
                break
        else:
            raise SystemExit("never ran through")


if __name__ == "__main__":
    if sys.argv[2] == "each":
        each(Path(sys.argv[1]))
    else:
        at_random(Path(sys.argv[1]), int(sys.argv[2]))
