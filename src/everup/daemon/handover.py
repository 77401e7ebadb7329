"""When the keeper was killed: the engine starts another and leaves everything to it."""

import errno
import fcntl
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from everup.adapters import trusted
from everup.adapters.census import census
from everup.adapters.keeper_client import KeeperClient
from everup.keeper import estate as estates
from everup.keeper.doomed import is_doomed
from everup.keeper.estate import Record

_UNBORN_S = 2.0
_GONE_S = 2.0
_LOOK_S = 0.01
_TRY_S = 20.0
_started: list[subprocess.Popen[bytes]] = []
"""Kept, so that nobody waits for them: they outlive us."""


def start_keeper(
    client: KeeperClient, *, hello: Mapping[str, Any], log: Callable[[str], None]
) -> int:
    """Start a keeper that takes over all that the one before it held; returns its pid.

    Called once the keeper is gone and the engine has let go of its journal, its log files and its
    probes. The new keeper waits for this process to end (5 s, then it kills it) and then starts
    an engine. Blocks, for up to two seconds each, until the old keeper is quite gone and who was
    just being born is born. ``hello``: the first message of the keeper that is gone; ``log``
    takes a line for people.

    Raises ``OSError`` when it cannot be started; then nothing has changed, and it may be tried
    again. ``BlockingIOError`` means that this engine should only leave: its keeper lives after
    all, or another everup has taken the lock.
    """
    _wait_gone(hello["keeper"])
    meta = dict(hello["meta"]) | dict(hello["found"])
    missing = _unanswered(client, hello, log)
    for record in missing:
        log(f"taking {record['id']} along (pid {record['pid']}): its start was not yet confirmed")
    estate = client.estate(
        engine_starts=int(hello["engine_starts"]), after=os.getpid(), more=missing
    )
    lock = _lock(client, meta["state_dir"])
    try:
        memory, passed = estates.write(estate)
        try:
            line = estates.command(hello["argv"], meta, hello["engine"], lock=lock, memory=memory)
            process = subprocess.Popen(line, pass_fds=(lock, *passed), start_new_session=True)
        finally:
            os.close(memory)
    finally:
        os.close(lock)
    _started.append(process)
    return process.pid


def _wait_gone(keeper: int) -> None:
    """Its descriptors are closed some time before its children get another parent."""
    deadline = time.monotonic() + _GONE_S
    while os.getppid() == keeper and not is_doomed(keeper):
        if time.monotonic() > deadline:
            raise BlockingIOError(errno.EAGAIN, f"the keeper (pid {keeper}) still lives")
        time.sleep(_LOOK_S)


def can_run(argv: Sequence[str], engine: Sequence[str] = (), version: str = "") -> str | None:
    """Try the keeper that ``argv`` (interpreter, options, file) names, and its engine, before the
    keeper that runs is asked to become it; what is wrong, None: nothing. ``version``: what the
    engine is expected to be."""
    problem, _ = _try(argv)
    if problem is not None:
        return f"its keeper: {problem}"
    problem, said = _try(engine) if engine else (None, version)
    if problem is None and version and said != version:
        # It is found through the environment of the keeper, not through that of who asks.
        problem = f"what would be started is {said or 'unknown'}, not {version}"
    return problem


def _try(words: Sequence[str]) -> tuple[str | None, str]:
    """What is wrong, and what it said."""
    try:
        done = subprocess.run([*words, "--try"], capture_output=True, timeout=_TRY_S, check=False)
    except subprocess.TimeoutExpired:
        return f"it does not end within {_TRY_S:g} s", ""
    except OSError as error:
        return str(error), ""
    if done.returncode == 0:
        return None, done.stdout.decode(errors="replace").strip()
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    return (lines[-1] if lines else f"it ended with status {done.returncode}"), ""


def _lock(client: KeeperClient, state_dir: str) -> int:
    """A descriptor of the locked file, ours to close."""
    held = client.held_fd("lock")
    if held is not None:
        return os.dup(held)
    lock = trusted.open_file(os.path.join(state_dir, "lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(lock)
        raise
    return lock


def _unanswered(
    client: KeeperClient, hello: Mapping[str, Any], log: Callable[[str], None]
) -> list[Record]:
    """Processes that the keeper started and died before it could say so.

    A probe's command is not looked for: nobody waits for its answer any more.
    """
    asked = {
        (meta["slot"], meta["run"]): (child_id, meta)
        for child_id, meta in reversed(client.unanswered.items())
        if meta.get("run") is not None
    }
    if not asked:
        return []
    deadline = time.monotonic() + _UNBORN_S
    while _unborn(hello) and time.monotonic() < deadline:
        time.sleep(_LOOK_S)  # between fork and exec it cannot be told from others
    known = client.pids()
    records = []
    state_dir = hello["meta"]["state_dir"]
    for one in census(state_dir):
        if one.leads and one.pid not in known and (one.slot, one.run) in asked:
            child_id, meta = asked[one.slot, one.run]
            if not client.asked_for(child_id, one.pid, state_dir):
                log(f"pid {one.pid} calls itself {one.slot} and is not: it is left alone")
                continue
            del asked[one.slot, one.run]
            records.append(client.born(child_id, meta, one.pid, one.start))
    return records


def _unborn(hello: Mapping[str, Any]) -> bool:
    """Whether a process of the dead keeper is left: a copy of it that is yet to become another."""
    first = "\0".join(hello["argv"]).encode() + b"\0"
    last = "\0".join(["--", *hello["engine"]]).encode() + b"\0"
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid != os.geteuid():
                    continue  # whatever it calls itself
                with open(f"/proc/{name}/cmdline", "rb", 0) as file:
                    line = file.readall()
            except OSError:
                continue
            if line.startswith(first) and line.endswith(last):
                return True
    return False
