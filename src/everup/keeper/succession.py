"""From keeper to keeper: taking over what an earlier one had, and becoming the next."""

import _thread
import contextlib
import fcntl
import os
import select
import signal
import stat
import time

from everup.keeper import estate as estates
from everup.keeper import spawn
from everup.keeper.children import Child, is_same
from everup.keeper.doomed import DOOMED
from everup.keeper.estate import Estate
from everup.keeper.strangers import own
from everup.keeper.voice import say

TYPE_CHECKING = False  # see wire
if TYPE_CHECKING:
    from everup.keeper.keeper import Keeper

LOCK = "lock"
"""Name of the one descriptor that the keeper itself cannot do without: never dropped."""
FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""Signals of the keeper that are for the engine."""
_AFTER_S = 5.0
_SIGN_S = 0.2


def read(memory: int | None) -> Estate:
    """The estate, an empty one where there is none; one that cannot be read costs a note only."""
    if memory is None:
        return Estate()
    try:
        return estates.read(memory)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        text = f"what an earlier keeper left cannot be read: {error!r}"
        say(text)
        return Estate(notes=[["everup", text]])


def sign(lock: int, pid: int | None = None) -> None:
    """Write the keeper's pid (None: ours) where who finds the lock taken looks for it. A disk that
    does not answer is waited for by a thread alone."""
    me = f"{os.getpid() if pid is None else pid}\n".encode()
    done = _thread.allocate_lock()
    done.acquire()

    def write() -> None:
        with contextlib.suppress(OSError):
            if os.pread(lock, 32, 0) != me:
                os.ftruncate(lock, 0)
                os.pwrite(lock, me, 0)
        done.release()

    try:
        _thread.start_new_thread(write, ())
    except RuntimeError:  # no thread can be had
        write()
    done.acquire(timeout=_SIGN_S)


def may_lock(fd: int) -> bool:
    """Whether it can take the lock's place, whose file was removed and made again: the keeper has
    a lock in every moment of its life."""
    with contextlib.suppress(OSError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # no more than is held by it already
        return stat.S_ISREG(os.fstat(fd).st_mode)
    return False


def inherit(keeper: "Keeper") -> None:
    """Take over the estate; the engine is told of those who ended meanwhile."""
    estate, keeper.estate = keeper.estate, Estate()
    for record in estate.children:
        try:
            child = Child.inherited(record)
            keeper.children.check_free(child.id)
        except (ValueError, KeyError, TypeError) as error:
            keeper.notes.append([str(record.get("id")), f"not taken over: {error!r}"])
            continue
        keeper.children.add_inherited(child)
        if child.ended_at:
            continue
        if child.left is not None:
            keeper.remains.resume(child)
            continue
        mine = own(child.pid)
        if not (is_same(child) if mine else keeper.strangers.take(child)):
            keeper.ended(child)
        elif child.report >= 0:
            keeper.watch_report(child)
    keeper.reap()
    if estate.after is not None:
        _wait_for(keeper, estate.after)


def _wait_for(keeper: "Keeper", pid: int) -> None:
    """No engine before the one that started us has left."""
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return
    if os.getppid() != pid:  # gone since, and its number may be another's
        os.close(fd)
        return

    def left() -> None:
        if select.select([fd], [], [], 0)[0]:
            keeper.unwatch(fd)
            os.close(fd)
            keeper.before, keeper.leave_by = -1, None
            keeper.engine_due = time.monotonic()

    keeper.watch(fd, left)
    keeper.before, keeper.leave_by = fd, time.monotonic() + _AFTER_S
    keeper.vigil.watch(pid, time.monotonic())
    keeper.engine_due = None


def judge(keeper: "Keeper", why: str) -> None:
    """The engine hangs: it is killed. Or it is dead and cannot be reaped: nobody waits for that."""
    if not keeper.vigil.dead:
        say(f"the engine hangs: {why}; killing it, another one takes over, services go on")
        keeper.kill_engine()
        return
    say(f"the engine (pid {keeper.vigil.pid}): {why}; another one does not wait for that")
    keeper.doomed.add(keeper.vigil.pid)
    keeper.vigil.stop()
    if keeper.before < 0:
        keeper.engine_ended(signal.SIGKILL)
        return
    keeper.unwatch(keeper.before)
    os.close(keeper.before)
    keeper.before, keeper.leave_by = -1, None
    keeper.engine_due = time.monotonic()


def become(keeper: "Keeper") -> None:
    """Exec ``keeper.successor``, with the children still children; returns only on failure."""
    assert keeper.successor is not None
    (argv, engine), keeper.successor = keeper.successor, None
    keeper.nursery.close()
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # until the other can take them
    with contextlib.suppress(BlockingIOError):
        keeper.on_signals()
    lock = keeper.held[LOCK]
    passed: list[int] = []
    try:
        memory, passed = estates.write(_estate(keeper))
        for fd in (lock, *passed):
            os.set_inheritable(fd, True)
        os.environ |= {DOOMED: str(keeper.doomed)} if keeper.doomed.left() else {}
        line = estates.command(argv, keeper.meta | spawn.found(), engine, lock=lock, memory=memory)
        os.execv(line[0], line)
    except Exception as error:  # whatever it is, there are children to keep
        text = f"cannot become {' '.join(map(str, argv))}: {error}"
        say(f"{text}; going on as before")
        keeper.notes.append(["everup", text])
    for fd in (lock, *passed):
        os.set_inheritable(fd, False)
    for fd in passed[:1]:
        os.close(fd)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)


def _estate(keeper: "Keeper") -> Estate:
    return Estate(
        held={name: fd for name, fd in keeper.held.items() if name != LOCK},
        children=[child.record() for child in keeper.children.known()],
        engine_starts=keeper.engine_starts,
        signal=keeper.last_signal,
        notes=keeper.notes,
    )
