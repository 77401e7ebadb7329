"""What a fork leaves to its child: one thread, the one that forked. The others are gone, in the
middle of whatever they did: the locks that they held would be held for ever, and the places,
permits and slots that they had would never come back."""

from __future__ import annotations

import os
import sys
from contextvars import ContextVar
from typing import Any
from weakref import WeakSet

_watching: WeakSet[Any] = WeakSet()


def on_fork(one: Any) -> None:
    """Call its ``forked`` in the child of every fork."""
    _watching.add(one)


def renew(lock: Any) -> bool:
    """In the child: make an ``RLock`` usable again, the same object, since closures hold it.
    Returns whether another thread held it: what it guards may then be half done."""
    if lock._is_owned():  # by the one that forked, say in a signal handler: it will release it
        return False
    held = not lock.acquire(blocking=False)
    if held:
        lock._at_fork_reinit()
    else:
        lock.release()
    return held


def frames_inside(policy: Any, name: str, value: object) -> list[Any]:
    """In the child: the variables of the guarded calls of a policy that the thread which forked is
    inside: those whose ``name`` is this object. Innermost first."""
    closures = policy.around(len), policy.around_async(len)
    codes = [getattr(one, "__code__", None) for one in closures]
    found = []
    frame: Any = sys._getframe(1)
    while frame is not None:
        if frame.f_code in codes and (names := frame.f_locals).get(name) is value:
            found.append(names)
        frame = frame.f_back
    return found


# Blocks leave no frame. A context is what each thread and task has of its own.
_blocks: ContextVar[tuple[object, ...]] = ContextVar("everup.blocks", default=())


def enter(one: object) -> None:
    """A block of it begins, in this thread or task."""
    _blocks.set((*_blocks.get(), one))


def leave(one: object) -> None:
    """The innermost block of it is over; one that began in another context is not known here."""
    blocks = _blocks.get()
    for index in range(len(blocks) - 1, -1, -1):
        if blocks[index] is one:
            _blocks.set(blocks[:index] + blocks[index + 1 :])
            return


def blocks_inside(one: object) -> int:
    """In the child: so many blocks of it the thread that forked is inside."""
    return sum(block is one for block in _blocks.get())


def _after_fork() -> None:
    for one in list(_watching):
        one.forked()


def register(after_in_child: Any) -> None:
    """``os.register_at_fork``, where there is one: elsewhere nothing forks."""
    hook = getattr(os, "register_at_fork", None)
    if hook is not None:
        hook(after_in_child=after_in_child)


register(_after_fork)
