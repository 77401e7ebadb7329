"""What one keeper leaves to the next: a memory file that lists descriptors and children.

It is inherited over exec like every descriptor that it names, each under its number. The one form
for all takings-over: by a keeper that execs newer code, by one that the engine starts after its
keeper was killed, and by one that ``everup up`` starts after both were.
"""

import json
import os
from collections.abc import Sequence

TYPE_CHECKING = False
"""``typing`` itself is not loaded: it is a tenth of what each fork of the keeper has to copy."""
if TYPE_CHECKING:
    from typing import Any

Record = dict[str, "Any"]
"""A child: ``id``, ``pid``, ``start`` (ticks since boot), ``leader`` of its session and
``leader_start``, ``cgroup``, ``meta``; and where it applies ``uid``, ``exit`` (a report that nobody
has acknowledged), ``report`` (descriptor), ``failed``, ``signalled``, ``respawn``, ``rest`` (the
signal for whom its main process leaves), ``left`` (a report that it has left somebody)."""


class Estate:
    """All that a keeper knows. Descriptors are numbers of this process."""

    __slots__ = ("after", "children", "engine_starts", "held", "notes", "signal")

    def __init__(
        self,
        held: dict[str, int] | None = None,
        children: Sequence[Record] = (),
        engine_starts: int = 0,
        signal: int | None = None,
        after: int | None = None,
        notes: Sequence[Sequence[str]] = (),
    ) -> None:
        self.held = {} if held is None else held
        self.children = children
        self.engine_starts = engine_starts
        self.signal = signal
        """The wish to end that was last heard, for the next engine."""
        self.after = after
        """Pid of an engine that is about to leave: none is to be started before it has."""
        self.notes = notes
        """(subject, text): what could not be taken over."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Estate) and self.record() == other.record()

    __hash__ = None  # type: ignore[assignment]

    def record(self) -> Record:
        """Show it as plain data."""
        return {name: getattr(self, name) for name in self.__slots__}


def command(
    argv: Sequence[str], meta: Record, engine: Sequence[str], *, lock: int, memory: int
) -> list[str]:
    """The command line of a keeper that takes over. ``argv``: interpreter, options and file;
    ``lock``: descriptor of the locked file; ``memory``: of the estate."""
    told = json.dumps(meta | {"lock_fd": lock, "estate_fd": memory})
    return [*argv, told, "--", *engine]


def descriptors(estate: Estate) -> list[int]:
    """Every descriptor that the estate names."""
    reports = [child["report"] for child in estate.children if child.get("report", -1) >= 0]
    return [*estate.held.values(), *reports]


def write(estate: Estate) -> tuple[int, list[int]]:
    """The memory file's descriptor, and all that must be passed on under their numbers: it and
    those that it names. None is made inheritable here. Raises ``OSError``."""
    memory = os.memfd_create("everup-estate", os.MFD_CLOEXEC)
    try:
        data = memoryview(json.dumps(estate.record(), separators=(",", ":")).encode())
        while data:
            data = data[os.write(memory, data) :]
    except BaseException:
        os.close(memory)
        raise
    return memory, [memory, *descriptors(estate)]


def read(memory: int) -> Estate:
    """Take an estate over: closes ``memory``, and what it names is no longer inherited.

    A descriptor that is not open is left out, with a note. Raises ``ValueError`` for what is no
    estate.
    """
    try:
        data = os.pread(memory, os.fstat(memory).st_size, 0)
    finally:
        os.close(memory)
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError("not an estate")
    notes = [list(note) for note in found.get("notes", ())]
    held = {}
    for name, fd in found.get("held", {}).items():
        if _claim(fd):
            held[name] = fd
        else:
            notes.append([name, "its descriptor was lost on the way"])
    children = [dict(child) for child in found.get("children", ())]
    for child in children:
        if "report" in child and not _claim(child["report"]):
            del child["report"]
    return Estate(
        held,
        children,
        int(found.get("engine_starts", 0)),
        found.get("signal"),
        found.get("after"),
        notes,
    )


def _claim(fd: int) -> bool:
    try:
        os.set_inheritable(fd, False)
    except OSError:
        return False
    return True
