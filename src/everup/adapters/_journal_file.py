"""The journal's file: its format and migration, what a look at it tells, what is too old in it."""

import contextlib
import math
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

SCHEMA_VERSION = 2
Row = tuple[int, float, float, str, str, str, str]
COLUMNS = "seq, time, mono, boot, kind, subject, payload"
LATEST = (
    f"SELECT {COLUMNS} FROM event WHERE seq IN "  # noqa: S608
    "(SELECT max(seq) FROM event GROUP BY kind, subject) ORDER BY seq"
)
_SUFFIXES = ("", "-wal", "-shm")
_MAX_ASIDE = 5
_MAX_SEQ = 1 << 53
_MAX_BOOTS = 1_000
_MAX_PRUNED = 5_000
# What leads from each version to the next. Each runs in one transaction with the change of the
# version, so a migration that was killed has not happened.
_MIGRATIONS = {
    0: """
CREATE TABLE IF NOT EXISTS event (
    seq INTEGER PRIMARY KEY,
    time REAL NOT NULL,
    mono REAL NOT NULL,
    boot TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    payload TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS event_by_kind ON event (kind, subject, seq);
""",
    1: "CREATE INDEX IF NOT EXISTS event_by_time ON event (time);",
}
# SQLITE_ERROR: "no such table", a database that is not ours.
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR}
_STUCK = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


class JournalError(Exception):
    """The journal cannot be used; the text says why and what to do."""


class UnavailableError(JournalError):
    """It cannot be opened now, and may be later."""


def is_whole(row: Row) -> bool:
    """Whether all of it is of the right type: a damaged file or copy may give anything."""
    seq, time, mono, boot, kind, subject, payload = row
    return (
        all(isinstance(text, str) for text in (boot, kind, subject, payload))
        and all(isinstance(n, int | float) and math.isfinite(n) for n in (time, mono))
        and isinstance(seq, int)
        and 0 < seq < _MAX_SEQ
    )


def boot_id() -> str:
    """Identifies the boot of the machine: monotonic times compare within one.

    "" where /proc cannot be read: an unknown boot, equal to no other, not even to itself: nothing
    of an earlier life is taken for one of this boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (OSError, ValueError):
        return ""


def connect(path: Path, say: Callable[[str], None]) -> sqlite3.Connection:
    """Open for writing, made or migrated where necessary. sqlite3.Error, OSError, JournalError."""
    fresh = not path.exists()
    if fresh:
        _make(Path(os.path.realpath(path)))
    db = open_as(path, "rw")
    try:
        _prepare(db)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise JournalError(
                f"the journal {path} was written by a newer everup (format {version}, this one "
                f"knows {SCHEMA_VERSION}): use that version, or another state_dir"
            )
        if not fresh and version:  # before anything is built on it
            check(db)
        _migrate(db, version)
        if version and version < SCHEMA_VERSION and count(db):
            say(f"the journal {path} was migrated from version {version} to {SCHEMA_VERSION}")
        db.execute(f"SELECT {COLUMNS} FROM event LIMIT 0").fetchone()  # noqa: S608
    except BaseException:
        db.close()
        raise
    return db


def _make(path: Path) -> None:
    """Beside it first: there is never half a journal, which nobody could read after a kill."""
    new = path.with_name(f"{path.name}.new")
    _unlink(new)
    try:
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
        with contextlib.closing(open_as(new, "rw")) as db:
            _prepare(db)
            _migrate(db, 0)
        for suffix in ("-wal", "-shm", "-journal"):  # SQLite would take another's for its own
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{path}{suffix}")
        os.rename(new, path)
    except BaseException:
        _unlink(new)
        raise


def _prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA busy_timeout = 200")
    db.execute("PRAGMA journal_mode = WAL")
    # NORMAL: a commit outlives the death of everup; only a power cut can cost the last ones.
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA wal_autocheckpoint = 0")


def _migrate(db: sqlite3.Connection, version: int) -> None:
    for step in range(version, SCHEMA_VERSION):
        db.executescript(
            f"BEGIN IMMEDIATE; {_MIGRATIONS[step]} PRAGMA user_version = {step + 1}; COMMIT;"
        )


def open_as(path: Path, mode: str) -> sqlite3.Connection:
    """``ro`` or ``rw``, but never made; ``immutable``: as the file is, without its WAL."""
    option = "mode=ro&immutable=1" if mode == "immutable" else f"mode={mode}"
    return sqlite3.connect(f"file:{quote(str(path))}?{option}", uri=True, isolation_level=None)


def fetch(
    db: sqlite3.Connection, query: str, values: Sequence[object] | Mapping[str, object] = ()
) -> list[Row]:
    """All rows. A byte that is damaged costs its entry, not the reading of all others."""
    try:
        return db.execute(query, values).fetchall()
    except sqlite3.OperationalError as error:
        if not is_no_text(error):
            raise
        be_lenient(db)
        return db.execute(query, values).fetchall()


def is_no_text(error: sqlite3.Error) -> bool:
    """Something in a column of text is none: Python says so in words only."""
    return "decode to UTF-8" in str(error)


def be_lenient(db: sqlite3.Connection) -> None:
    """From now on show what is no text escaped. It makes reading slower."""
    db.text_factory = lambda data: data.decode("utf-8", "backslashreplace")


def check(db: sqlite3.Connection) -> None:
    """sqlite3.DatabaseError if it is damaged, or no journal. Reads all of it."""
    db.execute(f"SELECT {COLUMNS} FROM event LIMIT 0").fetchone()  # noqa: S608
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def count(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT count(*) FROM event").fetchone()[0])


def is_damage(error: BaseException) -> bool:
    """The file is no journal (any more), in contrast to one that cannot be written now."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:
        return type(error) is sqlite3.DatabaseError
    return code & 0xFF in _DAMAGE


