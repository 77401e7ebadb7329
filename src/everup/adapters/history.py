"""The history of a journal, kept beside it as ``history.json``, so that each look at it reads only
what is new, and what is counted outlives the entries that were deleted as too old."""

import contextlib
import gc
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from everup.adapters import trusted
from everup.adapters._journal_file import COLUMNS, LATEST, be_lenient, fetch, is_no_text, open_as
from everup.adapters._journal_read import sound
from everup.reliability.history import KINDS, History, Row

NAME = "history.json"
_FORMAT = 2
_MAX_BYTES = 256 << 20
_SAVE_AFTER = 2_000
"""So few new entries are not worth writing the file again, for a command."""
_SCAN = json.JSONDecoder().scan_once  # type: ignore[attr-defined]
_ENCODE = json.JSONEncoder(separators=(",", ":")).encode
_RUN = '{"run":'
_RUN_IS_ALL = frozenset(("instance.starting", "instance.ready"))
"""Kinds of whose entries the fold needs the incarnation alone, which comes first, ..."""
_SINCE = '"ok_s":'
"""... unless they tell since when."""
_Anchor = list[Any]
"""seq, time, mono, boot, kind, subject of an entry that was taken: the journal must have it, or
have nothing at its place."""


class HistoryError(Exception):
    """The journal cannot be read; the text says which and why."""


def advance(journal: Path, state_dir: Path, *, save: bool | None = None) -> History:
    """The history up to the journal's present end. Reads the journal only, whether or not everup
    runs; starts anew where the file of the history is missing, damaged or of another journal.

    ``save``: write the file; None: if that is worth it. It is no fault if that does not work.
    Raises ``HistoryError``, ``FileNotFoundError`` where there is no journal.
    """
    if not journal.exists():
        raise FileNotFoundError(str(journal))
    path = state_dir / NAME
    was_collecting = gc.isenabled()
    gc.disable()  # millions of small objects, none of them garbage
    try:
        with contextlib.closing(open_as(journal, "ro")) as db:
            db.execute("BEGIN")  # one look at it, whoever writes meanwhile
            try:
                history, anchors, why, taken = _look(path, db)
            except sqlite3.OperationalError as error:
                if not is_no_text(error):
                    raise
                be_lenient(db)
                history, anchors, why, taken = _look(path, db)
    except sqlite3.Error as error:
        raise HistoryError(f"cannot read the journal {journal}: {error}") from error
    finally:
        if was_collecting:
            gc.enable()
    if save or (save is None and (why or taken >= _SAVE_AFTER)):
        with contextlib.suppress(OSError):
            if why == "another journal":  # it is the only record of that one
                os.replace(path, f"{path}.other")
            _save(path, history, anchors)
    return history


def _look(path: Path, db: sqlite3.Connection) -> tuple[History, list[_Anchor], str, int]:
    history, anchors, why = _load(path, db)
    return history, anchors, why, _catch_up(db, history, anchors)


# -- the journal


def _catch_up(db: sqlite3.Connection, history: History, anchors: list[_Anchor]) -> int:
    """Take all entries that are new; returns how many there were."""
    try:
        last, low = db.execute("SELECT max(seq), min(seq) FROM event").fetchone()
    except sqlite3.OperationalError:
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise
        return 0  # its writer was killed before it had made the table
    if last is None or last <= history.seq:
        return 0
    before = history.seq
    cut = _last_gap(db, before, low, last)
    if cut:
        _seed(db, history, cut)
    history.feed(_rows(db, max(before, cut)))
    history.seq = last
    rows = [
        db.execute(f"SELECT {COLUMNS} FROM event WHERE seq = ?", (last,)).fetchone(),  # noqa: S608
        db.execute(
            f"SELECT {COLUMNS} FROM event WHERE kind = 'engine.started' ORDER BY seq DESC LIMIT 1"  # noqa: S608
        ).fetchone(),
    ]
    anchors[:] = [list(row[:6]) for row in rows if row]
    return int(last - before)


