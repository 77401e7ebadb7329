"""What the journal has in memory: its numbers, the state, and what is not in the file yet."""

import json
import math
import threading
from collections import deque
from collections.abc import Sequence

from everup.adapters._journal_copy import missing
from everup.adapters._journal_file import Row, boot_id, is_whole
from everup.model.action import Record

MAX_HELD = 10_000
MAX_STATE = 50_000
_ENCODE = json.JSONEncoder(separators=(",", ":"), default=str).encode


class Memory:
    """Used by the loop and by the thread that writes, so whoever looks or changes has ``lock``,
    and nobody who has it waits for a disk."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.boot = boot_id()
        self.held: deque[Row] = deque()
        """Not in the file, or not yet."""
        self.state: dict[tuple[str, str], Row] = {}
        """The last event of each kind for each subject, in the order of the numbers."""
        self.last_seq = 0
        self.before = 0
        """The last number of an earlier life."""
        self.lost = 0
        self._mono = -math.inf
        self.durable = False
        """One of ``held`` is to outlive a power cut."""

    def enter(
        self, records: Sequence[Record], now: float, mono: float
    ) -> tuple[list[Row], MemoryError | None]:
        """Number them and keep them until they are written; what there is no memory for is lost,
        and all after that.

        ``mono`` is when their step began, and another thread may have entered something since:
        later entries have later times whatever happens, for the copy is read by them."""
        rows: list[Row] = []
        with self.lock:
            if mono < self._mono:
                mono = math.nextafter(self._mono, math.inf)
            self._mono = mono
            try:
                for record in records:
                    self.last_seq += 1
                    subject = record.subject
                    if not subject.isascii():
                        subject = subject.encode("utf-8", "backslashreplace").decode()
                    text = _to_json(record.payload)
                    seq, kind = self.last_seq, record.kind.value
                    row = (seq, now, mono, self.boot, kind, subject, text)
                    self.held.append(row)
                    rows.append(row)
                    self._remember(row)
                    self.durable = self.durable or record.durable
            except MemoryError as error:
                self.lost += len(records) - len(rows)
                return rows, error
        return rows, None

    def _remember(self, row: Row) -> None:
        key = (row[4], row[5])
        self.state.pop(key, None)  # so that the order stays that of the numbers
        self.state[key] = row
        if len(self.state) > MAX_STATE:
            del self.state[next(iter(self.state))]

    def trim(self) -> None:
        """While nothing can be written: the newest are kept."""
        with self.lock:
            while len(self.held) > MAX_HELD:
                self.held.popleft()
                self.lost += 1

    def meet(self, rows: Sequence[Row], copied: Sequence[Row]) -> bool:
        """The state of earlier lives, with what the last one could not write. What this one has
        written in memory comes after it. True if the copy alone had any."""
        with self.lock:
            more = missing(rows, copied)
            alone = bool(more and not rows)
            rows = [row for row in (*rows, *more) if is_whole(row)]
            by = max(0, (rows[-1][0] if rows else 0) - self.before)
            mine = [row for row in self.state.values() if row[0] > self.before]
            held = [row for row in self.held if row[0] > self.before]
            self.before += by
            self.last_seq += by
            self.held = deque((*more, *_shifted(held, by)))
            self.state = {}
            for row in (*rows, *_shifted(mine, by)):
                self._remember(row)
            return alone

    def pending(self, *, all_of_it: bool) -> tuple[list[Row], int, bool]:
        """What is to be written, how many of that only wait for it, and whether it is to outlive
        a power cut. ``all_of_it``: for a new file the state as well."""
        with self.lock:
            durable, self.durable = self.durable, False
            rows = sorted({*self.state.values(), *self.held}) if all_of_it else [*self.held]
            return rows, len(self.held), durable

    def written(self, rows: Sequence[Row], waited: int) -> None:
        """They are in the file, also those that were given up meanwhile."""
        with self.lock:
            last = rows[-1][0] if rows else 0
            before = len(self.held)
            while self.held and self.held[0][0] <= last:
                self.held.popleft()
            self.lost -= waited - (before - len(self.held))

    def everything(self) -> set[Row]:
        """For the copy."""
        with self.lock:
            return {*self.state.values(), *self.held}


def _shifted(rows: Sequence[Row], by: int) -> list[Row]:
    return [(row[0] + by, *row[1:]) for row in rows]


def _to_json(payload: dict[str, object]) -> str:
    """Any payload can be written."""
    try:
        return _ENCODE(payload)
    except MemoryError:
        raise
    except Exception as error:
        return json.dumps({"not_storable": f"{type(error).__name__}: {error}"})