def is_busy(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def is_stuck(error: BaseException) -> bool:
    """It may be the connection that cannot be used any more, rather than the disk."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _STUCK


def put_aside(path: Path, why: str) -> Path | None:
    """Rename it, with what belongs to it: it is evidence. The newest few are kept. None if it is
    not there. OSError."""
    if not os.path.lexists(path):
        _unlink(path)
        return None
    aside = path.with_name(f"{path.name}.{why}-{int(time.time())}")
    while os.path.lexists(aside):
        aside = aside.with_name(f"{aside.name}x")
    for suffix in _SUFFIXES:
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{path}{suffix}", f"{aside}{suffix}")
    with contextlib.suppress(OSError):
        others = [
            file
            for word in ("corrupt", "replaced")
            for file in path.parent.glob(f"{path.name}.{word}-*")
            if not file.name.endswith(_SUFFIXES[1:]) and file != aside
        ]
        others.sort(key=lambda file: file.lstat().st_mtime)
        for file in others[: max(0, len(others) + 1 - _MAX_ASIDE)]:
            _unlink(file)
    return aside


def _unlink(path: Path) -> None:
    for suffix in (*_SUFFIXES, "-journal"):
        with contextlib.suppress(OSError):
            os.unlink(f"{path}{suffix}")


@dataclass(frozen=True, slots=True)
class Look:
    """Which files the paths of a journal mean; None for one that is not there."""

    main: tuple[int, int] | None
    wal: tuple[int, int] | None
    shm: tuple[int, int] | None
    written: tuple[int, int]
    """Of the main file: time of the last write, size. It is written by checkpoints alone."""


def look(path: Path) -> Look:
    """Three calls of stat. OSError when that cannot be told."""
    ids: list[tuple[int, int] | None] = []
    written = (0, 0)
    for suffix in _SUFFIXES:
        try:
            found = os.stat(f"{path}{suffix}")
        except (FileNotFoundError, NotADirectoryError):
            ids.append(None)
            continue
        ids.append((found.st_dev, found.st_ino))
        if not suffix:
            written = (found.st_mtime_ns, found.st_size)
    return Look(ids[0], ids[1], ids[2], written)


def prune(db: sqlite3.Connection, cut: int) -> int:
    """Delete what is not after ``cut``, but never the last of each kind for each subject: that is
    state, however old. A bounded number at a time; returns how many."""
    if cut <= 0:
        return 0
    return db.execute(
        "DELETE FROM event WHERE seq IN (SELECT old.seq FROM event AS old WHERE old.seq <= ? AND "
        "EXISTS (SELECT 1 FROM event AS new WHERE new.kind = old.kind AND "
        "new.subject = old.subject AND new.seq > old.seq) LIMIT ?)",
        (cut, _MAX_PRUNED),
    ).rowcount


def too_old(
    db: sqlite3.Connection, retention_s: float, now: float, boot: str, *, born: float, after: int
) -> int:
    """The number up to which all entries are older than ``retention_s``; 0 if none is.

    Age is time that the machine ran, by the monotonic clock, as far as the journal proves it: an
    entry of this boot is as old as the clock has gone on since; one of an earlier boot was
    written before all of this boot, before all of those between as far as these are on record,
    and before the rest of its own. The wall clock has no say, so it may be stepped by years
    either way. The error is always to keep: time that the machine was off does not count.

    In an unknown boot (""), only what this life wrote compares: entries past number ``after``,
    begun at ``born``."""
    # Of the boot looked at: the clock at its begin and end, and how long ago that end was.
    begin, end, ago = (0.0 if boot else born), now, 0.0
    floor = 0 if boot else after
    seq = int(db.execute("SELECT max(seq) FROM event").fetchone()[0] or 0)
    for _ in range(_MAX_BOOTS):
        comparable = boot or floor
        mark = end + ago - retention_s if comparable else -math.inf
        found = _last_before(db, boot, mark, floor, seq)
        if found is None:
            return 0
        seq, mono, of = found
        if of == boot and seq > floor:
            return seq
        ago += end - begin
        if ago >= retention_s:
            return seq
        begin, end, boot, floor = (0.0 if of else mono), mono, of, 0
    return 0


def _last_before(
    db: sqlite3.Connection, boot: str, mark: float, floor: int, high: int
) -> tuple[int, float, str] | None:
    """The last entry of ``boot`` not after ``mark``, else the last of the boot before: entries
    are in order of boots, and of the clock within one, so this takes some twenty steps."""
    found = None
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        row = db.execute(
            "SELECT seq, mono, boot FROM event WHERE seq <= ? ORDER BY seq DESC LIMIT 1", (middle,)
        ).fetchone()
        if row is None:
            low = middle
        elif row[0] <= floor or row[2] != boot or row[1] <= mark:
            found, low = row, middle
        else:
            high = row[0] - 1
    return found