def _rows(db: sqlite3.Connection, after: int) -> Iterator[Row]:
    marks = ",".join("?" * len(KINDS))
    # The + keeps SQLite from going by the index of kinds, which would have to be sorted. Most of
    # "running" only says that a start goes on, with nothing but the incarnation.
    query = (
        f"SELECT {COLUMNS} FROM event WHERE seq > ? AND +kind IN ({marks}) AND "  # noqa: S608
        "(+kind <> 'instance.running' OR length(payload) > 24) ORDER BY seq"
    )
    scan, runs = _SCAN, _RUN_IS_ALL
    for seq, time, mono, boot, kind, subject, text in db.execute(query, (after, *KINDS)):
        try:
            if (
                kind in runs and text.startswith(_RUN) and _SINCE not in text
            ):  # a quarter of the time of parsing it
                end = text.find(",", 7)
                payload = {"run": int(text[7:end])}
            else:
                payload = scan(text, 0)[0]
        except (StopIteration, ValueError, RecursionError):
            continue
        if not isinstance(payload, dict):
            continue
        yield seq, time, mono, boot, kind, subject, payload


def _last_gap(db: sqlite3.Connection, after: int, low: int, last: int) -> int:
    """The last number up to which entries are missing that were not taken yet; 0: none are.

    Numbers follow on each other. What was deleted as too old was at the beginning, and what is
    left there is the last of each kind for each subject; a gap further on is of events that were
    lost while the disk was full, and everup has said so."""
    first = max(after, 0) + 1
    where = "" if first <= low else f" WHERE seq >= {first}"  # all of them: by the least index
    (there,) = db.execute(f"SELECT count(*) FROM event{where}").fetchone()  # noqa: S608
    if there == last - first + 1:
        return 0
    if low > first and there == last - low + 1:
        return low - 1
    limit = 200_000
    expected, gap = first, 0
    query = "SELECT seq FROM event WHERE seq >= ? ORDER BY seq LIMIT ?"
    ranked = 0
    for (seq,) in db.execute(query, (first, limit)):
        if seq != expected and _is_pruned(db, expected, seq, ranked):
            gap = seq - 1
        expected, ranked = seq + 1, ranked + 1
        if last - seq == there - ranked:
            break
    return gap


def _is_pruned(db: sqlite3.Connection, expected: int, seq: int, before: int) -> bool:
    """Whether entries were deleted, rather than lost: the journal tells of lost ones at once."""
    (told,) = db.execute(
        "SELECT count(*) FROM event WHERE seq >= ? AND seq < ? AND kind = 'journal.degraded'",
        (seq, seq + 20_000),
    ).fetchone()
    return not told


def _seed(db: sqlite3.Connection, history: History, cut: int) -> None:
    query = LATEST.replace("FROM event GROUP", "FROM event WHERE seq <= :cut GROUP")
    rows = fetch(db, query, {"cut": cut})
    latest = sound(rows)
    row = db.execute(
        f"SELECT {COLUMNS} FROM event WHERE seq > ? ORDER BY seq LIMIT 1",  # noqa: S608
        (cut,),
    ).fetchone()
    first: dict[str, tuple[int, str]] = {}
    marks = ",".join("?" * len(KINDS))
    found = db.execute(
        "SELECT kind, subject, min(seq) FROM event WHERE seq > ? "  # noqa: S608
        f"AND kind IN ({marks}) GROUP BY kind, subject",
        (cut, *KINDS),
    )
    for kind, subject, seq in found:
        if subject not in first or seq < first[subject][0]:
            first[subject] = (seq, kind)
    history.seed(row, latest, {subject: kind for subject, (_seq, kind) in first.items()})


# -- the file


def _load(path: Path, db: sqlite3.Connection) -> tuple[History, list[_Anchor], str]:
    """The history as it was left, or a new one and why."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return History(), [], "too large"
        data = json.loads(path.read_bytes())
        if data["format"] != _FORMAT:
            return History(), [], "of another version"
        anchors = data["anchors"]
        if not _matches(db, data["history"]["seq"], anchors):
            return History(), [], "another journal"
        return History.from_json(data["history"]), anchors, ""
    except FileNotFoundError:
        return History(), [], "missing"
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return History(), [], "damaged"


def _matches(db: sqlite3.Connection, seq: int, anchors: list[_Anchor]) -> bool:
    (last,) = db.execute("SELECT max(seq) FROM event").fetchone()
    if seq and (last is None or last < seq):
        return False
    for anchor in anchors:
        row = db.execute(
            f"SELECT {COLUMNS} FROM event WHERE seq = ?",  # noqa: S608
            (anchor[0],),
        ).fetchone()
        if row is not None and list(row[:6]) != anchor:
            return False
    return True


def _save(path: Path, history: History, anchors: list[_Anchor]) -> None:
    """Whole or not at all. OSError."""
    text = _ENCODE({"format": _FORMAT, "anchors": anchors, "history": history.to_json()})
    new = f"{path}.{os.getpid()}.new"
    try:
        fd = trusted.open_file(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with open(fd, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
