"""What a process of a singleton is started with beyond what any other gets.

Its keeper kills it when its time is over. Should keeper and engine be killed at one moment, nobody
would; so it gets a fuse: the reading end of a pipe whose writing end keeper and engine hold alone.
When the last of them is dead, the kernel itself sends SIGKILL to the process group.
"""

import contextlib
import os
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Final

from everup.model.action import Spawn

FUSE: Final = "fuse:"
"""Names of the writing ends begin so, ``fuse:SLOT:RUN``, where the keeper holds them."""
_FIRST: Final = 3


def fenced(request: Mapping[str, Any], action: Spawn) -> dict[str, Any]:
    """Give the request of a spawn with the fencing token, and the time at which the keeper kills
    what it has started; as it was where the service is no singleton."""
    if not action.fence:
        return dict(request)
    token = {"EVERUP_FENCE": str(action.fence)}
    return {**request, "env": request["env"] | token, "until": action.until}


@contextlib.contextmanager
def fuse(
    request: MutableMapping[str, Any],
    held: Mapping[int, str],
    given: MutableMapping[int, int],
    hold: MutableMapping[str, int],
    of: str,
) -> Iterator[None]:
    """Have a process of a singleton get a fuse, behind its sockets; ``of`` is ``SLOT:RUN``. Raises
    ``OSError`` where no pipe is to be had."""
    if not request.get("until"):
        yield
        return
    read, write = os.pipe2(os.O_CLOEXEC)
    request["fuse"] = number = max(held, default=_FIRST - 1) + 1
    given[number] = read  # closed once it was sent
    hold[FUSE + of] = write
    try:
        yield
    finally:
        os.close(write)


def keep(held: MutableMapping[str, int], children: Sequence[Mapping[str, Any]]) -> None:
    """Leave the fuses of living processes to the client, which has its own of each: what is left in
    ``held`` is of nobody any more."""
    living = {child["id"].partition(":")[2] for child in children if "exit" not in child}
    for name in [n for n in held if n.startswith(FUSE) and n.removeprefix(FUSE) in living]:
        os.close(held.pop(name))
