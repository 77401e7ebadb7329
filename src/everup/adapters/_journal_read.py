"""Reading the journal, also while another process writes it, and in any version of its format."""

import contextlib
import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path

from everup.adapters._journal_copy import found, missing
from everup.adapters._journal_file import COLUMNS, LATEST, Row, fetch, is_whole, open_as
from everup.model.journal import Entry

DAMAGED = "damaged"
_SHOWN = 200


def read(
    path: Path,
    *,
    after: int = 0,
    limit: int = 1000,
    last: int | None = None,
    subjects: Iterable[str] = (),
    kinds: Iterable[str] = (),
    since: float | None = None,
    until: float | None = None,
) -> list[Entry]:
    """Entries in the order of their numbers, filtered. A subject ``web`` also means ``web.1``; a
    kind may end in ``*``. ``last`` gives only the last so many."""
    where: list[str] = []
    values: list[object] = [after]
    if since is None:
        where.append("seq > ?")
    else:
        # The + makes SQLite go by the index of times. Order is by number, whatever the clock did.
        where.append("seq > max(?, coalesce((SELECT min(+seq) - 1 FROM event WHERE time >= ?), ?))")
        values += [since, 2**62]
    groups = (
        ("subject", [(s, f"{s}.*") for s in subjects]),
        ("kind", [(k, k) for k in kinds]),
    )
    for column, patterns in groups:
        if patterns:
            where.append(
                "(" + " OR ".join(f"{column} = ? OR {column} GLOB ?" for _ in patterns) + ")"
            )
            values += [value for pair in patterns for value in pair]
    for operator, moment in ((">=", since), ("<=", until)):
        if moment is not None:
            where.append(f"time {operator} ?")
            values.append(moment)
    order = "DESC" if last is not None else "ASC"
    values.append(limit if last is None else min(last, 100_000))
    query = f"SELECT {COLUMNS} FROM event WHERE {' AND '.join(where)} ORDER BY seq {order} LIMIT ?"  # noqa: S608
    with contextlib.closing(open_as(path, "ro")) as db:
        try:
            rows = fetch(db, query, values)
        except sqlite3.OperationalError:
            if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                raise
            rows = []  # its writer was killed before it had made the table
    entries = [entry(row) for row in rows]
    return entries[::-1] if last is not None else entries


def latest(path: Path) -> list[Entry]:
    """The last entry of each kind for each subject, in order: what an engine starts from, also if
    the one before was killed before it could write it. What can be had of it, where the journal
    cannot be opened as it should."""
    try:
        with contextlib.closing(open_as(path, "rw")) as db:
            rows = fetch(db, LATEST)
    except sqlite3.Error:
        rows = salvage(path)
    more = missing(rows, found(path))
    last = {(row[4], row[5]): row for row in (*rows, *more)}
    return sound(sorted(last.values()))


def salvage(path: Path) -> list[Row]:
    """The same, of a journal that cannot be opened: first with its WAL, which takes no further
    file and no space if nobody else has it open, else without."""
    for mode, first in (("rw", "PRAGMA locking_mode = EXCLUSIVE"), ("immutable", "")):
        with (
            contextlib.suppress(sqlite3.Error),
            contextlib.closing(open_as(path, mode)) as db,
        ):
            db.execute(first)
            return fetch(db, LATEST)
    return []


def entry(row: Row) -> Entry:
    """Of a damaged one, what there is: it is shown, and nothing goes by it."""
    try:
        payload = json.loads(row[6])
        if not isinstance(payload, dict):
            raise TypeError(type(payload).__name__)
    except (ValueError, TypeError, RecursionError):
        payload = {DAMAGED: str(row[6])[:_SHOWN]}
    return Entry(*row[:6], payload)


def sound(rows: Iterable[Row]) -> list[Entry]:
    """Without those that are damaged."""
    return [found for row in rows if is_whole(row) and DAMAGED not in (found := entry(row)).payload]
